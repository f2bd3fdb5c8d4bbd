package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
)

// crowd is a gateway with many clients that each read all that they get.
type crowd struct {
	*Gateway
	hubs  *crowdHubs
	url   string
	conns []net.Conn
	raws  []syscall.RawConn // of conns
}

func newCrowd(b testing.TB) *crowd {
	b.Helper()
	c := &crowd{hubs: &crowdHubs{fakeHubs: newFakeHubs()}}
	c.Gateway = newGateway(Config{Heartbeat: time.Hour}, c.hubs, &fakeTopics{}, openAccess(b))
	c.running(b)
	server := httptest.NewUnstartedServer(nil)
	server.Config = Server(c.Public(), nil)
	server.Start()
	b.Cleanup(server.Close)
	c.url = strings.TrimPrefix(server.URL, "http://")
	b.Cleanup(func() {
		for _, conn := range c.conns {
			conn.Close()
		}
	})
	return c
}

const wsHandshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

var streamRequests = map[string]string{
	"sse":       "GET /v1/events?topic=orders HTTP/1.1\r\nHost: x\r\n\r\n",
	"websocket": "GET /v1/ws?topic=orders HTTP/1.1\r\nHost: x\r\n" + wsHandshake + "\r\n",
}

// join connects a client and waits until its stream has begun.
func (c *crowd) join(b testing.TB, request string) net.Conn {
	b.Helper()
	conn, err := net.Dial("tcp", c.url)
	if err != nil {
		b.Fatal(err)
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	c.conns, c.raws = append(c.conns, conn), append(c.raws, raw)
	if _, err := io.WriteString(conn, request); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 2048)
	for got := ""; !strings.Contains(got, "P0"); {
		n, err := conn.Read(buf)
		if err != nil {
			b.Fatalf("after %q: %v", got, err)
		}
		got += string(buf[:n])
	}
	return conn
}

// crowdHubs yields the same run to each subscription that is woken.
type crowdHubs struct {
	*fakeHubs
	run  fanout.Run
	subs []*crowdSub
}

type crowdSub struct {
	fakeSub
	hubs *crowdHubs
	due  atomic.Bool
}

func (h *crowdHubs) subscribe(_ context.Context, req fanout.Request) (subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &crowdSub{hubs: h}
	s.req, s.position, s.closed = req, "P0", make(chan struct{})
	h.subs = append(h.subs, s)
	return s, nil
}

func (s *crowdSub) Poll(b *fanout.Batch) error {
	b.Reset()
	if s.due.Swap(false) {
		b.Run = s.hubs.run
	}
	return nil
}

// publish has each client get the run, and waits until all was written.
func (c *crowd) publish() {
	for _, s := range c.hubs.subs {
		s.due.Store(true)
		s.req.Waker.Wake()
	}
	for _, w := range c.writers.Load().each {
		for rests := false; !rests; {
			w.mu.Lock()
			rests = w.parked
			w.mu.Unlock()
			time.Sleep(200 * time.Microsecond) // between two looks
		}
	}
}

// read takes what has come for each client, and returns how many bytes that were.
func (c *crowd) read(buf []byte) (total int) {
	for _, raw := range c.raws {
		for {
			n, err := readRaw(raw, buf)
			total += n
			if err != nil || n < len(buf) {
				break
			}
		}
	}
	return total
}

// readRaw reads what there is.
func readRaw(conn syscall.RawConn, b []byte) (n int, err error) {
	closed := conn.Read(func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), b)
		return true
	})
	return max(0, n), errors.Join(closed, err)
}

// cpu returns the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWriteFloor is what BenchmarkWrite comes down to at best: the same writes, and nothing else.
func BenchmarkWriteFloor(b *testing.B) {
	const clients = 1000
	c := newCrowd(b)
	var servers []*taken
	for range clients {
		c.join(b, streamRequests["sse"])
	}
	c.publish() // nothing: then each is in a wheel
	for _, w := range c.writers.Load().each {
		w.wheel.each(func(t *taken) { servers = append(servers, t) })
	}
	frames := []byte(strings.Repeat("x", 330))
	buf := make([]byte, 256<<10)
	var used time.Duration
	for b.Loop() {
		begun := cpu()
		for _, t := range servers {
			if n, err := t.descriptor.writeDirectly(frames); n != len(frames) {
				b.Fatal(n, err)
			}
		}
		used += cpu() - begun
		c.read(buf)
	}
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N*clients), "cpu-ns/write")
}

// BenchmarkWrite is what writes to many clients cost, with the kernel's part in it and without the clients'.
func BenchmarkWrite(b *testing.B) {
	const clients = 1000
	for _, transport := range []string{"sse", "websocket"} {
		for _, messages := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("%s/messages=%d", transport, messages), func(b *testing.B) {
				c := newCrowd(b)
				for range clients {
					c.join(b, streamRequests[transport])
				}
				f := Formats()[map[string]int{"sse": sseValue, "websocket": wsValue}[transport]]
				for i := range messages {
					c.hubs.run.Frames = f.AppendMessage(c.hubs.run.Frames, message(`"`+strings.Repeat("x", 256)+`"`), fmt.Sprint("AQAAAAATb3JkZXJzLm9yZGVyLnBsYWNlZAMGAAIDdRrAuQ", i))
				}
				c.hubs.run.Count, c.hubs.run.Oldest = messages, time.Now()
				buf := make([]byte, 256<<10)
				c.publish()
				c.read(buf)
				var used time.Duration
				var allocs uint64
				var before, after runtime.MemStats
				for b.Loop() {
					runtime.ReadMemStats(&before)
					begun := cpu()
					c.publish()
					used += cpu() - begun
					runtime.ReadMemStats(&after)
					allocs += after.Mallocs - before.Mallocs
					if n := c.read(buf); n != clients*len(c.hubs.run.Frames) {
						b.Fatalf("clients got %d bytes, want %d", n, clients*len(c.hubs.run.Frames))
					}
				}
				deliveries := float64(b.N * clients * messages)
				b.ReportMetric(deliveries/used.Seconds(), "deliveries/cpu-s")
				b.ReportMetric(float64(used.Nanoseconds())/float64(b.N*clients), "cpu-ns/write")
				b.ReportMetric(float64(allocs)/float64(b.N*clients), "allocs/write")
			})
		}
	}
}
