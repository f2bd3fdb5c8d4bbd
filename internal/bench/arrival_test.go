package bench

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkArrival is what a client costs beside the kernel, for each event of a read that has many.
func BenchmarkArrival(b *testing.B) {
	for _, how := range []framing{plain, chunked, frames} {
		b.Run(fmt.Sprint("framing ", how), func(b *testing.B) {
			const events = 300
			var text []byte
			var messages [][]byte
			for i := range uint32(events) {
				value := eventValue(b, Mark{testRun, i % 3, i / 3, 1_800_000_000_000_000_000 + int64(i/10)*1_000_000}, 256)
				text = append(append(append(text, "data: "...), value...), "\nid: AQAAAAAPb3JkZXJzLm9yZGVyLnBsYWNlZAMAAAAAAAAAAAAAAAA\n\n"...)
				messages = append(messages, append([]byte(`{"type":"event","topic":"orders.order.placed","event":`), value...))
			}
			switch how {
			case chunked:
				text = chunks(text, 4096)
			case frames:
				text = nil
				for _, m := range messages {
					f := serverFrames(m) // between a ping and a pong
					text = append(text, f[6:len(f)-2]...)
				}
			}
			c := &connection{scan: scanner{run: textOf(testRun)}, expect: sequences{next: make([]uint32, 3)}}
			a := &arrival{
				tally: newTally(testRun), c: c, now: 1_800_000_000_100_000_000, after: int32(afterMark(256)),
				periods: [periods]period{{0, endless}}, reply: func(*connection, []byte) {},
			}
			b.ReportAllocs()
			for b.Loop() {
				clear(c.expect.next)
				c.unwrap = unwrapper{framing: how}
				c.unwrap.unwrap(text, a)
			}
			b.ReportMetric(float64(b.Elapsed())/float64(time.Nanosecond)/float64(b.N)/events, "ns/event")
			if a.Exactness != (Exactness{}) || a.received == 0 {
				b.Errorf("%+v", a.Exactness)
			}
		})
	}
}
