package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/goodgo/streamgw/internal/devbroker"
)

// transport is how a client asks for the stream of the benchmarks' topic, and what it knows an event by.
type transport struct{ name, request, event string }

func transports() []transport {
	return []transport{
		{"sse", "GET /v1/events?topic=a.b HTTP/1.1\r\nHost: bench\r\n\r\n", "\ndata: "},
		{"websocket", "GET /v1/ws?topic=a.b HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: streamgw.v1\r\n\r\n", `"type":"event"`},
	}
}

// BenchmarkDelivery has 200 clients get events ten at a time, and the next ten once all have these. What it counts is the
// whole gateway's, reading Kafka and all: system calls that write, allocations, and fetches from the broker.
func BenchmarkDelivery(b *testing.B) {
	for _, t := range transports() {
		b.Run(t.name, func(b *testing.B) {
			const conns, events = 200, 10
			g := startMeasured(b)
			defer g.stop(b)
			audience := g.open(b, conns, t)
			defer audience.close()
			records := make([]devbroker.Record, events)
			for i := range records {
				records[i] = devbroker.Record{Topic: "a.b", Value: fmt.Appendf(nil, `{"n":%d,"p":"%s"}`, i, strings.Repeat("x", 230))}
			}
			sent := int64(0)
			deliver := func() {
				if _, err := g.broker.Produce(b.Context(), records...); err != nil {
					b.Fatal(err)
				}
				sent += conns * events
				audience.await(b, sent)
			}
			for range 5 { // until buffers have found their size
				deliver()
			}
			before := g.counts(b)
			deliveries := 0.0
			for b.Loop() {
				deliver()
				deliveries += conns * events
			}
			after := g.counts(b)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric((after.writes-before.writes)/deliveries, "writes/delivery")
			b.ReportMetric((after.allocs-before.allocs)/deliveries, "allocs/delivery")
			b.ReportMetric((after.fetches-before.fetches)/float64(b.N), "fetches/op")
		})
	}
}

// BenchmarkIdleConnection is what a connection holds of the gateway's memory that nothing is sent to: live heap. Stacks
// show as goroutines; their bytes are those of the handshakes for a while, as many as happened to be under way at once.
func BenchmarkIdleConnection(b *testing.B) {
	for _, t := range transports() {
		b.Run(t.name, func(b *testing.B) {
			const first, conns = 50, 3000
			g := startMeasured(b)
			defer g.stop(b)
			defer g.open(b, first, t).close() // what the first of them need for all
			var memory, goroutines float64
			for b.Loop() {
				before := g.counts(b)
				audience := g.open(b, conns, t)
				after := g.counts(b)
				audience.close()
				until(b, "they are gone", func() bool {
					return strings.Contains(get(b, g.admin+"/metrics"), fmt.Sprintf("streamgw_connections{transport=%q} %d\n", t.name, first))
				})
				memory, goroutines = memory+after.memory-before.memory, goroutines+after.goroutines-before.goroutines
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(memory/float64(conns*b.N), "bytes/connection")
			b.ReportMetric(math.Round(100*goroutines/float64(conns*b.N))/100, "goroutines/connection")
		})
	}
}

// measured is a gateway in a process of its own, which tells what it has done.
type measured struct {
	process
	public, admin string
	broker        *devbroker.Admin
}

func startMeasured(b *testing.B) *measured {
	b.Helper()
	broker := startBroker(b)
	g := &measured{}
	g.process, g.public, g.admin = startServe(b, broker)
	var err error
	if g.broker, err = broker.Admin(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(g.broker.Close)
	return g
}

// stop ends the gateway. It isn't a cleanup: before those, the benchmark's context ends, and the process with it.
func (g *measured) stop(b *testing.B) {
	b.Helper()
	if err := g.Process.Signal(syscall.SIGTERM); err != nil {
		b.Error(err)
	}
	g.code(b)
}

// audience is clients that read for as long as the benchmark runs.
type audience struct {
	conns   []net.Conn
	reading sync.WaitGroup
	events  atomic.Int64
	want    atomic.Int64
	got     chan struct{} // has something once there are as many events as are wanted
}

// open opens streams and returns once each has begun: its position is there.
func (g *measured) open(b *testing.B, conns int, t transport) *audience {
	b.Helper()
	a := &audience{got: make(chan struct{}, 1)}
	var begun sync.WaitGroup
	begun.Add(conns)
	for range conns {
		c, err := net.Dial("tcp", strings.TrimPrefix(g.public, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		a.conns = append(a.conns, c)
		if _, err := io.WriteString(c, t.request); err != nil {
			b.Fatal(err)
		}
		a.reading.Go(func() { a.read(c, t.event, sync.OnceFunc(begun.Done)) })
	}
	begun.Wait()
	return a
}

// close has the clients go.
func (a *audience) close() {
	for _, c := range a.conns {
		c.Close()
	}
	a.reading.Wait()
}

// read counts the events of one client until its connection ends. begun is to be called when its stream has begun.
func (a *audience) read(c net.Conn, event string, begun func()) {
	defer begun()
	buf := make([]byte, 32<<10)
	kept := 0 // bytes of what may be an event's beginning
	for {
		n, err := c.Read(buf[kept:])
		if err != nil {
			return
		}
		text := buf[:kept+n]
		if bytes.Contains(text, []byte("\nid: ")) || bytes.Contains(text, []byte(`"subscribed"`)) {
			begun()
		}
		if found := int64(bytes.Count(text, []byte(event))); found > 0 && a.events.Add(found) >= a.want.Load() {
			select {
			case a.got <- struct{}{}:
			default:
			}
		}
		kept = copy(buf, text[max(0, len(text)-len(event)+1):])
	}
}

// await waits until so many events have come.
func (a *audience) await(b *testing.B, events int64) {
	b.Helper()
	a.want.Store(events)
	for a.events.Load() < events {
		select {
		case <-a.got:
		case <-b.Context().Done():
			b.Fatal(b.Context().Err())
		}
	}
}

// processCounts are what a gateway has done so far, and holds after a collection.
type processCounts struct {
	writes, allocs, fetches, memory, goroutines float64
}

func (g *measured) counts(b *testing.B) processCounts {
	b.Helper()
	for range 2 { // what the first collection finds to finalize is gone after the second
		resp, err := http.Get(g.admin + "/debug/pprof/heap?gc=1")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
	}
	metrics := get(b, g.admin+"/metrics")
	value := func(name string) float64 {
		for line := range strings.Lines(metrics) {
			if text, ok := strings.CutPrefix(line, name+" "); ok {
				v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err != nil {
					b.Fatal(err)
				}
				return v
			}
		}
		b.Fatalf("/metrics has no %s", name)
		return 0
	}
	return processCounts{
		writes:     g.writes(b),
		allocs:     value("go_memstats_mallocs_total"),
		fetches:    value("streamgw_fetch_requests_total"),
		memory:     value("go_memstats_heap_alloc_bytes"),
		goroutines: value("go_goroutines"),
	}
}

// writes returns how many system calls have written. proc(5), syscw.
func (g *measured) writes(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", g.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	var n float64
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "syscw: %f", &n); err == nil {
			return n
		}
	}
	b.Fatal("/proc/PID/io has no syscw")
	return 0
}
