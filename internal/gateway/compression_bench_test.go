package gateway

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/klauspost/compress/zstd"
)

// BenchmarkCompression is what a batch costs once for all clients of a format, and what it then sends to each:
// docs/decisions/0011-compression.md has the table. zstd is there to compare with.
func BenchmarkCompression(b *testing.B) {
	formats := []struct {
		name   string
		encode func(dst []byte, batch []orderEvent) []byte
	}{
		{"sse/plain", func(dst []byte, batch []orderEvent) []byte { return appendAll(dst, sse{}, batch) }},
		{"sse/gzip", packed(gzipped{sse{}})},
		{"sse/zstd", packed(newZstd(b))},
		{"ws/plain", func(dst []byte, batch []orderEvent) []byte { return appendAll(dst, webSocketFrames{}, batch) }},
		{"ws/deflate", func(dst []byte, batch []orderEvent) []byte {
			return appendAll(dst, webSocketFrames{deflate: leastShared}, batch)
		}},
	}
	for _, size := range []int{256, 2048} {
		for _, n := range []int{1, 10, 50} {
			batches := make([][]orderEvent, 40)
			rng := rand.New(rand.NewPCG(1, 2))
			for i := range batches {
				batches[i] = orders(rng, n, size)
			}
			for _, f := range formats {
				b.Run(fmt.Sprintf("%d-bytes/%d-a-batch/%s", size, n, f.name), func(b *testing.B) {
					var dst []byte
					sent, i := 0, 0
					for _, batch := range batches {
						sent += len(f.encode(nil, batch))
					}
					before := cpuTime(b)
					for b.Loop() {
						dst = f.encode(dst[:0], batches[i%len(batches)])
						i++
					}
					b.ReportMetric(float64(sent)/float64(len(batches)*n), "B/event")
					b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/1000/float64(b.N*n), "CPU-µs/event")
				})
			}
		}
	}
}

// cpuTime is what the process has taken of CPU.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// orderEvent is an event as a shop would write it, and the position behind it in a topic of 12 partitions.
type orderEvent struct {
	msg stream.Message
	id  string
}

func orders(rng *rand.Rand, n, size int) (batch []orderEvent) {
	next := make([]int64, 12)
	for i := range next {
		next[i] = 100_000 + rng.Int64N(3000)
	}
	for range n {
		next[rng.IntN(len(next))]++
		position := stream.TopicPosition{Topic: topic, Incarnation: stream.Incarnation{1, 2, 3, 4}, Next: next}
		batch = append(batch, orderEvent{stream.Message{Topic: topic, Value: order(rng, size)}, position.Part()})
	}
	return batch
}

// order returns an envelope of about size bytes: mostly numbers and ids where it is small, mostly text where it is large.
func order(rng *rand.Rand, size int) []byte {
	word := func() string { return orderWords[rng.IntN(len(orderWords))] }
	b := fmt.Appendf(nil, `{"eventId":"0190%04x-%04x-7%03x-%04x-%012x","eventType":"order.placed.v1","eventVersion":1,"timestamp":"2026-11-23T21:%02d:%02d.%03dZ","source":"order-service","data":{"orderId":%d,"total":%d.%02d`,
		rng.IntN(1<<16), rng.IntN(1<<16), rng.IntN(1<<12), rng.IntN(1<<16), rng.Int64N(1<<48), rng.IntN(60), rng.IntN(60), rng.IntN(1000), rng.IntN(1<<24), rng.IntN(500), rng.IntN(100))
	if size > 300 {
		b = append(b, `,"items":[`...)
		for len(b) < size-150 {
			b = fmt.Appendf(b, `{"sku":"%c%c-%05d","name":"%s %s %s","quantity":%d,"price":%d.%02d},`, 'A'+rng.IntN(26), 'A'+rng.IntN(26), rng.IntN(100_000), word(), word(), word(), 1+rng.IntN(9), rng.IntN(90), rng.IntN(100))
		}
		b[len(b)-1] = ']'
	}
	b = append(b, `,"note":"`...)
	for len(b) < size-10 {
		b = append(append(b, word()...), ' ')
	}
	return append(b, `"}}`...)
}

var orderWords = strings.Fields("delivered pending warehouse customer standard express priority gift paper invoice credit " +
	"reserved shipped street avenue north south blue green large small cotton steel battery charger adapter notebook pencil " +
	"coffee organic dark roast returned partial refund approved declined")

func appendAll(dst []byte, f fanout.Format, batch []orderEvent) []byte {
	for i := range batch {
		dst = f.AppendMessage(dst, &batch[i].msg, batch[i].id)
	}
	return dst
}

// packed packs batches as a hub does.
func packed(f fanout.BlockFormat) func(dst []byte, batch []orderEvent) []byte {
	var frames []byte
	return func(dst []byte, batch []orderEvent) []byte {
		frames = frames[:0]
		for i := range batch {
			frames = f.AppendMessage(frames, &batch[i].msg, batch[i].id)
			if len(frames) >= 32<<10 || i == len(batch)-1 {
				dst = f.AppendBlock(dst, frames)
				frames = frames[:0]
			}
		}
		return dst
	}
}

// zstdBlocks is what gzipped would be with frames of zstd (RFC 8878).
type zstdBlocks struct {
	sse
	w *zstd.Encoder
}

func newZstd(b *testing.B) zstdBlocks {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(64<<10))
	if err != nil {
		b.Fatal(err)
	}
	return zstdBlocks{w: w}
}

func (z zstdBlocks) AppendBlock(dst, frames []byte) []byte { return z.w.EncodeAll(frames, dst) }
