package fanout

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// blockHub is a hub with a format of blocks, fed by hand.
func blockHub(window Window) *Hub {
	cfg := Config{Formats: []Format{simBlocks{}}, Window: func(string) Window { return window }, Gather: ungathered}
	hub := New(cfg, nil, nil).use("t")
	hub.append(stream.Batch{Start: &stream.Start{Begin: []int64{0}, Next: []int64{0}}}, time.Now())
	return hub
}

// pollAll polls until there is nothing, and returns what came in the format and how many messages that was.
func pollAll(t *testing.T, s *Subscription) (blocks []byte, count int) {
	t.Helper()
	for {
		var b Batch
		if err := s.Poll(&b); err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b.Run.Frames...)
		for _, it := range b.Items {
			blocks = append(blocks, it.Frame...)
		}
		count += b.Run.Count + len(b.Items)
		if !b.More {
			return blocks, count
		}
	}
}

// wantBlocks checks that blocks hold the messages of the offsets from first to, not including, end.
func wantBlocks(t *testing.T, blocks []byte, n int, first, end int64) {
	t.Helper()
	frames, got, err := unpack(blocks)
	if err != nil {
		t.Fatal(err)
	}
	items, err := itemsOf(frames)
	if err != nil {
		t.Fatal(err)
	}
	if got != n || int64(len(items)) != end-first {
		t.Fatalf("got %d messages in %d blocks, want %d in %d", len(items), got, end-first, n)
	}
	for i, it := range items {
		if it.Message.Offset != first+int64(i) {
			t.Fatalf("offset %d came at %d", it.Message.Offset, i)
		}
	}
}

func TestWhatCameSinceIsOneBlockForAll(t *testing.T) {
	h := blockHub(Window{Bytes: 1 << 20, Age: time.Hour})
	a, b := h.join(stream.Filter{}), h.join(stream.Filter{})
	h.feed(nil, 0, 10)
	first, second := pollRun(t, a), pollRun(t, b)
	if first.Count != 10 || &first.Frames[0] != &second.Frames[0] {
		t.Fatalf("runs of %d and %d", first.Count, second.Count)
	}
	wantBlocks(t, first.Frames, 1, 0, 10)
	h.feed(nil, 10, 13)
	_ = pollRun(t, a)
	h.feed(nil, 13, 14)
	both := pollRun(t, b)
	wantBlocks(t, both.Frames, 2, 10, 14)
	if last := pollRun(t, a); &last.Frames[len(last.Frames)-1] != &both.Frames[len(both.Frames)-1] {
		t.Error("the last block isn't shared")
	}
}

func TestWhoJoinsInsideABlockIsGivenItsRestAlone(t *testing.T) {
	h := blockHub(Window{Bytes: 1 << 20, Age: time.Hour})
	a := h.join(stream.Filter{})
	h.feed(nil, 0, 10)
	_ = pollRun(t, a)
	h.feed(nil, 10, 20)
	s, other := h.attachAt(6), h.attachAt(6)
	got, _ := pollAll(t, s)
	wantBlocks(t, got, 4+1, 6, 20)
	if alone := h.frame(7, 0); !bytes.Contains(got, alone) || &alone[0] != &h.frame(7, 0)[0] {
		t.Error("what stands alone isn't shared")
	}
	got, _ = pollAll(t, other)
	wantBlocks(t, got, 4+1, 6, 20)
}

// TestUnreadOfBlocks cuts a run at every byte: the client has whole blocks, and the next Poll goes on behind them.
func TestUnreadOfBlocks(t *testing.T) {
	h := blockHub(Window{Bytes: 1 << 20, Age: time.Hour})
	reference := h.join(stream.Filter{})
	for i := range int64(5) {
		h.feed(nil, 3*i, 3*i+3)
		_ = pollRun(t, reference)
	}
	all := pollRun(t, h.attachAt(0)).Frames
	wantBlocks(t, all, 5, 0, 15)
	for written := range len(all) + 1 {
		s := h.attachAt(0)
		run := pollRun(t, s)
		rest, count := s.Unread(run, written)
		got := slices.Concat(run.Frames[:written], rest)
		wantBlocks(t, got, (count+2)/3, 0, int64(count))
		if written > 0 {
			frames, _, _ := unpack(got)
			items, _ := itemsOf(frames)
			if s.Position() != items[count-1].ID {
				t.Fatalf("cut at %d: the position is %s", written, s.Position())
			}
		}
		next, more := pollAll(t, s)
		if count+more != 15 || !bytes.Equal(append(got, next...), all) {
			t.Fatalf("cut at %d: %d messages, then %d", written, count, more)
		}
		s.Close()
	}
}

func TestABlockIsFullAtItsBound(t *testing.T) {
	h := blockHub(Window{Bytes: 1 << 20, Age: time.Hour})
	h.hubs.limits.block = 200
	h.feed(nil, 0, 100)
	frames, n, err := unpack(pollRun(t, h.attachAt(0)).Frames)
	if err != nil || n < len(frames)/300 || n > len(frames)/200+1 {
		t.Errorf("%d bytes of frames are %d blocks (%v)", len(frames), n, err)
	}
}

// TestBlocksMemoryComesBack: blocks are counted while their segment is in the window, and not longer; also one that is
// asked for when a part of its segment has left.
func TestBlocksMemoryComesBack(t *testing.T) {
	h := blockHub(Window{Bytes: 20_000, Age: time.Hour})
	s := h.join(stream.Filter{})
	for i := range int64(3000) {
		h.feed(nil, i, i+1)
		if i%50 == 0 {
			late := h.attachAt(h.window.entries[0].next - 1)
			got, _ := pollAll(t, late)
			frames, _, err := unpack(got)
			if items, _ := itemsOf(frames); err != nil || len(items) != len(h.window.entries) {
				t.Fatalf("after %d: %d messages of %d (%v)", i, len(items), len(h.window.entries), err)
			}
			late.Close()
		}
		if i%7 == 0 {
			_, _ = pollAll(t, s)
		}
		if held := h.hubs.memory.used.Load(); held != h.bytes.Load() || held > 26_000 {
			t.Fatalf("after %d: %d bytes are held, %d in the window", i, held, h.bytes.Load())
		}
	}
	h.fail(errEnded)
	if held := h.hubs.memory.used.Load(); held != 0 {
		t.Errorf("%d bytes are held at the end", held)
	}
}

// BenchmarkFanoutOfBlocks is the cost of handing blocks to subscribers, without the write and without compression.
func BenchmarkFanoutOfBlocks(b *testing.B) {
	for _, messages := range []int{1, 10} {
		b.Run(fmt.Sprintf("%d-a-batch", messages), func(b *testing.B) {
			bh := hubWith(b, 1000, everything)
			bh.hub.hubs.cfg.Formats[0] = simBlocks{}
			b.ReportAllocs()
			for b.Loop() {
				bh.append(messages, 1)
				bh.receiveAll(b)
			}
			if want := 1000 * messages * b.N; bh.got != want {
				b.Fatalf("%d deliveries, want %d", bh.got, want)
			}
			b.ReportMetric(float64(bh.got)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}
