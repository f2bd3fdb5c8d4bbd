package fanout

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// gatheringHub is a hub fed by hand that gathers for 10 ms.
func gatheringHub() *Hub {
	hub := New(Config{}, nil, nil).use("t")
	hub.append(stream.Batch{Start: &stream.Start{Begin: []int64{0}, Next: []int64{0}}}, time.Now())
	return hub
}

func TestGather(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		events []time.Duration // when each comes
		wakes  []time.Duration // when the subscriber is woken
	}{
		"the first is never delayed":              {[]time.Duration{0}, []time.Duration{0}},
		"nor what follows a silence":              {[]time.Duration{0, 10 * ms, 30 * ms}, []time.Duration{0, 10 * ms, 30 * ms}},
		"the second waits for the rest":           {[]time.Duration{0, 1 * ms, 2 * ms, 9 * ms}, []time.Duration{0, 10 * ms}},
		"and what comes after that waits as long": {[]time.Duration{0, 1 * ms, 11 * ms, 12 * ms}, []time.Duration{0, 10 * ms, 20 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub, begun := gatheringHub(), time.Now()
				var mu sync.Mutex // of wakes: some come from a timer
				var wakes []time.Duration
				s := hub.hubs.placed(Request{Format: -1, Waker: wakeFunc(func() {
					mu.Lock()
					defer mu.Unlock()
					wakes = append(wakes, time.Since(begun))
				})}, []*Hub{hub}, []*stream.TopicPosition{nil})
				defer s.Close()
				for i, at := range tt.events {
					time.Sleep(at - time.Since(begun)) // the bubble's clock
					hub.feed(nil, int64(i), int64(i)+1)
				}
				time.Sleep(time.Second)
				mu.Lock()
				defer mu.Unlock()
				if len(wakes) != len(tt.wakes) {
					t.Fatalf("woken at %v, want %v", wakes, tt.wakes)
				}
				for i := range wakes {
					if wakes[i] != tt.wakes[i] {
						t.Errorf("woken at %v, want %v", wakes, tt.wakes)
					}
				}
				if offsets, _ := drain(t, s); len(offsets) != len(tt.events) {
					t.Errorf("got %v", offsets)
				}
			})
		})
	}
}

// TestGatherOfSeveralFilters: who waits shorter isn't kept by who waits longer.
func TestGatherOfSeveralFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, begun := gatheringHub(), time.Now()
		var mu sync.Mutex // of woken: some come from a timer
		woken := map[string][]time.Duration{}
		for _, key := range []string{"a", "b"} {
			s := hub.hubs.placed(Request{
				Format: -1, Filter: stream.Filter{Keys: []string{key}}, Waker: wakeFunc(func() {
					mu.Lock()
					defer mu.Unlock()
					woken[key] = append(woken[key], time.Since(begun))
				}),
			}, []*Hub{hub}, []*stream.TopicPosition{nil})
			defer s.Close()
		}
		next := int64(0)
		feed := func(key string) {
			m := stream.Message{Topic: "t", Offset: next, Key: []byte(key), Value: []byte("v")}
			next++
			hub.append(stream.Batch{Parts: []stream.PartBatch{{Messages: []stream.Message{m}, Next: next}}}, time.Now())
		}
		feed("a") // at 0
		time.Sleep(5 * time.Millisecond)
		feed("b") // at 5 ms
		time.Sleep(time.Millisecond)
		feed("b") // at 6 ms: to be told at 15 ms
		time.Sleep(time.Millisecond)
		feed("a") // at 7 ms: to be told at 10 ms
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if a, b := woken["a"], woken["b"]; len(a) != 2 || a[1] != 10*time.Millisecond || len(b) != 2 || b[1] != 15*time.Millisecond {
			t.Errorf("woken at %v", woken)
		}
	})
}

func TestSubscriptionsThatCloseWhileTheyGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := gatheringHub()
		var wakes atomic.Int64
		join := func() *Subscription {
			return hub.hubs.placed(Request{Format: -1, Waker: wakeFunc(func() { wakes.Add(1) })}, []*Hub{hub}, []*stream.TopicPosition{nil})
		}
		s := join()
		hub.feed(nil, 0, 1)
		hub.feed(nil, 1, 2)
		s.Close()
		again := join()
		defer again.Close()
		hub.feed(nil, 2, 3)
		time.Sleep(time.Second)
		if offsets, _ := drain(t, again); wakes.Load() != 2 || len(offsets) != 1 {
			t.Errorf("woken %d times, got %v", wakes.Load(), offsets)
		}
	})
}

// TestGatherCountsFromTheLast of many to take something: a pass over all of them takes a while, and who is written to last
// is to have as much with the next one. No event waits for longer than Gather.
func TestGatherCountsFromTheLast(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		took, second, want time.Duration // when the last took the first event, the second came, and was told
	}{
		"a pass of 7 ms":                   {7 * ms, 10 * ms, 17 * ms},
		"one that still goes on":           {12 * ms, 11 * ms, 11 * ms}, // whoever comes late in it gets both at once
		"one that ended long before":       {7 * ms, 30 * ms, 30 * ms},
		"no pass, as if woken and no more": {0, 4 * ms, 10 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub, begun := gatheringHub(), time.Now()
				var mu sync.Mutex // of woken: some come from a timer
				var woken time.Duration
				s := hub.hubs.placed(Request{Format: -1, Waker: wakeFunc(func() {
					mu.Lock()
					defer mu.Unlock()
					woken = time.Since(begun)
				})}, []*Hub{hub}, []*stream.TopicPosition{nil})
				defer s.Close()
				hub.feed(nil, 0, 1)
				steps := []struct {
					at time.Duration
					do func()
				}{{tt.took, func() { drain(t, s) }}, {tt.second, func() { hub.feed(nil, 1, 2) }}}
				if tt.second < tt.took {
					steps[0], steps[1] = steps[1], steps[0]
				}
				for _, step := range steps {
					time.Sleep(step.at - time.Since(begun)) // the bubble's clock
					step.do()
				}
				time.Sleep(time.Second)
				mu.Lock()
				defer mu.Unlock()
				if woken != tt.want {
					t.Errorf("woken at %v, want %v", woken, tt.want)
				}
			})
		})
	}
}

// TestWhatIsTakenElsewhereGathersNothingHere: who has two topics takes of one, and the other stays as it was.
func TestWhatIsTakenElsewhereGathersNothingHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hubs := New(Config{}, nil, nil)
		busy, quiet := hubs.use("busy"), hubs.use("quiet")
		for _, hub := range []*Hub{busy, quiet} {
			hub.append(stream.Batch{Start: &stream.Start{Begin: []int64{0}, Next: []int64{0}}}, time.Now())
		}
		both := hubs.placed(Request{Format: -1, Waker: wakeFunc(func() {})}, []*Hub{busy, quiet}, make([]*stream.TopicPosition, 2))
		defer both.Close()
		woken := false
		alone := hubs.placed(Request{Format: -1, Waker: wakeFunc(func() { woken = true })}, []*Hub{quiet}, []*stream.TopicPosition{nil})
		defer alone.Close()
		time.Sleep(time.Second)
		for i := range int64(10) {
			m := stream.Message{Topic: "busy", Offset: i}
			busy.append(stream.Batch{Parts: []stream.PartBatch{{Messages: []stream.Message{m}, Next: i + 1}}}, time.Now())
			drain(t, both)
		}
		if quiet.feed(nil, 0, 1); !woken {
			t.Error("the first event of a quiet topic waits")
		}
	})
}

// TestWhoIsSampled: the last of those in step is always one of them, also when others leave.
func TestWhoIsSampled(t *testing.T) {
	hub := gatheringHub()
	var subs []*Subscription
	for range 40 {
		subs = append(subs, hub.hubs.placed(Request{Format: -1, Waker: wakeFunc(func() {})}, []*Hub{hub}, []*stream.TopicPosition{nil}))
	}
	for len(subs) > 0 {
		ch := subs[0].only.ch
		var sampled []int32
		for i := range ch.inStep {
			if c := ch.inStep[i].cursor; c.listed != int32(i) {
				t.Fatalf("the cursor in place %d takes itself for that in %d", i, c.listed)
			} else if ch.samples(c) {
				sampled = append(sampled, c.listed)
			}
		}
		if last := sampled[len(sampled)-1]; int(last) != len(subs)-1 || len(sampled) > 2+len(subs)/16 {
			t.Errorf("of %d are sampled %v", len(subs), sampled)
		}
		i := len(subs) / 2
		subs[i].Close()
		subs = append(subs[:i], subs[i+1:]...)
	}
}
