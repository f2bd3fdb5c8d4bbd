package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/fanout"
)

// BenchmarkEncode is what a message costs once for all clients of a format.
func BenchmarkEncode(b *testing.B) {
	m := typed("order.placed.v1", `{"eventId":"01890a5d","data":"`+strings.Repeat("x", 200)+`"}`)
	for _, f := range Formats() {
		b.Run(fmt.Sprintf("%T%+v", f, f), func(b *testing.B) {
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				dst = f.AppendMessage(dst[:0], m, "AQAAAAATb3JkZXJzLm9yZGVyLnBsYWNlZAMGAAIDdRrAuQ")
			}
			b.SetBytes(int64(len(dst)))
		})
	}
}

// endless is a subscription that always has the same batch.
type endless struct {
	fakeSub
	items []fanout.Item
}

func (s *endless) Poll(b *fanout.Batch) error {
	b.Items = append(b.Items[:0], s.items...)
	return nil
}

type noSink struct{}

func (noSink) write([]byte) error { return nil }

// BenchmarkPass is what the gateway adds to a delivery: a poll, a copy into the write, its accounts.
func BenchmarkPass(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		for id, f := range map[string]frames{"": sse{}, "a": webSocketFrames{id: "a"}} {
			b.Run(fmt.Sprintf("messages=%d/id=%s", n, id), func(b *testing.B) {
				g := newGateway(Config{}, newFakeHubs(), &fakeTopics{}, openAccess(b))
				c := g.newLoop("sse", f, noSink{})
				feed := &feed{id: id, frames: f}
				feed.count([]string{"orders"}, "sse", g.metrics)
				sub := &endless{}
				for i := range n {
					sub.items = append(sub.items, sharedItem(Formats()[f.format()], strings.Repeat("x", 256), i))
				}
				feed.sub = sub
				c.feeds = append(c.feeds, feed)
				b.ReportAllocs()
				for b.Loop() {
					feed.pending.Store(true)
					if _, err := c.pass(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
			})
		}
	}
}
