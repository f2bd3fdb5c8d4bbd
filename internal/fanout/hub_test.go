package fanout

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// handFed returns a hub of one partition that stands at an offset and is fed by hand.
func handFed(next int64) *Hub {
	h := New(Config{}, nil, nil)
	hub := h.use("t")
	hub.append(stream.Batch{Start: &stream.Start{Begin: []int64{0}, Next: []int64{next}}}, time.Now())
	return hub
}

// feed appends messages of some offsets, after a gap if there is one.
func (h *Hub) feed(gap *stream.Gap, from, to int64) {
	part := stream.PartBatch{Gap: gap, Next: to}
	for o := from; o < to; o++ {
		part.Messages = append(part.Messages, stream.Message{Topic: "t", Offset: o, Key: []byte("k"), Value: []byte("v")})
	}
	h.append(stream.Batch{Parts: []stream.PartBatch{part}}, time.Now())
}

// begin subscribes at an offset, or at the hub's end when it is negative, and counts wake-ups.
func (h *Hub) begin(at int64, wakes *int) *Subscription {
	var start *stream.TopicPosition
	if at >= 0 {
		start = &stream.TopicPosition{Topic: "t", Next: []int64{at}}
	}
	return h.hubs.placed(Request{Format: -1, Waker: wakeFunc(func() { *wakes++ })}, []*Hub{h}, []*stream.TopicPosition{start})
}

// wakeFunc is a function that is a Waker.
type wakeFunc func()

func (f wakeFunc) Wake() { f() }

// drain polls until there is nothing, and returns the offsets of messages and the gaps.
func drain(t *testing.T, s *Subscription) (offsets []int64, gaps []stream.Gap) {
	t.Helper()
	var b Batch
	for range 10 {
		if err := s.Poll(&b); err != nil {
			t.Fatal(err)
		}
		for _, it := range b.Items {
			if it.Gap != nil {
				gaps = append(gaps, *it.Gap)
			} else {
				offsets = append(offsets, it.Message.Offset)
			}
		}
	}
	return offsets, gaps
}

func TestMessagesThatFollowATruncationInTheSamePart(t *testing.T) {
	h, wakes := handFed(10), 0
	s := h.begin(-1, &wakes)
	h.feed(&stream.Gap{Topic: "t", From: 10, To: 5, Reason: stream.GapTruncated}, 5, 8)
	offsets, gaps := drain(t, s)
	if len(offsets) != 3 || offsets[0] != 5 || len(gaps) != 1 || gaps[0].To != 5 || h.window.next[0] != 8 {
		t.Errorf("got messages %v and gaps %v; the hub stands at %v", offsets, gaps, h.window.next)
	}
}

func TestATruncationIsToldThoughMemoryRunsShort(t *testing.T) {
	h, wakes := handFed(10), 0
	s := h.begin(50, &wakes) // beyond the hub's end: Kafka is asked whether it is beyond its own
	drain(t, s)
	h.hubs.archive.next().finish([]stream.PartBatch{{Gap: &stream.Gap{Topic: "t", From: 50, To: 10, Reason: stream.GapTruncated}, Next: 10}}, 0, nil)
	h.hubs.archive.giveUp(0, func() bool { return false })
	h.feed(nil, 10, 13)
	if offsets, gaps := drain(t, s); len(gaps) != 1 || gaps[0].From != 50 || len(offsets) != 3 {
		t.Errorf("got messages %v and gaps %v", offsets, gaps)
	}
}

func TestWhoWaitsForHistoryIsNotWokenByWhatIsAppended(t *testing.T) {
	h, wakes := handFed(1000), 0
	s := h.begin(0, &wakes)
	drain(t, s)
	wakes = 0
	h.feed(nil, 1000, 1010)
	if wakes != 0 {
		t.Errorf("it was woken %d times", wakes)
	}
	h.hubs.archive.next().finish([]stream.PartBatch{{Next: 1000}}, 0, nil)
	if offsets, _ := drain(t, s); wakes == 0 || len(offsets) != 10 {
		t.Errorf("woken %d times by the answer, then got %v", wakes, offsets)
	}
}

// failing is a History whose reads fail at once.
type failing struct{ memHistory }

func (failing) Read(context.Context, stream.HistoryRequest) ([]stream.PartBatch, error) {
	return nil, errors.New("no")
}

func TestReadsOfHistoryThatFailHoldNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1)
		log.produce(0, "k", 10)
		h := startHubs(t, Config{HistoryReads: 1}, log)
		h.history = failing{memHistory{log}}
		s := subscribe(t, h, Request{Format: -1, From: From{At: stream.Earliest}})
		var b Batch
		if err := s.Poll(&b); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the read has failed, and waits to be made again
		if used := h.memory.used.Load(); used != 0 {
			t.Errorf("%d bytes are held", used)
		}
		time.Sleep(time.Second) // of the test's own clock
		if _, err := h.Stats(), s.Poll(&b); err != nil {
			t.Error(err)
		}
	})
}

func TestHistoryLeavesWindowsTheirMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, read = 1 << 20, 32 << 10
		log := newMemLog(1)
		for range 500 {
			log.produce(0, "k", 1000)
		}
		h := startHubs(t, Config{Memory: limit, HistoryBytes: read, HistoryReads: 1}, log)
		subscribe(t, h, Request{Format: -1})
		for range 400 {
			log.produce(0, "k", 1000)
		}
		synctest.Wait()
		kept := h.Stats()[0].Messages
		for i := range 100 { // who ask for history, here and there, and then don't take it
			at := stream.NewPosition(stream.Incarnation{1}, "t", int64(5*i))
			s := subscribe(t, h, Request{Format: -1, From: From{Position: &at}})
			if err := s.Poll(new(Batch)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if _, held, _ := h.archive.size(); held == 0 || held > limit/4 {
			t.Errorf("%d bytes of history are held", held)
		}
		if got := h.Stats()[0].Messages; got < kept {
			t.Errorf("the window has %d messages left of %d", got, kept)
		}
	})
}

func TestATopicThatIsGoneIsNotFoundThoughItsHubIsWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1)
		h := startHubs(t, Config{}, log)
		subscribe(t, h, Request{Format: -1})
		hub := h.list()[0]
		h.history = forgotten{memHistory{log}}
		hub.append(stream.Batch{Gone: true}, time.Now())
		_, err := h.Subscribe(t.Context(), Request{Topics: []string{"t"}, From: From{At: stream.Latest}})
		wantKind(t, err, stream.NotFound)
		hub.append(stream.Batch{}, time.Now()) // a broker that lagged
		subscribe(t, h, Request{Format: -1})
	})
}

// forgotten is a History of a topic that was deleted.
type forgotten struct{ memHistory }

func (forgotten) Offsets(_ context.Context, topic string, _ stream.At) (stream.TopicPosition, error) {
	return stream.TopicPosition{}, stream.Errorf(stream.NotFound, "there is no topic %s", topic)
}

func TestAnEventsTypeIsReadOnce(t *testing.T) {
	h := handFed(0)
	types := func(s string) stream.Filter { return stream.Filter{Types: []string{s}} }
	h.append(stream.Batch{Parts: []stream.PartBatch{{Messages: []stream.Message{{Topic: "t", Value: []byte(`{"eventType":"x"}`)}}, Next: 1}}}, time.Now())
	e := h.window.at(0)
	if !e.matches(types("x")) || e.matches(types("y")) {
		t.Error("the type isn't x")
	}
	e.msg.Value = nil // where it was read from
	if !e.matches(types("x")) {
		t.Error("it was read again")
	}
}

// TestAPositionOfManyPartitionsIsToldOfItsGapsInParts: anybody can make a position up, and each gap comes with a
// position as long.
func TestAPositionOfManyPartitionsIsToldOfItsGapsInParts(t *testing.T) {
	const partitions = 5000
	h := handFed(10)
	at := stream.TopicPosition{Topic: "t", Incarnation: stream.Incarnation{9}, Next: slices.Repeat([]int64{5}, partitions)}
	s := h.hubs.placed(Request{Format: -1, Waker: wakeFunc(func() {})}, []*Hub{h}, []*stream.TopicPosition{&at})
	defer s.Close()
	h.append(stream.Batch{Start: &stream.Start{Incarnation: stream.Incarnation{8}, Begin: []int64{0}, Next: []int64{0}}}, time.Now())
	told := 0
	for b := (Batch{More: true}); b.More; {
		if err := s.Poll(&b); err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, it := range b.Items {
			if it.Gap.Partition != int32(told) {
				t.Fatalf("the gap of partition %d came at %d", it.Gap.Partition, told)
			}
			size += len(it.ID)
			told++
		}
		if size > 128<<10 {
			t.Fatalf("one Poll yielded %d bytes of positions", size)
		}
	}
	if want := stream.NewPosition(stream.Incarnation{8}, "t", 0).String(); told != partitions || s.Position() != want {
		t.Errorf("told of %d partitions, it stands at %s", told, s.Position())
	}
}

// placed returns a subscription that stands where start says in each topic, at its hub's end where that is nil.
func (h *Hubs) placed(req Request, hubs []*Hub, start []*stream.TopicPosition) *Subscription {
	places := make([]place, len(hubs))
	for i := range places {
		places[i] = place{rows: req.Filter.Canonical(), start: start[i]}
	}
	s, err := h.newSubscription(&req, hubs, places)
	if err != nil {
		panic(err) // nothing is bounded
	}
	return s
}
