package bench

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memoryPublisher is a publisher that keeps what it gets, and takes its time.
type memoryPublisher struct {
	lanes int
	takes time.Duration
	fails error

	mu     sync.Mutex
	events []published
	calls  int
}

type published struct {
	lane int
	mark Mark
	key  string
	size int
	at   time.Time
}

func (p *memoryPublisher) Lanes() int { return p.lanes }

func (p *memoryPublisher) Publish(ctx context.Context, lane int, events []Event) error {
	p.mu.Lock()
	p.calls++
	for _, e := range events {
		run := textOf(testRun)
		m, _ := parseMark(e.Value[len(valueHead):], run)
		p.events = append(p.events, published{lane, m, string(e.Key), len(e.Value), time.Now()})
	}
	p.mu.Unlock()
	if p.takes > 0 {
		if err := sleep(ctx, p.takes); err != nil {
			return err
		}
	}
	return p.fails
}

// steady has a load made at a rate, for so long, on a clock of its own.
func steady(t *testing.T, to *memoryPublisher, cfg Config, long time.Duration) *load {
	t.Helper()
	cfg.Publisher = to
	cfg = cfg.withDefaults()
	l, err := newLoad(cfg, testRun)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.steadily(t.Context(), cfg.Rate, long); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTheRateIsKept(t *testing.T) {
	for name, tt := range map[string]struct {
		rate  float64
		lanes int
		takes time.Duration
		conns int // of a keyed run
	}{
		"light":                              {50, 3, time.Millisecond, 0},
		"faster than acknowledgements":       {10_000, 3, 7 * time.Millisecond, 0},
		"slower than one a second":           {0.5, 2, 0, 0},
		"one lane":                           {333, 1, time.Millisecond, 0},
		"many keys":                          {1000, 3, time.Millisecond, 100},
		"fewer keys than partitions":         {100, 5, time.Millisecond, 2},
		"more than a batch between two acks": {30_000, 2, 20 * time.Millisecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := &memoryPublisher{lanes: tt.lanes, takes: tt.takes}
				const long = 4 * time.Second
				l := steady(t, to, Config{Rate: tt.rate, Keyed: tt.conns > 0, Conns: tt.conns, Batch: 5000}, long)
				want := int64(tt.rate * long.Seconds())
				if off := l.total() - want; off > int64(tt.lanes) || off < -int64(tt.lanes) {
					t.Errorf("%d events, want %d", l.total(), want)
				}
				if late := l.maxLate(); late > tt.takes+time.Millisecond {
					t.Errorf("an event was handed over %v late", late)
				}
				wantInOrder(t, l, to)
			})
		})
	}
}

func TestRandomArrivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &memoryPublisher{lanes: 3}
		const long, rate = 100 * time.Second, 100
		l := steady(t, to, Config{Rate: rate, Arrivals: RandomArrivals, Seed: 1}, long)
		if want := rate * long.Seconds(); math.Abs(float64(l.total())-want) > 4*math.Sqrt(want) {
			t.Errorf("%d events, want about %v", l.total(), want)
		}
		wantInOrder(t, l, to)
		at := make([]time.Duration, 0, len(to.events))
		for _, e := range to.events {
			at = append(at, time.Duration(e.mark.At))
		}
		slices.Sort(at)
		close := 0
		for i := range at[1:] {
			if at[i+1]-at[i] < 5*time.Millisecond {
				close++
			}
		}
		if share := float64(close) / float64(len(at)); share < 0.36 || share > 0.43 { // 1 - exp(-1/2)
			t.Errorf("%.2f of the events come less than half of the mean after the one before", share)
		}
	})
}

// TestLinger: events are handed over together, as old as the first of them.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const linger, long = 5 * time.Millisecond, time.Second
		to := &memoryPublisher{lanes: 2}
		l := steady(t, to, Config{Rate: 4000, Linger: linger}, long)
		wantInOrder(t, l, to)
		if n := l.total(); n != 4000 {
			t.Errorf("%d events, want 4000", n)
		}
		if want := 2 * int(long/linger); to.calls < want*9/10 || to.calls > want {
			t.Errorf("%d times events were handed over, want about %d", to.calls, want)
		}
		for _, e := range to.events {
			if age := nanoseconds(e.at) - e.mark.At; age != int64(linger) {
				t.Fatalf("events were stamped %v before they were handed over, want %v", time.Duration(age), linger)
			}
		}
	})
}

// wantInOrder checks numbers, keys and sizes of what was published.
func wantInOrder(t *testing.T, l *load, to *memoryPublisher) {
	t.Helper()
	next := make([]uint32, l.streams)
	for _, e := range to.events {
		if e.mark.Number != next[e.mark.Stream] || e.size != l.cfg.Size || e.mark.At > nanoseconds(e.at) {
			t.Fatalf("%+v, want number %d, %d bytes, stamped before it was handed over", e, next[e.mark.Stream], l.cfg.Size)
		}
		if l.cfg.Keyed && e.key != l.cfg.key(int(e.mark.Stream)) || !l.cfg.Keyed && (e.key != "" || e.lane != int(e.mark.Stream)) {
			t.Fatalf("%+v is of another stream", e)
		}
		next[e.mark.Stream]++
	}
	if !slices.Equal(next, l.published()) {
		t.Errorf("published %v, but says %v", next, l.published())
	}
	if least, most := slices.Min(next), slices.Max(next); most-least > 1+most/10 {
		t.Errorf("streams don't take turns: %v", next)
	}
}

func TestAsFastAsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &memoryPublisher{lanes: 2, takes: 10 * time.Millisecond}
		l := steady(t, to, Config{Batch: 10}, time.Second)
		if l.total() < 2*10*100 || l.total() > 2*10*101 {
			t.Errorf("%d events in a second", l.total())
		}
		wantInOrder(t, l, to)
	})
}

func TestSoManyAtOnce(t *testing.T) {
	for _, events := range []int{0, 1, 3, 1000} {
		to := &memoryPublisher{lanes: 3}
		l, err := newLoad(Config{Publisher: to}.withDefaults(), testRun)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.atOnce(t.Context(), events); err != nil || l.total() != int64(events) {
			t.Errorf("%d events, want %d; %v", l.total(), events, err)
		}
		if events > 2 {
			wantInOrder(t, l, to)
		}
	}
}

func TestAPublisherThatFailsEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("no leader")
		l, err := newLoad(Config{Publisher: &memoryPublisher{lanes: 2, fails: cause}, Rate: 10}.withDefaults(), testRun)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.steadily(t.Context(), 10, time.Hour); !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
		if l.total() > 2 {
			t.Errorf("%d events were handed over after the first failed", l.total())
		}
	})
}

func TestAnInterruptedLoadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l, err := newLoad(Config{Publisher: &memoryPublisher{lanes: 2, takes: time.Minute}, Rate: 10}.withDefaults(), testRun)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.steadily(ctx, 10, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// oneFails is a publisher of two lanes, of which one fails at once and the other takes for ever.
type oneFails struct{ why error }

func (oneFails) Lanes() int { return 2 }

func (p oneFails) Publish(ctx context.Context, lane int, _ []Event) error {
	if lane == 1 {
		return p.why
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestALaneThatFailsEndsTheOthers(t *testing.T) {
	why := errors.New("no leader")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	l, err := newLoad(Config{Publisher: oneFails{why}}.withDefaults(), testRun)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.steadily(ctx, 100, time.Hour); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
	if err := l.atOnce(ctx, 2); !errors.Is(err, why) {
		t.Errorf("at once: got %v, want %v", err, why)
	}
}
