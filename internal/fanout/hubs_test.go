package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memLog is a topic of one incarnation in memory: a Source and a History that never fail by themselves.
type memLog struct {
	topic   string
	mu      sync.Mutex
	parts   [][]stream.Message
	changed chan struct{}
	reads   int // of history
	readers int // Reads under way
}

func newMemLog(partitions int) *memLog {
	return &memLog{topic: "t", parts: make([][]stream.Message, partitions), changed: make(chan struct{})}
}

func (l *memLog) produce(partition int, key string, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := stream.Message{Topic: l.topic, Partition: int32(partition), Offset: int64(len(l.parts[partition])), Timestamp: time.Now(), Key: []byte(key), Value: make([]byte, size)}
	l.parts[partition] = append(l.parts[partition], m)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *memLog) Read(ctx context.Context, topic string, emit func(stream.Batch)) error {
	if topic != l.topic {
		return stream.Errorf(stream.NotFound, "no topic %s", topic)
	}
	l.mu.Lock()
	l.readers++
	next := l.endsLocked()
	l.mu.Unlock()
	defer func() { l.mu.Lock(); l.readers--; l.mu.Unlock() }()
	emit(stream.Batch{Start: &stream.Start{Incarnation: stream.Incarnation{1}, Begin: make([]int64, len(next)), Next: append([]int64(nil), next...)}})
	for {
		l.mu.Lock()
		changed := l.changed
		var b stream.Batch
		for p, log := range l.parts {
			if int(next[p]) < len(log) {
				b.Parts = append(b.Parts, stream.PartBatch{Partition: int32(p), Messages: append([]stream.Message(nil), log[next[p]:]...), Next: int64(len(log))})
				next[p] = int64(len(log))
			}
		}
		l.mu.Unlock()
		if len(b.Parts) > 0 {
			emit(b)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (l *memLog) endsLocked() []int64 {
	ends := make([]int64, len(l.parts))
	for p, log := range l.parts {
		ends[p] = int64(len(log))
	}
	return ends
}

func (l *memLog) readHistory(req stream.HistoryRequest) (parts []stream.PartBatch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	var size int64
	for _, r := range req.Ranges {
		part := stream.PartBatch{Partition: r.Partition, Next: r.From}
		for part.Next < r.To {
			m := l.parts[r.Partition][part.Next]
			if size > 0 && size+m.Size() > req.MaxBytes {
				break
			}
			part.Messages = append(part.Messages, m)
			part.Next++
			size += m.Size()
		}
		parts = append(parts, part)
	}
	return parts
}

func (l *memLog) Offsets(_ context.Context, topic string, at stream.At) (stream.TopicPosition, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := stream.TopicPosition{Topic: topic, Incarnation: stream.Incarnation{1}, Next: make([]int64, len(l.parts))}
	if at == stream.Latest {
		p.Next = l.endsLocked()
	}
	for i := range p.Next {
		for at.Kafka() > 0 && int(p.Next[i]) < len(l.parts[i]) && l.parts[i][p.Next[i]].Timestamp.UnixMilli() < at.Kafka() {
			p.Next[i]++
		}
	}
	return p, nil
}

// memHistory is memLog's History: Read has another shape there.
type memHistory struct{ *memLog }

func (h memHistory) Read(_ context.Context, req stream.HistoryRequest) ([]stream.PartBatch, error) {
	return h.readHistory(req), nil
}

// startHubs runs hubs over log until the test ends.
func startHubs(t testing.TB, cfg Config, log *memLog) *Hubs {
	return runHubs(t, New(cfg, log, memHistory{log}))
}

func runHubs(t testing.TB, h *Hubs) *Hubs {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return h
}

func subscribe(t testing.TB, h *Hubs, req Request) *Subscription {
	t.Helper()
	if req.Topics == nil {
		req.Topics = []string{"t"}
	}
	if req.From == (From{}) {
		req.From.At = stream.Latest
	}
	s, err := h.Subscribe(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// wantKind checks the kind of an error.
func wantKind(t *testing.T, err error, want stream.Kind) {
	t.Helper()
	if e, ok := errors.AsType[*stream.Error](err); !ok || e.Kind != want {
		t.Errorf("error %v, want one of kind %d", err, want)
	}
}

func TestSubscriberGetsWhatIsPublishedAfterItIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(3)
		log.produce(0, "before", 10)
		h := startHubs(t, Config{}, log)
		s := subscribe(t, h, Request{Format: -1})
		log.produce(1, "after", 10)
		var b Batch
		if err := s.Next(t.Context(), &b); err != nil || len(b.Items) != 1 || string(b.Items[0].Message.Key) != "after" {
			t.Fatalf("got %+v, %v", b.Items, err)
		}
	})
}

func TestUnknownTopicIsNotFoundAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHubs(t, Config{}, newMemLog(1))
		began := time.Now()
		_, err := h.Subscribe(t.Context(), Request{Topics: []string{"nowhere"}, From: From{At: stream.Latest}})
		wantKind(t, err, stream.NotFound)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it took %v", waited)
		}
		if n := len(h.Stats()); n != 0 {
			t.Errorf("%d hubs are left of it", n)
		}
	})
}

// deaf is a Source that never stands, as with a partition that has no leader.
type deaf struct{ stream.History }

func (deaf) Read(ctx context.Context, _ string, _ func(stream.Batch)) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestTopicThatCannotBeReadIsUnavailableInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{}, deaf{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		go h.Run(ctx)
		began := time.Now()
		_, err := h.Subscribe(t.Context(), Request{Topics: []string{"t"}, From: From{At: stream.Latest}})
		wantKind(t, err, stream.Unavailable)
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("it took %v, want 5 s", waited)
		}
		cancel()
	})
}

func TestPositionOfOtherTopicsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHubs(t, Config{}, newMemLog(1))
		p := stream.NewPosition(stream.Incarnation{1}, "other", 7)
		_, err := h.Subscribe(t.Context(), Request{Topics: []string{"t"}, From: From{Position: &p}})
		wantKind(t, err, stream.BadPosition)
	})
}

func TestHubLingersAndThenStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1)
		h := startHubs(t, Config{Linger: time.Minute}, log)
		s := subscribe(t, h, Request{Format: -1})
		s.Close()
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if len(h.Stats()) != 1 {
			t.Error("the hub is gone too early")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		log.mu.Lock()
		defer log.mu.Unlock()
		if len(h.Stats()) != 0 || log.readers != 0 {
			t.Errorf("%d hubs and %d readers are left", len(h.Stats()), log.readers)
		}
	})
}

func TestSubscriptionThatFallsBehind(t *testing.T) {
	size := (&entry{msg: stream.Message{Topic: "t", Key: []byte("k"), Value: make([]byte, 100)}, id: stream.TopicPosition{Topic: "t", Next: []int64{1}}.Part()}).size()
	for name, tt := range map[string]struct {
		slow         Slow
		window, sent int
		wantReads    bool
		wantErr      bool
	}{
		"window exactly full":          {SlowReplay, 4, 4, false, false},
		"one message too old":          {SlowReplay, 4, 5, true, false},
		"far behind":                   {SlowReplay, 4, 500, true, false},
		"to be closed, window full":    {SlowClose, 4, 4, false, false},
		"to be closed, one message on": {SlowClose, 4, 5, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newMemLog(1)
				h := startHubs(t, Config{Window: func(string) Window { return Window{Bytes: size * int64(tt.window)} }}, log)
				s := subscribe(t, h, Request{Slow: tt.slow, Format: -1})
				for range tt.sent {
					log.produce(0, "k", 100)
				}
				synctest.Wait() // everything is appended; s has read nothing yet
				err := wantOffsets(t, s, 0, tt.sent)
				if tt.wantErr {
					wantKind(t, err, stream.TooSlow)
					p, _ := stream.ParsePosition(s.Position())
					if at, _ := p.Offset("t", 0); at != 0 {
						t.Errorf("it ends at %d; nothing was delivered", at)
					}
					return
				}
				if err != nil || (log.reads > 0) != tt.wantReads {
					t.Errorf("error %v, %d reads of history; want some: %v", err, log.reads, tt.wantReads)
				}
			})
		})
	}
}

// wantOffsets reads a one-partition subscription to an offset and checks that none is missing or twice.
func wantOffsets(t *testing.T, s *Subscription, from, to int) error {
	t.Helper()
	var b Batch
	for next := from; next < to; {
		if err := s.Next(t.Context(), &b); err != nil {
			return err
		}
		for _, it := range b.Items {
			if it.Message == nil || it.Message.Offset != int64(next) {
				t.Fatalf("got %+v, want offset %d", it, next)
			}
			next++
		}
	}
	return nil
}

// TestManyAtOnce is for the race detector: appends, polls, cuts, resumes, evictions and history all at the same time.
func TestManyAtOnce(t *testing.T) {
	for name, memory := range map[string]int64{"with memory enough": 1 << 30, "while memory is short": 48_000} {
		t.Run(name, func(t *testing.T) { testManyAtOnce(t, memory) })
	}
}

func testManyAtOnce(t *testing.T, memory int64) {
	const partitions, each = 3, 400
	log := newMemLog(partitions)
	h := startHubs(t, Config{
		Window: func(string) Window { return Window{Bytes: 6000} }, Formats: simFormats, HistoryBytes: 4000, Memory: memory,
		Gather: func(string) time.Duration { return time.Millisecond },
	}, log)
	origin := stream.NewPosition(stream.Incarnation{1}, "t", make([]int64, partitions)...)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range each {
			for p := range partitions {
				log.produce(p, fmt.Sprint("k", i%4), 50)
			}
		}
	})
	for n := range 24 {
		var filter stream.Filter
		if n%3 == 0 {
			filter.Keys = []string{fmt.Sprint("k", n%4)}
		}
		wg.Go(func() {
			if err := readAllWithCuts(t.Context(), h, rand.New(rand.NewPCG(uint64(n), 1)), origin, filter, partitions, each); err != nil {
				t.Errorf("subscriber %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	if err := h.archive.check(); err != nil {
		t.Error(err)
	}
}

func readAllWithCuts(ctx context.Context, h *Hubs, rng *rand.Rand, from stream.Position, filter stream.Filter, partitions, each int) error {
	next := make([]int64, partitions)
	for at := from; ; {
		format := rng.IntN(len(simFormats))
		s, err := h.Subscribe(ctx, Request{Topics: []string{"t"}, Filter: filter, From: From{Position: &at}, Format: format})
		if err != nil {
			return err
		}
		for range 1 + rng.IntN(30) {
			var b Batch
			if err := s.Poll(&b); err != nil {
				return err
			}
			frames := b.Run.Frames
			if len(frames) > 0 && rng.IntN(3) == 0 {
				written := rng.IntN(len(frames) + 1)
				rest, _ := s.Unread(b.Run, written)
				frames = slices.Concat(frames[:written], rest)
			}
			if simFormats[format] == (simBlocks{}) {
				if frames, _, err = unpack(frames); err != nil {
					return err
				}
			}
			run, err := itemsOf(frames)
			if err != nil {
				return err
			}
			items := slices.Concat(b.Items, run)
			for _, it := range items {
				p := it.Message.Partition
				if skipped := it.Message.Offset - next[p]; skipped < 0 || skipped > 0 && filter.All() || skipped > 3 {
					return fmt.Errorf("partition %d: offset %d, after %d", p, it.Message.Offset, next[p])
				}
				next[p] = it.Message.Offset + 1
				if at, err = stream.ParsePosition(it.ID); err != nil {
					return err
				}
			}
			if len(items) > 0 {
				continue
			}
			if id, moved := s.Progress(); moved {
				at, _ = stream.ParsePosition(id)
			}
			select {
			case <-s.waker.(Bell):
			case <-time.After(10 * time.Millisecond): // nothing more may come
			}
		}
		s.Close()
		done := true
		for p := range next {
			end, _ := at.Offset("t", p)
			done = done && end == int64(each)
		}
		if done {
			return nil
		}
	}
}

func TestMemoryStaysWithinItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		log := newMemLog(4)
		h := startHubs(t, Config{Memory: limit, HistoryBytes: 32 << 10, Formats: []Format{simFormat{}, simFormat{}, simFormat{}}}, log)
		var slow []*Subscription
		for i := range 200 { // who never take anything, with as many filters
			s := subscribe(t, h, Request{Filter: stream.Filter{Keys: []string{fmt.Sprint("k", i), "k"}}, Format: i % 3, Waker: wakeFunc(func() {})})
			slow = append(slow, s)
		}
		var b Batch
		for i := range 3000 {
			log.produce(i%4, "k", 1000)
			synctest.Wait()
			s := slow[i%len(slow)]
			if i%7 == 0 {
				if err := s.Poll(&b); err != nil {
					t.Fatal(err)
				}
			}
			if used := h.memory.used.Load(); used > limit {
				t.Fatalf("%d bytes are held, %d are allowed", used, limit)
			}
		}
		if !h.Reserve(limit / 2) {
			t.Fatal("windows don't yield to what clients need")
		}
		if used := h.memory.used.Load(); used > limit {
			t.Errorf("%d bytes are held, %d are allowed", used, limit)
		}
		if h.Reserve(limit) {
			t.Error("more was given than there is")
		}
		h.Release(limit / 2)
	})
}

// recreated is a History of a topic that was created again, which its reader hasn't heard of.
type recreated struct{ memHistory }

func (h recreated) Offsets(ctx context.Context, topic string, at stream.At) (stream.TopicPosition, error) {
	p, err := h.memHistory.Offsets(ctx, topic, at)
	p.Incarnation[0]++
	return p, err
}

func TestWhoWaitsForATopicsNewIncarnationIsLetGoAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1)
		h := New(Config{}, log, recreated{memHistory{log}})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = h.Run(ctx) }()
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		_, err := h.Subscribe(t.Context(), Request{Topics: []string{"t"}, From: From{At: stream.Earliest}})
		wantKind(t, err, stream.Unavailable)
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("it took %v, want 1 s", waited)
		}
	})
}
