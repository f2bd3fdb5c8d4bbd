package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// own is the bound of who may read one key alone.
func own(key string) []Bound { return []Bound{{Filter: stream.Filter{Keys: []string{key}}}} }

// keysOf reads until nothing comes, and returns the keys and gaps.
func keysOf(t *testing.T, s *Subscription) (keys []string, gaps []stream.Gap) {
	t.Helper()
	var b Batch
	for {
		synctest.Wait()
		if err := s.Poll(&b); err != nil {
			t.Fatal(err)
		}
		for _, it := range b.Items {
			if it.Gap != nil {
				gaps = append(gaps, *it.Gap)
			} else {
				keys = append(keys, string(it.Message.Key))
			}
		}
		if b.Run.Count > 0 {
			t.Fatal("who has a filter gets a run of the log")
		}
		if !b.More && len(b.Items) == 0 && s.atRest() {
			return keys, gaps
		}
	}
}

// atRest reports whether nothing is under way for the subscription.
func (s *Subscription) atRest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.cursors, func(c *cursor) bool { return !c.synced })
}

func TestABoundHoldsOnEveryPath(t *testing.T) {
	for name, window := range map[string]int64{"window": 1 << 20, "history": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newMemLog(2)
				h := startHubs(t, Config{Window: func(string) Window { return Window{Bytes: window} }, Formats: []Format{simFormat{}}}, log)
				first := subscribe(t, h, Request{Bounds: own("a")})
				position := first.Position()
				for i, key := range []string{"a", "b", "a", "c"} {
					log.produce(i%2, key, 10)
				}
				want := []string{"a", "a"}
				if keys, _ := keysOf(t, first); !slices.Equal(keys, want) {
					t.Errorf("live: %q", keys)
				}
				at, err := stream.ParsePosition(position)
				if err != nil {
					t.Fatal(err)
				}
				for how, from := range map[string]From{"resumed": {Position: &at}, "earliest": {At: stream.Earliest}} {
					if keys, _ := keysOf(t, subscribe(t, h, Request{Bounds: own("a"), From: from})); !slices.Equal(keys, want) {
						t.Errorf("%s: %q", how, keys)
					}
					asked := Request{Bounds: own("a"), From: from, Filter: stream.Filter{Keys: []string{"b", "a"}}}
					if keys, _ := keysOf(t, subscribe(t, h, asked)); !slices.Equal(keys, want) {
						t.Errorf("%s, who asks for more: %q", how, keys)
					}
					asked.Filter.Keys = []string{"b"}
					if keys, _ := keysOf(t, subscribe(t, h, asked)); len(keys) > 0 {
						t.Errorf("%s, who asks for another's: %q", how, keys)
					}
				}
			})
		})
	}
}

// TestHistoryEndsAtItsBound tries what a client can make up to get at what is older.
func TestHistoryEndsAtItsBound(t *testing.T) {
	for name, window := range map[string]int64{"window": 1 << 20, "history": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newMemLog(2)
				h := startHubs(t, Config{Window: func(string) Window { return Window{Bytes: window} }, Formats: []Format{simFormat{}}}, log)
				keep := subscribe(t, h, Request{Format: -1})
				for i := range 4 {
					log.produce(i%2, "old", 10)
				}
				time.Sleep(time.Hour)
				log.produce(0, "new", 10)
				log.produce(1, "new", 10)
				synctest.Wait()
				defer keep.Close()
				since := time.Now().Add(-time.Minute)
				bound := []Bound{{Since: since}}
				forbidden := []stream.Gap{
					{Topic: "t", Partition: 0, From: 0, To: 2, Reason: stream.GapForbidden},
					{Topic: "t", Partition: 1, From: 0, To: 2, Reason: stream.GapForbidden},
				}
				at := func(id byte, next ...int64) From {
					p := stream.NewPosition(stream.Incarnation{id}, "t", next...)
					return From{Position: &p}
				}
				for how, tt := range map[string]struct {
					from From
					gaps []stream.Gap
				}{
					"earliest":                  {From{At: stream.Earliest}, nil},
					"a time":                    {From{At: stream.AtTime(time.Now().Add(-2 * time.Hour))}, nil},
					"an old position":           {at(1, 0, 0), forbidden},
					"a position without a part": {at(1, 2), forbidden[1:]},
					"a position of nothing":     {at(1), forbidden},
				} {
					keys, gaps := keysOf(t, subscribe(t, h, Request{Bounds: bound, Format: -1, From: tt.from}))
					slices.SortFunc(gaps, func(a, b stream.Gap) int { return int(a.Partition - b.Partition) })
					if !slices.Equal(keys, []string{"new", "new"}) || !slices.Equal(gaps, tt.gaps) {
						t.Errorf("%s: %q, %+v", how, keys, gaps)
					}
				}
				keys, gaps := keysOf(t, subscribe(t, h, Request{Bounds: bound, Format: -1, From: at(9, 7, 7)}))
				if !slices.Equal(keys, []string{"new", "new"}) || len(gaps) != 4 {
					t.Errorf("a position of another incarnation: %q, %+v", keys, gaps)
				}
			})
		})
	}
}

// TestAPositionOfNothingIsRaisedInParts: anybody can make one up, and each gap comes with a position as long.
func TestAPositionOfNothingIsRaisedInParts(t *testing.T) {
	const partitions = 1000
	h := New(Config{}, nil, nil)
	hub := h.use("t")
	ends := slices.Repeat([]int64{5}, partitions)
	hub.append(stream.Batch{Start: &stream.Start{Begin: make([]int64, partitions), Next: ends}}, time.Now())
	s, err := h.newSubscription(&Request{Format: -1, Waker: wakeFunc(func() {})}, []*Hub{hub}, []place{{
		start: &stream.TopicPosition{Topic: "t"}, floor: &stream.TopicPosition{Topic: "t", Next: slices.Clone(ends)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	told := 0
	for b := (Batch{More: true}); b.More; {
		if err := s.Poll(&b); err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, it := range b.Items {
			size += len(it.ID)
			told++
		}
		if size > 128<<10 {
			t.Fatalf("one Poll yielded %d bytes of positions", size)
		}
	}
	if told != partitions {
		t.Errorf("told of %d partitions", told)
	}
}

// counting is a predicate that counts how often it is asked.
type counting struct {
	name  string
	asked *int
}

func (c counting) Match(m *stream.Message) bool { *c.asked++; return m.Offset%2 == 0 }
func (c counting) String() string               { return c.name }

func TestAPredicateIsAskedOnceAMessage(t *testing.T) {
	h := handFed(0)
	asked := 0
	var subs []*Subscription
	for i := range 50 {
		f := stream.Filter{Where: []stream.Predicate{counting{"p", &asked}}}
		if i%2 == 0 {
			f.Keys = []string{"k", fmt.Sprint(i)} // as many filters as subscriptions
		}
		subs = append(subs, h.hubs.placed(Request{Filter: f, Format: -1, Waker: wakeFunc(func() {})}, []*Hub{h}, []*stream.TopicPosition{nil}))
	}
	h.feed(nil, 0, 10)
	if asked != 10 {
		t.Errorf("asked %d times for 10 messages", asked)
	}
	for _, s := range subs {
		if offsets, _ := drain(t, s); !slices.Equal(offsets, []int64{0, 2, 4, 6, 8}) {
			t.Fatalf("got %d", offsets)
		}
		s.Close()
	}
	if cs := h.channels; len(cs.all)+len(cs.byKey)+len(cs.byType)+len(cs.scans)+len(cs.predicates) > 0 {
		t.Errorf("after all have gone: %+v", cs)
	}
}

// TestAPredicateHoldsNobodyUp: each Poll asks it a few times only, on whichever way its messages come.
func TestAPredicateHoldsNobodyUp(t *testing.T) {
	h := handFed(0)
	asked := 0
	place := func(at *stream.TopicPosition) *Subscription {
		f := stream.Filter{Where: []stream.Predicate{counting{"p", &asked}}}
		return h.hubs.placed(Request{Filter: f, Format: -1, Waker: wakeFunc(func() {})}, []*Hub{h}, []*stream.TopicPosition{at})
	}
	const messages = 4000
	live := place(nil)
	defer live.Close()
	h.feed(nil, 0, messages)
	behind := place(&stream.TopicPosition{Topic: "t", Next: []int64{0}})
	defer behind.Close()
	for name, s := range map[string]*Subscription{"in step, more than is remembered": live, "on its own": behind} {
		got := 0
		for b := (Batch{More: true}); b.More; {
			asked = 0
			if err := s.Poll(&b); err != nil {
				t.Fatal(err)
			}
			if got += len(b.Items); asked > 100 {
				t.Fatalf("%s: one Poll asked %d times", name, asked)
			}
		}
		if got != messages/2 {
			t.Errorf("%s: got %d messages", name, got)
		}
	}
}

func TestAMessageFoundTwiceComesOnce(t *testing.T) {
	h := handFed(0)
	f := stream.Or(stream.Filter{Keys: []string{"k"}}, stream.Filter{Types: []string{"x"}})
	s := h.hubs.placed(Request{Filter: f, Format: -1, Waker: wakeFunc(func() {})}, []*Hub{h}, []*stream.TopicPosition{nil})
	defer s.Close()
	typed := []stream.Header{{Name: "event-type", Value: []byte("x")}}
	h.append(stream.Batch{Parts: []stream.PartBatch{{Next: 4, Messages: []stream.Message{
		{Topic: "t", Offset: 0, Key: []byte("k"), Headers: typed}, {Topic: "t", Offset: 1, Headers: typed},
		{Topic: "t", Offset: 2, Key: []byte("k")}, {Topic: "t", Offset: 3, Key: []byte("l")},
	}}}}, time.Now())
	if offsets, _ := drain(t, s); !slices.Equal(offsets, []int64{0, 1, 2}) {
		t.Errorf("got %d", offsets)
	}
}

func TestFiltersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1)
		h := startHubs(t, Config{Filters: 3, Scans: 1, Formats: []Format{simFormat{}}}, log)
		try := func(f stream.Filter) error {
			s, err := h.Subscribe(t.Context(), Request{Topics: []string{"t"}, Filter: f, From: From{At: stream.Latest}})
			if err == nil {
				t.Cleanup(s.Close)
			}
			return err
		}
		asked := 0
		scan := func(name string) stream.Filter {
			return stream.Filter{Where: []stream.Predicate{counting{name, &asked}}}
		}
		for i, tt := range []struct {
			f    stream.Filter
			want error
		}{
			{stream.Filter{}, nil}, {scan("a"), nil}, {scan("a"), nil}, {scan("b"), ErrScans}, {stream.Filter{Keys: []string{"k"}}, nil},
			{stream.Filter{Keys: []string{"l"}}, nil}, {stream.Filter{Keys: []string{"m"}}, ErrFilters}, {stream.Filter{Keys: []string{"k"}}, nil},
			{stream.Filter{}, nil},
		} {
			err := try(tt.f)
			if !errors.Is(err, tt.want) || err != nil && tt.want == nil {
				t.Errorf("%d: %v, want %v", i, err, tt.want)
			}
			if e, ok := errors.AsType[*stream.Error](err); err != nil && (!ok || e.Kind != stream.Overloaded || !strings.Contains(e.Detail, "topic t has all")) {
				t.Errorf("%d: %v", i, err)
			}
		}
		hub := h.list()[0]
		if hub.users != 7 || len(hub.channels.all) != 4 {
			t.Errorf("%d users, %d filters: something was left behind", hub.users, len(hub.channels.all))
		}
	})
}

func TestReplaysOfAnOwnerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(1)
		log.produce(0, "k", 10)
		h := startHubs(t, Config{ReplaysPerOwner: 2, Formats: []Format{simFormat{}}}, log)
		try := func(owner string, from stream.At) (*Subscription, error) {
			s, err := h.Subscribe(t.Context(), Request{Topics: []string{"t"}, Owner: owner, From: From{At: from}})
			if err == nil {
				t.Cleanup(s.Close)
			}
			return s, err
		}
		must := func(owner string, from stream.At) *Subscription {
			s, err := try(owner, from)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		one := must("ann", stream.Earliest)
		two := must("ann", stream.Earliest)
		if _, err := try("ann", stream.Earliest); !errors.Is(err, ErrReplays) {
			t.Errorf("a third: %v", err)
		}
		must("ann", stream.Latest)
		must("bob", stream.Earliest)
		for range 3 {
			must("", stream.Earliest)
		}
		one.Close()
		one.Close()
		must("ann", stream.Earliest)
		if _, err := try("ann", stream.Earliest); !errors.Is(err, ErrReplays) {
			t.Errorf("after one has gone, a second more: %v", err)
		}
		keysOfAll(t, two)
		must("ann", stream.Earliest)
	})
}

// memLogs are topics in memory: a Source and a History.
type memLogs map[string]*memLog

func (l memLogs) Read(ctx context.Context, topic string, emit func(stream.Batch)) error {
	return l[topic].Read(ctx, topic, emit)
}

func (l memLogs) Offsets(ctx context.Context, topic string, at stream.At) (stream.TopicPosition, error) {
	return l[topic].Offsets(ctx, topic, at)
}

// memHistories is memLogs' History: Read has another shape there.
type memHistories struct{ memLogs }

func (h memHistories) Read(_ context.Context, req stream.HistoryRequest) ([]stream.PartBatch, error) {
	return h.memLogs[req.Topic].readHistory(req), nil
}

func TestEachTopicHasItsOwnBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := memLogs{}
		for _, name := range []string{"a", "b", "c"} {
			logs[name] = newMemLog(1)
			logs[name].topic = name
		}
		h := runHubs(t, New(Config{}, logs, memHistories{logs}))
		produce := func(keys ...string) {
			for name, log := range logs {
				for _, key := range keys {
					log.produce(0, name+key, 10)
				}
			}
		}
		produce("1", "2")
		time.Sleep(time.Hour)
		produce("1", "2")
		s := subscribe(t, h, Request{Topics: []string{"c", "a", "b"}, Format: -1, From: From{At: stream.Earliest}, Bounds: []Bound{
			{Filter: stream.Filter{Keys: []string{"c2"}}, Since: time.Now().Add(-time.Minute)},
			{Filter: stream.Filter{Keys: []string{"a1"}}},
			{Since: time.Now().Add(-time.Minute)},
		}})
		produce("2", "1")
		keys, gaps := keysOf(t, s)
		slices.Sort(keys)
		if want := []string{"a1", "a1", "a1", "b1", "b1", "b2", "b2", "c2", "c2"}; !slices.Equal(keys, want) || len(gaps) > 0 {
			t.Errorf("got %q, %v, want %q", keys, gaps, want)
		}
	})
}

// TestAReplayEndsTopicByTopic: of many topics one or the other may always be behind for a moment.
func TestAReplayEndsTopicByTopic(t *testing.T) {
	h := New(Config{ReplaysPerOwner: 1, Window: func(topic string) Window {
		return Window{Bytes: map[string]int64{"quick": 1, "slow": 1 << 20}[topic]}
	}}, nil, nil)
	h.limits.poll = 1
	quick, slow := h.use("quick"), h.use("slow")
	for _, hub := range []*Hub{quick, slow} {
		hub.append(stream.Batch{Start: &stream.Start{Begin: []int64{0}, Next: []int64{0}}}, time.Now())
	}
	slow.feed(nil, 0, 3)
	slow.append(stream.Batch{Parts: []stream.PartBatch{{Partition: 1, Next: 1, Messages: []stream.Message{{Partition: 1}}}}}, time.Now())
	s := h.placed(Request{Owner: "ann", Format: -1, Waker: wakeFunc(func() {})}, []*Hub{quick, slow}, []*stream.TopicPosition{
		{Topic: "quick", Next: []int64{0}}, {Topic: "slow", Next: []int64{0, 1}}, // it has the last one, and so is on its own up to there
	})
	defer s.Close()
	var b Batch
	poll := func() {
		t.Helper()
		if err := s.Poll(&b); err != nil {
			t.Fatal(err)
		}
	}
	poll()
	if s.cursors[1].synced || h.owners.under["ann"] != 1 {
		t.Errorf("%d replays with a topic that is behind", h.owners.under["ann"])
	}
	quick.feed(nil, 0, 1) // the window holds nothing: it has to be read from history
	for !s.cursors[1].synced {
		poll()
	}
	if s.cursors[0].synced || h.owners.under["ann"] != 0 {
		t.Errorf("%d replays when each topic has been in step", h.owners.under["ann"])
	}
}

// keysOfAll reads until the subscription has come up with its topic.
func keysOfAll(t *testing.T, s *Subscription) {
	t.Helper()
	var b Batch
	for !s.atRest() {
		synctest.Wait()
		if err := s.Poll(&b); err != nil {
			t.Fatal(err)
		}
	}
}
