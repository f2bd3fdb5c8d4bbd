package fanout

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// benchHub is a hub with n subscribers in step, fed by hand.
type benchHub struct {
	hub     *Hub
	subs    []*Subscription
	woken   []*Subscription
	next    int64
	batch   Batch
	got     int
	written int64
}

func hubWith(b *testing.B, n int, filter func(i int) stream.Filter) *benchHub {
	h := New(Config{Formats: []Format{simFormat{}}, Window: func(string) Window { return Window{Bytes: 1 << 20} }, Gather: ungathered}, nil, nil)
	hub := h.use("t")
	hub.append(stream.Batch{Start: &stream.Start{Begin: []int64{0}, Next: []int64{0}}}, time.Now())
	bh := &benchHub{hub: hub}
	for i := range n {
		var s *Subscription
		s = h.placed(Request{Filter: filter(i), Waker: wakeFunc(func() { bh.woken = append(bh.woken, s) })}, []*Hub{hub}, []*stream.TopicPosition{nil})
		bh.subs = append(bh.subs, s)
	}
	bh.woken = bh.woken[:0]
	return bh
}

func ungathered(string) time.Duration { return 0 }

func (bh *benchHub) append(messages, keys int) {
	part := stream.PartBatch{Next: bh.next + int64(messages)}
	for range messages {
		part.Messages = append(part.Messages, stream.Message{Topic: "t", Offset: bh.next, Key: fmt.Append(nil, bh.next%int64(keys)), Value: make([]byte, 256)})
		bh.next++
	}
	bh.hub.append(stream.Batch{Parts: []stream.PartBatch{part}}, time.Now())
}

// receiveAll polls those who were woken, as a writer does.
func (bh *benchHub) receiveAll(b *testing.B) {
	for _, s := range bh.woken {
		if err := s.Poll(&bh.batch); err != nil {
			b.Fatal(err)
		}
		bh.got += len(bh.batch.Items) + bh.batch.Run.Count
		bh.written += int64(len(bh.batch.Run.Frames))
		for i := range bh.batch.Items {
			bh.written += int64(len(bh.batch.Items[i].Frame))
		}
	}
	bh.woken = bh.woken[:0]
}

func everything(int) stream.Filter { return stream.Filter{} }

func ownKey(i int) stream.Filter { return stream.Filter{Keys: []string{fmt.Sprint(i)}} }

// BenchmarkFanout is the cost of handing messages to subscribers, without the write: deliveries a second of one core.
func BenchmarkFanout(b *testing.B) {
	for _, tt := range []struct{ subscribers, messages int }{{1000, 1}, {10_000, 1}, {1000, 10}} {
		b.Run(fmt.Sprintf("%d-subscribers/%d-a-batch", tt.subscribers, tt.messages), func(b *testing.B) {
			bh := hubWith(b, tt.subscribers, everything)
			b.ReportAllocs()
			for b.Loop() {
				bh.append(tt.messages, 1)
				bh.receiveAll(b)
			}
			if want := tt.subscribers * tt.messages * b.N; bh.got != want {
				b.Fatalf("%d deliveries, want %d", bh.got, want)
			}
			b.ReportMetric(float64(bh.got)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}

// BenchmarkOwnKey is the cost of a message that one of many subscribers wants.
func BenchmarkOwnKey(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("%d-subscribers", n), func(b *testing.B) {
			before := liveBytes()
			bh := hubWith(b, n, ownKey)
			each := float64(liveBytes()-before) / float64(n)
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				bh.append(1, n)
				bh.receiveAll(b)
			}
			if bh.got != b.N {
				b.Fatalf("%d deliveries, want %d", bh.got, b.N)
			}
			b.ReportMetric(each, "B/subscription")
		})
	}
}

// liveBytes is what the heap holds.
func liveBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestDeliveryAllocatesNothing holds the steady state to what the benchmark shows: an entry costs what it costs, once,
// and handing it to a thousand subscribers costs nothing more.
func TestDeliveryAllocatesNothing(t *testing.T) {
	allocs := map[int]float64{}
	for _, n := range []int{1, 1000} {
		bh := hubWith(nil, n, everything)
		bh.append(10, 1)
		bh.receiveAll(nil)
		allocs[n] = testing.AllocsPerRun(50, func() {
			bh.append(1, 1)
			bh.receiveAll(nil)
		})
	}
	if each := (allocs[1000] - allocs[1]) / 999; each > 0.01 {
		t.Errorf("%.2f allocations a delivery", each)
	}
}
