package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/devbroker"
)

// transport is how a client asks for the stream of the benchmarks' topic, and what it knows an event by.
type transport struct{ name, request, event string }

func noToken() string { return "" }

// asking returns the request with a token, if there is one.
func (t transport) asking(token string) string {
	if token == "" {
		return t.request
	}
	return strings.Replace(t.request, "\r\n", "\r\nAuthorization: Bearer "+token+"\r\n", 1)
}

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
			audience := g.open(b, conns, t, noToken)
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
// Those with a token are each of another subject, that may read its own key alone.
func BenchmarkIdleConnection(b *testing.B) {
	for _, t := range transports() {
		b.Run(t.name, func(b *testing.B) { idleConnections(b, t, noToken) })
		b.Run(t.name+" with a token", func(b *testing.B) {
			mint, config := tokensOfSubjects(b)
			idleConnections(b, t, mint, configEnv+"="+config, "STREAMGW_AUTH_MODE=jwt")
		})
	}
}

func idleConnections(b *testing.B, t transport, token func() string, env ...string) {
	const first, conns = 50, 3000
	g := startMeasured(b, env...)
	defer g.stop(b)
	defer g.open(b, first, t, token).close() // what the first of them need for all
	var memory, goroutines float64
	for b.Loop() {
		before := g.counts(b)
		audience := g.open(b, conns, t, token)
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
}

// tokensOfSubjects returns what makes tokens as identity providers do, each of another subject, and the configuration that
// takes them.
func tokensOfSubjects(b *testing.B) (mint func() string, config string) {
	dir := b.TempDir()
	secret := filepath.Join(dir, "secret")
	config = filepath.Join(dir, "gw.yaml")
	for path, text := range map[string]string{secret: strings.Repeat("s", 48), config: `
auth:
  issuers: [{issuer: "https://id.example", audience: [streamgw], secretFile: "` + secret + `"}]
  policies: [{subscribe: [{topic: "**", keys: ["{sub}"]}]}]
`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	n := 0
	return func() string {
		n++
		token, err := auth.Mint{SecretFile: secret}.Sign(map[string]any{
			"iss": "https://id.example", "aud": []string{"streamgw", "account"}, "sub": fmt.Sprintf("5f3c8d1e-6a52-4c7b-9e0f-%012d", n),
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "jti": fmt.Sprintf("a1b2c3d4-%d", n),
			"email": fmt.Sprintf("user%d@example.com", n), "preferred_username": fmt.Sprintf("user%d", n), "azp": "web", "scope": "openid profile email",
			"realm_access": map[string]any{"roles": []string{"offline_access", "uma_authorization", "default-roles"}},
		})
		if err != nil {
			b.Fatal(err)
		}
		return token
	}, config
}

// measured is a gateway in a process of its own, which tells what it has done.
type measured struct {
	process
	public, admin string
	broker        *devbroker.Admin
}

func startMeasured(b *testing.B, env ...string) *measured {
	b.Helper()
	broker := startBroker(b)
	g := &measured{}
	g.process, g.public, g.admin = startServe(b, broker, env...)
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

// open opens streams, each once the one before has begun: its position is there. A crowd that comes at once leaves the
// runtime with the descriptors of as many goroutines, for good, and how many that is depends on the machine.
func (g *measured) open(b *testing.B, conns int, t transport, token func() string) *audience {
	b.Helper()
	a := &audience{got: make(chan struct{}, 1)}
	for range conns {
		c, err := net.Dial("tcp", strings.TrimPrefix(g.public, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		a.conns = append(a.conns, c)
		if _, err := io.WriteString(c, t.asking(token())); err != nil {
			b.Fatal(err)
		}
		begun := make(chan struct{})
		a.reading.Go(func() { a.read(c, t.event, sync.OnceFunc(func() { close(begun) })) })
		<-begun
	}
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
	// What the first collection finds to finalize is gone after the second, which is counted before anything else is
	// allocated.
	get(b, g.admin+"/debug/pprof/heap?gc=1&debug=1")
	heap := get(b, g.admin+"/debug/pprof/heap?gc=1&debug=1")
	metrics := get(b, g.admin+"/metrics")
	value := func(text, name string) float64 {
		for line := range strings.Lines(text) {
			if text, ok := strings.CutPrefix(line, name+" "); ok {
				v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err != nil {
					b.Fatal(err)
				}
				return v
			}
		}
		b.Fatalf("the gateway doesn't tell %s", name)
		return 0
	}
	return processCounts{
		writes:     g.writes(b),
		allocs:     value(metrics, "go_memstats_mallocs_total"),
		fetches:    value(metrics, "streamgw_fetch_requests_total"),
		memory:     value(heap, "# HeapAlloc ="),
		goroutines: value(metrics, "go_goroutines"),
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
