package gateway

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// fakeSink keeps each write.
type fakeSink struct {
	mu     sync.Mutex // guards what follows
	writes []string
	err    error
	block  chan struct{} // a write waits for it to be closed
}

func (s *fakeSink) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.block != nil {
		<-s.block
	}
	if s.err != nil {
		return s.err
	}
	s.writes = append(s.writes, string(b))
	return nil
}

func (s *fakeSink) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.writes
	s.writes = nil
	return w
}

// looped is a connection whose loop runs in a test's bubble.
type looped struct {
	*loop
	registry *prometheus.Registry
	hubs     *fakeHubs
	sink     *fakeSink
	sub      *fakeSub
	cancel   context.CancelFunc
	ended    chan error
}

func startLoop(t *testing.T, cfg Config, f frames) *looped {
	t.Helper()
	l := &looped{hubs: newFakeHubs(), sink: &fakeSink{}, ended: make(chan error, 1)}
	l.registry = prometheus.NewRegistry()
	cfg.Metrics = l.registry
	g := newGateway(cfg, l.hubs, &fakeTopics{}, openAccess(t))
	l.loop = g.newLoop("sse", f, l.sink)
	feed := &feed{frames: f}
	ctx, cancel := context.WithCancel(t.Context())
	l.cancel = cancel
	if err := g.subscribe(ctx, &l.connection, feed, request{Request: fanout.Request{Topics: []string{"orders"}}}); err != nil {
		t.Fatal(err)
	}
	l.sub = l.hubs.sub(0)
	l.add(feed)
	go func() { l.ended <- l.run(ctx) }()
	synctest.Wait()
	return l
}

func (l *looped) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	if err := <-l.ended; !errors.Is(err, errClientGone) {
		t.Errorf("ended with %v", err)
	}
	l.wantClosed(t)
}

func (l *looped) wantClosed(t *testing.T) {
	t.Helper()
	select {
	case <-l.sub.closed:
	default:
		t.Error("the subscription is still open")
	}
	if l.hubs.taken != 0 {
		t.Errorf("%d bytes are still reserved", l.hubs.taken)
	}
}

func wantWrites(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

func TestWhatIsPendingLeavesInOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		first := l.sink.take()
		if len(first) != 1 || !strings.HasPrefix(first[0], "retry: ") || !strings.HasSuffix(first[0], "\nid: P0\n\n") {
			t.Fatalf("opened with %q", first)
		}
		l.sub.push(item("a", 1), sharedItem(sse{}, "b", 2), item("c", 3))
		synctest.Wait()
		wantWrites(t, l.sink.take(), "data: a\nid: P1\n\ndata: b\nid: P2\n\ndata: c\nid: P3\n\n")
		if n := metric(t, l.registry, "streamgw_events_delivered_total", "orders", "sse"); n != 3 {
			t.Errorf("%v delivered", n)
		}
		l.stop(t)
	})
}

func TestASharedFrameAloneIsNotCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		one := sharedItem(sse{}, "a", 1)
		l.sub.push(one)
		synctest.Wait()
		wantWrites(t, l.sink.take(), string(one.Frame))
		l.stop(t)
	})
	var out outgoing
	one := sharedItem(sse{}, "a", 1)
	f := &feed{sub: &fakeSub{batches: [][]fanout.Item{{one}}}, frames: sse{}}
	if _, err := f.poll(new(fanout.Batch), &out); err != nil || out.buf != nil || &out.bytes()[0] != &one.Frame[0] {
		t.Errorf("%v: the hub's frame was copied", err)
	}
}

// TestAnIdleConnectionHoldsNoMessage: it has let go of what it delivered, so that the hub's window may.
func TestAnIdleConnectionHoldsNoMessage(t *testing.T) {
	for name, f := range map[string]frames{"shared": sse{}, "copied": webSocketFrames{id: "a"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := startLoop(t, Config{}, f)
				push := func() weak.Pointer[stream.Message] {
					one := sharedItem(Formats()[f.format()], "1", 1)
					l.sub.push(one)
					return weak.Make(one.Message)
				}
				delivered := push()
				synctest.Wait()
				runtime.GC()
				if m := delivered.Value(); m != nil {
					t.Errorf("%+v is still held", m)
				}
				l.stop(t)
			})
		})
	}
}

func TestNoEmptyPollFollowsADelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		before := l.sub.polls
		for i := range 10 {
			l.sub.push(item("a", i))
			synctest.Wait()
		}
		if n := l.sub.polls - before; n != 10 {
			t.Errorf("%d polls for 10 deliveries", n)
		}
		l.stop(t)
	})
}

// TestWhatAPollLeftIsPolledAtOnce: the hub doesn't wake for it.
func TestWhatAPollLeftIsPolledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		l.sub.mu.Lock()
		l.sub.batches = [][]fanout.Item{{item("a", 1)}, {item("b", 2)}, {item("c", 3)}}
		l.sub.mu.Unlock()
		l.sub.req.Waker.Wake()
		synctest.Wait()
		wantWrites(t, l.sink.take(), "data: a\nid: P1\n\n", "data: b\nid: P2\n\n", "data: c\nid: P3\n\n")
		l.stop(t)
	})
}

func TestGapIsToldAndThenPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		gap := &stream.Gap{Topic: "orders", From: 1, To: 5, Reason: stream.GapRetention}
		l.sub.push(sharedItem(sse{}, "a", 1), fanout.Item{Gap: gap, ID: "P5"}, sharedItem(sse{}, "b", 6))
		synctest.Wait()
		wantWrites(t, l.sink.take(), "data: a\nid: P1\n\n"+
			"event: streamgw.gap\ndata: {\"topic\":\"orders\",\"partition\":0,\"from\":1,\"to\":5,\"reason\":\"retention\"}\n\nid: P5\n\n"+
			"data: b\nid: P6\n\n")
		l.stop(t)
	})
}

func TestEndOfASubscriptionIsToldWithItsPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		l.sub.push(item("a", 1))
		l.sub.fail(stream.Errorf(stream.TooSlow, "resume"))
		err := <-l.ended
		got := parseEventStream(strings.Join(l.sink.take(), ""))
		if len(got.events) != 2 || got.events[0].data != "a" || got.events[1].name != "streamgw.error" || got.lastID != "P1" {
			t.Errorf("dispatched %+v", got)
		}
		if reason(err) != "too-slow" {
			t.Errorf("reason %s", reason(err))
		}
		l.wantClosed(t)
	})
}

func TestInternalErrorsAreNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sub.fail(errors.New("password 12345"))
		<-l.ended
		if got := strings.Join(l.sink.take(), ""); strings.Contains(got, "12345") || !strings.Contains(got, "internal error") {
			t.Errorf("wrote %q", got)
		}
	})
}

func TestDrainTellsWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{Retry: time.Second, Drain: 8 * time.Second}, sse{})
		l.sub.pass("P7")
		l.sink.take()
		l.g.drain()
		if err := <-l.ended; reason(err) != "drain" {
			t.Errorf("ended with %v", err)
		}
		got := parseEventStream(strings.Join(l.sink.take(), ""))
		if got.retry < 1000 || got.retry > 9000 || got.lastID != "P7" || len(got.events) != 0 {
			t.Errorf("the client got %+v", got)
		}
		l.wantClosed(t)
	})
}

func TestRetryIsSpread(t *testing.T) {
	g := newGateway(Config{Retry: time.Second, RetrySpread: time.Second}, newFakeHubs(), &fakeTopics{}, openAccess(t))
	low, high := time.Hour, time.Duration(0)
	for range 1000 {
		r := g.retry(g.cfg.RetrySpread)
		low, high = min(low, r), max(high, r)
	}
	if low < time.Second || low > 1100*time.Millisecond || high < 1900*time.Millisecond || high > 2*time.Second {
		t.Errorf("from %v to %v", low, high)
	}
}

func TestWritesAreCountedAgainstMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sub.push(item(strings.Repeat("x", 5000), 1))
		synctest.Wait()
		if l.hubs.most < 5000 || l.hubs.most > 5100 || l.hubs.taken != 0 {
			t.Errorf("reserved %d at most, %d are still", l.hubs.most, l.hubs.taken)
		}
		l.stop(t)
	})
}

func TestWithoutMemoryTheClientIsToldToResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		l.hubs.budget = 100
		l.sub.push(item(strings.Repeat("x", 5000), 1))
		err := <-l.ended
		got := parseEventStream(strings.Join(l.sink.take(), ""))
		if len(got.events) != 1 || got.events[0].name != "streamgw.error" || got.lastID != "" {
			t.Errorf("the client got %+v: what it wasn't sent must not be passed", got)
		}
		if reason(err) != "overloaded" {
			t.Errorf("reason %s", reason(err))
		}
		l.wantClosed(t)
	})
}

func TestMemoryThatComesBackIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		l.hubs.budget = 10
		l.sub.push(item("some bytes", 1))
		time.Sleep(20 * time.Millisecond)
		l.hubs.mu.Lock()
		l.hubs.budget = 1000
		l.hubs.mu.Unlock()
		time.Sleep(time.Second)
		wantWrites(t, l.sink.take(), "data: some bytes\nid: P1\n\n")
		l.stop(t)
	})
}

func TestAFailedWriteEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.mu.Lock()
		l.sink.err = errors.New("broken pipe")
		l.sink.mu.Unlock()
		l.sub.push(item("a", 1))
		if err := <-l.ended; reason(err) != "client" {
			t.Errorf("ended with %v", err)
		}
		l.wantClosed(t)
	})
}

// TestWhatComesDuringAWriteLeavesWithTheNext shows that a slow write gathers, and holds one buffer only.
func TestWhatComesDuringAWriteLeavesWithTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		l.sink.mu.Lock()
		block := make(chan struct{})
		l.sink.block = block
		l.sink.mu.Unlock()
		l.sub.push(item("a", 1))
		synctest.Wait()
		for i := range 10 {
			l.sub.push(item("b", 2+i))
		}
		synctest.Wait()
		if n := len(l.sub.batches); n != 10 {
			t.Errorf("%d batches are still with the hub, want 10", n)
		}
		close(block)
		synctest.Wait()
		if got := l.sink.take(); len(got) != 11 {
			t.Errorf("%d writes", len(got))
		}
		l.stop(t)
	})
}

func TestDeliverySecondsLeavesReplaysOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		observed := func() float64 { return metric(t, l.registry, "streamgw_delivery_seconds") }
		old := item("replayed", 1)
		old.Message.Timestamp = time.Now().Add(-time.Millisecond)
		l.sub.push(old)
		synctest.Wait()
		if n := observed(); n != 0 {
			t.Errorf("a replay was observed")
		}
		time.Sleep(time.Second)
		fresh := item("live", 2)
		fresh.Message.Timestamp = time.Now().Add(-3 * time.Millisecond)
		l.sub.push(fresh, fresh)
		synctest.Wait()
		if n := observed(); n != 1 {
			t.Errorf("observed %v times, want once for the write", n)
		}
		l.stop(t)
	})
}
