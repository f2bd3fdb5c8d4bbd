package fanout

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// runHub is a hub with a format, fed by hand.
func runHub(window Window) *Hub {
	hub := New(Config{Formats: []Format{simFormat{}}, Window: func(string) Window { return window }, Gather: ungathered}, nil, nil).use("t")
	hub.append(stream.Batch{Start: &stream.Start{Begin: []int64{0}, Next: []int64{0}}}, time.Now())
	return hub
}

func (h *Hub) join(filter stream.Filter) *Subscription {
	return h.hubs.placed(Request{Filter: filter, Waker: wakeFunc(func() {})}, []*Hub{h}, []*stream.TopicPosition{nil})
}

func pollRun(t *testing.T, s *Subscription) Run {
	t.Helper()
	var b Batch
	if err := s.Poll(&b); err != nil {
		t.Fatal(err)
	}
	if len(b.Items) > 0 {
		t.Fatalf("got items %v", b.Items)
	}
	return b.Run
}

func TestThoseInStepAreGivenTheSameMemory(t *testing.T) {
	h := runHub(Window{Bytes: 1 << 20, Age: time.Hour})
	a, b := h.join(stream.Filter{}), h.join(stream.Filter{})
	h.feed(nil, 0, 10)
	first, second := pollRun(t, a), pollRun(t, b)
	if first.Count != 10 || second.Count != 10 || &first.Frames[0] != &second.Frames[0] {
		t.Fatalf("runs of %d and %d", first.Count, second.Count)
	}
	kept := bytes.Clone(first.Frames)
	h.feed(nil, 10, 500) // the log grows, and moves
	if rest := pollRun(t, a); rest.Count != 490 || !bytes.Equal(kept, first.Frames) {
		t.Errorf("then a run of %d; the first is unchanged: %v", rest.Count, bytes.Equal(kept, first.Frames))
	}
}

// TestUnread cuts a run at every byte: the client has whole frames, and the next Poll goes on behind them.
func TestUnread(t *testing.T) {
	h := runHub(Window{Bytes: 1 << 20, Age: time.Hour})
	reference := h.join(stream.Filter{})
	h.feed(nil, 0, 7)
	all := pollRun(t, reference).Frames
	for written := range len(all) + 1 {
		s := h.attachAt(0)
		run := pollRun(t, s)
		rest, count := s.Unread(run, written)
		got := slices.Concat(run.Frames[:written], rest)
		if n := bytes.Count(got, []byte("\n")); n != count || !bytes.HasPrefix(all, got) || written > 0 && got[len(got)-1] != '\n' {
			t.Fatalf("cut at %d: %d frames said, got %q", written, count, got)
		}
		if count > 0 {
			items, err := itemsOf(got)
			if err != nil || s.Position() != items[count-1].ID {
				t.Fatalf("cut at %d: the position is %s, after %v (%v)", written, s.Position(), items, err)
			}
		}
		if got = append(got, pollRun(t, s).Frames...); !bytes.Equal(got, all) {
			t.Fatalf("cut at %d: got %q", written, got)
		}
		s.Close()
	}
}

// attachAt subscribes at an offset within the window.
func (h *Hub) attachAt(offset int64) *Subscription {
	start := &stream.TopicPosition{Topic: "t", Next: []int64{offset}}
	return h.hubs.placed(Request{Waker: wakeFunc(func() {})}, []*Hub{h}, []*stream.TopicPosition{start})
}

func TestWhoResumesWithinTheWindowGetsRunsAtOnce(t *testing.T) {
	h := runHub(Window{Bytes: 1 << 20, Age: time.Hour})
	h.feed(nil, 0, 2000)
	s := h.attachAt(1234)
	if run := pollRun(t, s); run.Count == 0 || !bytes.HasPrefix(run.Frames, []byte("t 0 1234 ")) {
		t.Errorf("got %d frames, %.40q", run.Count, run.Frames)
	}
}

func TestARunEndsAtAGap(t *testing.T) {
	h := runHub(Window{Bytes: 1 << 20, Age: time.Hour})
	s := h.join(stream.Filter{})
	h.feed(nil, 0, 3)
	h.feed(&stream.Gap{Topic: "t", To: 10, Reason: stream.GapRetention}, 10, 12)
	var got []string
	for range 5 {
		var b Batch
		if err := s.Poll(&b); err != nil {
			t.Fatal(err)
		}
		if b.Run.Count > 0 {
			got = append(got, fmt.Sprint(b.Run.Count))
		}
		for _, it := range b.Items {
			got = append(got, fmt.Sprintf("%d-%d", it.Gap.From, it.Gap.To))
		}
	}
	if want := []string{"3", "3-10", "2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestASegmentsMemoryComesBack: frames are counted while their segment is in the window, and not longer.
func TestASegmentsMemoryComesBack(t *testing.T) {
	h := runHub(Window{Bytes: 20_000, Age: time.Hour})
	s, filtered := h.join(stream.Filter{}), h.join(stream.Filter{Keys: []string{"k"}})
	var b Batch
	for i := range int64(3000) {
		h.feed(nil, i, i+1)
		if i%7 == 0 {
			_ = pollRun(t, s)
			if err := filtered.Poll(&b); err != nil || i > 0 && b.Items[0].Frame == nil {
				t.Fatalf("%v: items %v", err, b.Items)
			}
		}
		if held := h.hubs.memory.used.Load(); held != h.bytes.Load() || held > 24_000 {
			t.Fatalf("after %d: %d bytes are held, %d in the window", i, held, h.bytes.Load())
		}
	}
	if n := len(h.window.segments); n < 3 || n > 40 {
		t.Errorf("the window has %d segments", n)
	}
	h.fail(errEnded)
	if held := h.hubs.memory.used.Load(); held != 0 {
		t.Errorf("%d bytes are held at the end", held)
	}
}

// TestABatchHasOneRun: what is appended during a Poll comes with the next.
func TestABatchHasOneRun(t *testing.T) {
	const messages = 20_000
	h := runHub(Window{Bytes: 64 << 20, Age: time.Hour})
	var readers sync.WaitGroup
	for range 4 {
		s := h.join(stream.Filter{})
		readers.Go(func() {
			var b Batch
			for got := 0; got < messages; got += b.Run.Count {
				if err := s.Poll(&b); err != nil {
					t.Error(err)
				}
				items, err := itemsOf(b.Run.Frames)
				if err != nil || len(items) > 0 && items[0].Message.Offset != int64(got) {
					t.Errorf("offset %d comes after %d (%v)", items[0].Message.Offset, got, err)
					return
				}
			}
		})
	}
	for i := range int64(messages) {
		h.feed(nil, i, i+1)
	}
	readers.Wait()
}
