package fanout

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// nextRead returns the next read of history to be made, of a hub fed by hand.
func (h *Hub) nextRead(t *testing.T) *read {
	t.Helper()
	r := h.hubs.archive.next()
	if r == nil {
		t.Fatal("nobody waits for history")
	}
	return r
}

// brings answers a read with messages of some offsets.
func (r *read) brings(from, to int64) {
	r.finish([]stream.PartBatch{{Messages: messagesOf(from, to), Next: to}}, 0, nil)
}

func messagesOf(from, to int64) (messages []stream.Message) {
	for o := from; o < to; o++ {
		messages = append(messages, stream.Message{Topic: "t", Offset: o, Key: []byte("k"), Value: []byte("v")})
	}
	return messages
}

// waiting subscribes at each offset and polls, so that all of them wait for history.
func (h *Hub) waiting(t *testing.T, offsets ...int64) (subs []*Subscription) {
	t.Helper()
	for _, o := range offsets {
		s := h.begin(o, new(int))
		if got, _ := drain(t, s); len(got) > 0 {
			t.Fatalf("%v came by itself", got)
		}
		subs = append(subs, s)
	}
	return subs
}

func wantRange(t *testing.T, r *read, from, to int64) {
	t.Helper()
	if want := []stream.Range{{From: from, To: to}}; !slices.Equal(r.req.Ranges, want) {
		t.Errorf("a read of %+v, want %+v", r.req.Ranges, want)
	}
}

// wantAll fails the test unless each subscription goes on at its offset, up to the hub's end.
func wantAll(t *testing.T, subs []*Subscription, from []int64, end int64) {
	t.Helper()
	for i, s := range subs {
		if got, gaps := drain(t, s); int64(len(got)) != end-from[i] || len(gaps) > 0 || got[0] != from[i] {
			t.Errorf("from %d: %d messages and %d gaps, want all up to %d", from[i], len(got), len(gaps), end)
		}
	}
}

func TestThoseCloseToEachOtherShareARead(t *testing.T) {
	h, at := handFed(1000), []int64{500, 400, 450}
	subs := h.waiting(t, at...)
	r := h.nextRead(t)
	wantRange(t, r, 400, 1000)
	subs = append(subs, h.waiting(t, 600, 300)...) // while it is under way
	lower := h.nextRead(t)
	wantRange(t, lower, 300, 400)
	if another := h.hubs.archive.next(); another != nil {
		t.Errorf("there is another read: %+v", another.req)
	}
	r.brings(400, 1000)
	lower.brings(300, 400)
	wantAll(t, subs, append(at, 600, 300), 1000)
	wantAll(t, []*Subscription{h.begin(350, new(int))}, []int64{350}, 1000) // of what is there already
	if err := h.hubs.archive.check(); err != nil {
		t.Error(err)
	}
}

func TestARunFromFarBehindDoesNotHoldUpThoseAhead(t *testing.T) {
	h := handFed(100_000)
	h.waiting(t, 90_000)
	far := h.waiting(t, 0)
	wantRange(t, h.nextRead(t), 90_000, 100_000)
	wantRange(t, h.nextRead(t), 0, 90_000)
	_ = far
}

func TestWhoWasNotReachedIsNext(t *testing.T) {
	h, at := handFed(1000), []int64{500, 300}
	subs := h.waiting(t, at...)
	r := h.nextRead(t)
	wantRange(t, r, 300, 1000)
	subs = append(subs, h.waiting(t, 200)...)
	r.brings(300, 320) // less than was expected
	wantRange(t, h.nextRead(t), 500, 1000)
	wantRange(t, h.nextRead(t), 200, 300)
	_ = subs
}

func TestPositionsBeyondTheEndAreLookedForTogether(t *testing.T) {
	h := handFed(10)
	subs := h.waiting(t, 50, 12, 20)
	r := h.nextRead(t)
	wantRange(t, r, 50, 50)
	late := h.waiting(t, 60) // its position may have come to be since
	r.finish([]stream.PartBatch{{Gap: &stream.Gap{Topic: "t", From: 50, To: 15, Reason: stream.GapTruncated}, Next: 15}}, 0, nil)
	var told []int64
	for _, s := range append(subs, late...) {
		if _, gaps := drain(t, s); len(gaps) == 1 {
			told = append(told, gaps[0].From)
		}
	}
	if want := []int64{50, 20}; !slices.Equal(told, want) {
		t.Errorf("those at %v were told of a truncation, want %v", told, want)
	}
	wantRange(t, h.nextRead(t), 60, 60)
}

// TestWhoWaitsForAHubThatIsBehindDoubtsNowAndThen, however busy other partitions keep it: what it waits for may have been
// truncated meanwhile, and its hub can't tell.
func TestWhoWaitsForAHubThatIsBehindDoubtsNowAndThen(t *testing.T) {
	h := New(Config{Linger: time.Hour}, nil, nil)
	now := time.Now()
	h.now = func() time.Time { return now }
	hub := h.use("t")
	hub.append(stream.Batch{Start: &stream.Start{Begin: []int64{0, 0}, Next: []int64{5, 0}}}, now)
	at := stream.TopicPosition{Topic: "t", Next: []int64{9, 0}}
	s := h.placed(Request{Format: -1, Waker: wakeFunc(func() {})}, []*Hub{hub}, []*stream.TopicPosition{&at})
	defer s.Close()
	if got, gaps := drain(t, s); len(got)+len(gaps) > 0 {
		t.Fatalf("%v and %v came by themselves", got, gaps)
	}
	r := hub.nextRead(t)
	wantRange(t, r, 9, 9)
	r.finish([]stream.PartBatch{{Next: 9}}, 0, nil) // it exists

	asked := time.Duration(0)
	for second := range int64(30) {
		m := stream.Message{Topic: "t", Partition: 1, Offset: second}
		hub.append(stream.Batch{Parts: []stream.PartBatch{{Partition: 1, Messages: []stream.Message{m}, Next: second + 1}}}, now)
		if got, _ := drain(t, s); len(got) != 1 || got[0] != second {
			t.Fatalf("got %v, want the other partition's %d", got, second)
		}
		now = now.Add(time.Second)
		h.tidy()
		drain(t, s) // which asks, if it doubts
		if r := h.archive.next(); r != nil {
			asked = time.Duration(second+1) * time.Second
			r.finish([]stream.PartBatch{{Gap: &stream.Gap{Topic: "t", From: 9, To: 7, Reason: stream.GapTruncated}, Next: 7}}, 0, nil)
			break
		}
	}
	if _, gaps := drain(t, s); asked == 0 || len(gaps) != 1 || gaps[0].From != 9 || gaps[0].To != 7 {
		t.Errorf("after %v it asked, and was told %v", asked, gaps)
	}
}

func TestWhatWasReadBeforeATruncationServesNobodyAfterIt(t *testing.T) {
	h := handFed(100)
	before := h.waiting(t, 50)
	h.nextRead(t).brings(50, 100)
	wantAll(t, before, []int64{50}, 100)
	h.waiting(t, 10)
	underWay := h.nextRead(t)
	wantRange(t, underWay, 10, 50)
	h.feed(&stream.Gap{Topic: "t", From: 100, To: 80, Reason: stream.GapTruncated}, 80, 90)
	underWay.brings(10, 50)
	if n, bytes, waiting := h.hubs.archive.size(); n != 0 || bytes != 0 || waiting != 0 {
		t.Errorf("%d stretches of %d bytes are left, and %d wait", n, bytes, waiting)
	}
	h.waiting(t, 50)
	wantRange(t, h.nextRead(t), 50, 80)
}

func TestAGapIsEveryonesFromWhereHeStands(t *testing.T) {
	h, at := handFed(100), []int64{10, 20, 40}
	subs := h.waiting(t, at...)
	gap := &stream.Gap{Topic: "t", From: 10, To: 30, Reason: stream.GapRetention}
	h.nextRead(t).finish([]stream.PartBatch{{Gap: gap, Messages: messagesOf(30, 100), Next: 100}}, 0, nil)
	for i, s := range subs {
		_, gaps := drain(t, s)
		if lost := at[i] < 30; lost != (len(gaps) == 1) || lost && (gaps[0].From != at[i] || gaps[0].To != 30) {
			t.Errorf("who was at %d was told of %+v", at[i], gaps)
		}
	}
}

func TestAClosedSubscriptionLeavesTheLine(t *testing.T) {
	h := handFed(100)
	for i, s := range h.waiting(t, 10, 20, 30) {
		if s.Close(); i == 0 {
			h.waiting(t, 40)
		}
	}
	wantRange(t, h.nextRead(t), 40, 100)
	if _, _, waiting := h.hubs.archive.size(); waiting != 1 {
		t.Errorf("%d wait", waiting)
	}
}

func TestAMessageLargerThanMemoryIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1)
		log.produce(0, "k", 10)
		log.produce(0, "k", 2<<20)
		log.produce(0, "k", 10)
		h := startHubs(t, Config{Memory: 1 << 20, HistoryBytes: 16 << 10}, log)
		s := subscribe(t, h, Request{Format: -1, From: From{At: stream.Earliest}})
		wantKind(t, wantOffsets(t, s, 0, 3), stream.TooLarge)
		if p, _ := stream.ParsePosition(s.Position()); p.Topics()[0].Next[0] != 1 {
			t.Errorf("it ends at %v; the message before was delivered", p.Topics())
		}
		at := stream.NewPosition(stream.Incarnation{1}, "t", 2)
		if err := wantOffsets(t, subscribe(t, h, Request{Format: -1, From: From{Position: &at}}), 2, 3); err != nil {
			t.Errorf("who is behind it: %v", err)
		}
	})
}

// stuckHistory is a History of a Kafka that doesn't answer.
type stuckHistory struct{ memHistory }

func (stuckHistory) Read(ctx context.Context, _ stream.HistoryRequest) ([]stream.PartBatch, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestWhoWaitsForHistoryHoldsUpNobodyWhoIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1)
		log.produce(0, "k", 10)
		h := startHubs(t, Config{HistoryReads: 1}, log)
		h.history = stuckHistory{memHistory{log}}
		for range 1000 {
			s := subscribe(t, h, Request{Format: -1, From: From{At: stream.Earliest}})
			if err := s.Poll(new(Batch)); err != nil {
				t.Fatal(err)
			}
		}
		live := subscribe(t, h, Request{Format: -1})
		began := time.Now()
		log.produce(0, "k", 10)
		if err := wantOffsets(t, live, 1, 2); err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestAFilterThatMatchesNothingYieldsToOthers(t *testing.T) {
	h := handFed(100_000)
	at := stream.TopicPosition{Topic: "t", Next: []int64{0}}
	s := h.hubs.placed(Request{Filter: stream.Filter{Keys: []string{"none"}}, Format: -1, Waker: wakeFunc(func() {})}, []*Hub{h}, []*stream.TopicPosition{&at})
	defer s.Close()
	var b Batch
	if err := s.Poll(&b); err != nil {
		t.Fatal(err)
	}
	h.nextRead(t).brings(0, 100_000)
	if err := s.Poll(&b); err != nil {
		t.Fatal(err)
	}
	if next := s.cursors[0].own.Next[0]; !b.More || len(b.Items) > 0 || next == 0 || next > 10_000 {
		t.Errorf("one Poll went to %d, with more: %v", next, b.More)
	}
}

func TestHistoryThatNobodyTakesIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHubs(t, Config{}, longLog(1, 100))
		s := subscribe(t, h, Request{Format: -1, From: From{At: stream.Earliest}})
		if err := wantOffsets(t, s, 0, 100); err != nil {
			t.Fatal(err)
		}
		if n, _, _ := h.archive.size(); n != 1 {
			t.Errorf("%d stretches are kept for others", n)
		}
		time.Sleep(historyIdle + 2*time.Second) // of the test's own clock
		if n, bytes, _ := h.archive.size(); n != 0 || bytes != 0 {
			t.Errorf("%d stretches of %d bytes are left", n, bytes)
		}
	})
}

// TestWhoWasHereBeforeIsInStepAtOnce holds a storm within the window to what makes it cheap: a client whose position
// the hub gave out needs no ids and frames of its own.
func TestWhoWasHereBeforeIsInStepAtOnce(t *testing.T) {
	const messages = 300
	log := newMemLog(3)
	hubs := startHubs(t, Config{Formats: []Format{simFormat{}}, Gather: ungathered}, log)
	witness := subscribe(t, hubs, Request{Format: -1})
	var ids []string
	for i := range messages {
		log.produce(i%3, "k", 100)
		var b Batch
		if err := witness.Next(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, b.Items[0].ID)
	}
	var b Batch
	for i, id := range ids[:messages-1] {
		p, err := stream.ParsePosition(id)
		if err != nil {
			t.Fatal(err)
		}
		s := subscribe(t, hubs, Request{From: From{Position: &p}})
		got := 0
		for {
			if err := s.Poll(&b); err != nil {
				t.Fatal(err)
			}
			if got += b.Run.Count; len(b.Items) > 0 {
				t.Fatalf("resumed behind message %d: %d messages came with ids of their own", i, len(b.Items))
			}
			if !b.More {
				break
			}
		}
		if want := messages - 1 - i; got != want {
			t.Fatalf("resumed behind message %d: %d messages, want %d", i, got, want)
		}
	}
	if n := counted(hubs.metrics.historyReads); n != 0 {
		t.Errorf("%d reads of history", n)
	}
}

func TestThoseAtOneSpotShareFrames(t *testing.T) {
	h := New(Config{Formats: []Format{simFormat{}}}, nil, nil)
	hub := h.use("t")
	hub.append(stream.Batch{Start: &stream.Start{Begin: []int64{0}, Next: []int64{100}}}, time.Now())
	var batches [3]Batch
	var subs [3]*Subscription
	for i := range subs {
		at := stream.TopicPosition{Topic: "t", Next: []int64{50}}
		subs[i] = h.placed(Request{Waker: wakeFunc(func() {})}, []*Hub{hub}, []*stream.TopicPosition{&at})
		if err := subs[i].Poll(&batches[i]); err != nil {
			t.Fatal(err)
		}
	}
	hub.nextRead(t).brings(50, 100)
	for i, s := range subs {
		if err := s.Poll(&batches[i]); err != nil {
			t.Fatal(err)
		}
	}
	if len(batches[0].Items) != 50 || batches[0].Run.Count != 0 {
		t.Errorf("the first got %d messages, and %d in a run", len(batches[0].Items), batches[0].Run.Count)
	}
	one, other := batches[1].Run, batches[2].Run
	if one.Count != 50 || other.Count != 50 || &one.Frames[0] != &other.Frames[0] {
		t.Errorf("the others got %d and %d messages; frames are made once", one.Count, other.Count)
	}
	if rest, count := subs[1].Unread(one, 0); len(rest) > 0 || count != 0 || subs[1].Position() != one.from.id {
		t.Errorf("who took nothing has %d messages, %q to come, and stands at %s", count, rest, subs[1].Position())
	}
	if err := subs[1].Poll(&batches[1]); err != nil || batches[1].Run.Count != 50 {
		t.Errorf("then it got %d messages, %v", batches[1].Run.Count, err)
	}
	if err := h.archive.check(); err != nil {
		t.Error(err)
	}
	h.archive.giveUp(0, func() bool { return false })
	if used := h.memory.used.Load(); used != 0 {
		t.Errorf("%d bytes are counted as held by nobody", used)
	}
}

// TestAFilterThatMatchesNothingInTheWindowYieldsToOthers is the same for clients that come back within the window: one
// that is in step there, and one that has walked it on its own, since it has the last message already.
func TestAFilterThatMatchesNothingInTheWindowYieldsToOthers(t *testing.T) {
	const messages = 50_000
	h := handFed(0)
	h.feed(nil, 0, messages)
	last := stream.Message{Topic: "t", Partition: 1, Value: []byte("v")}
	h.append(stream.Batch{Parts: []stream.PartBatch{{Partition: 1, Messages: []stream.Message{last}, Next: 1}}}, time.Now())
	for name, next := range map[string][]int64{"in step": {0, 0}, "on its own": {0, 1}} {
		s := h.hubs.placed(Request{Filter: stream.Filter{Keys: []string{"none"}}, Format: -1, Waker: wakeFunc(func() {})},
			[]*Hub{h}, []*stream.TopicPosition{{Topic: "t", Next: next}})
		defer s.Close()
		polls := 0
		for b := (Batch{More: true}); b.More; polls++ {
			if err := s.Poll(&b); err != nil || len(b.Items) > 0 {
				t.Fatalf("%s: %v, %d messages", name, err, len(b.Items))
			}
		}
		if at := s.cursors[0].seq; polls < 5 || polls > 100 || at != h.window.end() {
			t.Errorf("%s: %d Polls went to %d of %d", name, polls, at, h.window.end())
		}
	}
}
