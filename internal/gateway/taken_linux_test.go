package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/prometheus/client_golang/prometheus"
)

// stingy makes the kernel take a part of each write only, another one each time, so that frames are cut at every byte.
func (g *Gateway) stingy() {
	for _, w := range g.writers.Load().each {
		cut := 0
		w.write = func(d *descriptor, b []byte) (int, error) {
			cut++
			n := cut % (len(b) + 1)
			if n == 0 {
				return 0, nil
			}
			return d.write(b[:n])
		}
	}
}

// TestContractFramesCutAnywhereAreWhole has writes that are taken in part, at each byte of a run.
func TestContractFramesCutAnywhereAreWhole(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	r := newReplica(t, c)
	r.stingy()
	const events = 1500
	b, filtered, socket := r.open(t, "topic="+topic, ""), r.open(t, "topic="+topic+"&key=k1", ""), r.webSocket(t, "")
	for i := 0; i < events; i += 10 {
		c.produce(numbered(0, i, i+10)...)
	}
	wantEvents(t, b.take(events), numbers(0, events)...)
	for i := 1; i < events; i += 3 {
		if got := filtered.next().data; got != fmt.Sprint(i) {
			t.Fatalf("filtered: got %s, want %d", got, i)
		}
	}
	for i := range events {
		if got := string(socket.next()); got != fmt.Sprint(i) {
			t.Fatalf("WebSocket: got %s, want %d", got, i)
		}
	}
	eventually(t, "all are counted, once", func() bool {
		return metric(t, r.registry, "streamgw_events_delivered_total", topic, "sse") == events+events/3 &&
			metric(t, r.registry, "streamgw_events_delivered_total", topic, "websocket") == events
	})
}

// stall opens a stream and never reads of it.
func stall(t *testing.T, url, request string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestContractStalledClientsDelayNobody: each costs a goroutine, and those that read get all.
func TestContractStalledClientsDelayNobody(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	r := newReplica(t, c)
	const live, stalled, events = 25, 20, 200
	for i := range stalled {
		request := []string{"sse", "websocket"}[i%2]
		stall(t, r.url, strings.ReplaceAll(streamRequests[request], "orders", topic))
	}
	eventually(t, "they are there", func() bool {
		return metric(t, r.registry, "streamgw_connections", "sse")+metric(t, r.registry, "streamgw_connections", "websocket") == stalled
	})
	var clients []*browser
	for range live {
		clients = append(clients, r.open(t, "topic="+topic, ""))
	}
	value := strings.Repeat("x", 32<<10) // in all more than the buffers of a stalled client's connection hold
	for i := range events {
		c.produce(devbroker.Record{Topic: topic, Value: fmt.Append(nil, i, value)})
	}
	var all sync.WaitGroup
	for _, b := range clients {
		all.Go(func() {
			for i := range events {
				block, err := b.body.ReadString('\n')
				for err == nil && !strings.HasPrefix(block, "data: ") {
					block, err = b.body.ReadString('\n')
				}
				if want := fmt.Sprint("data: ", i, " x"); err != nil && !strings.HasPrefix(block, want) {
					t.Errorf("event %d: %.40q, %v", i, block, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestTheKernelEndsAClientThatLeavesItsWindowShut, though all that waits for it is in the kernel.
func TestTheKernelEndsAClientThatLeavesItsWindowShut(t *testing.T) {
	for name, request := range streamRequests {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			f := newFace(t, Config{Metrics: registry, WriteTimeout: 300 * time.Millisecond, Heartbeat: time.Hour})
			stall(t, f.url, request)
			f.sub(t, 0).push(item(strings.Repeat("x", 100<<10), 1))
			<-f.sub(t, 0).closed
			eventually(t, "it is counted as a timeout", func() bool {
				return metric(t, registry, "streamgw_connections_closed_total", "timeout", name) == 1
			})
		})
	}
}

func TestAHalfClosedClientIsGone(t *testing.T) {
	for name, request := range streamRequests {
		t.Run(name, func(t *testing.T) {
			f := newFace(t, Config{})
			conn := stall(t, f.url, request)
			sub := f.sub(t, 0)
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			<-sub.closed
		})
	}
}

// TestWhatAnSSEClientSendsIsLetGo: pipelined requests and noise, up to a bound.
func TestWhatAnSSEClientSendsIsLetGo(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := newFace(t, Config{Metrics: registry})
	conn := stall(t, f.url, streamRequests["sse"]+streamRequests["sse"])
	body := bufio.NewReader(conn)
	head := readBlockOf(t, body, "\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || strings.Contains(head, "chunked") || !strings.Contains(head, "Connection: close\r\n") {
		t.Errorf("answered with %q", head)
	}
	readBlock(t, body)
	for range 16 {
		if _, err := conn.Write(make([]byte, maxNoise/16)); err != nil {
			t.Fatal(err)
		}
	}
	f.sub(t, 0).push(item("a", 1))
	if got := readBlock(t, body); got != "data: a\nid: P1\n" {
		t.Errorf("got %q", got)
	}
	for i := 0; ; i++ {
		if _, err := conn.Write(make([]byte, 1<<10)); err != nil || i == 1<<20 {
			break
		}
	}
	<-f.sub(t, 0).closed
	if n := len(f.hubs.requests); n != 1 {
		t.Errorf("%d requests were served, want the first", n)
	}
}

func readBlockOf(t *testing.T, r *bufio.Reader, end string) string {
	t.Helper()
	var block strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", block.String(), err)
		}
		if line == end {
			return block.String()
		}
		block.WriteString(line)
	}
}

func TestAStreamForHTTP10(t *testing.T) {
	f := newFace(t, Config{})
	conn := stall(t, f.url, "GET /v1/events?topic=orders HTTP/1.0\r\n\r\n")
	body := bufio.NewReader(conn)
	if head := readBlockOf(t, body, "\r\n"); !strings.HasPrefix(head, "HTTP/1.0 200 OK\r\n") {
		t.Errorf("answered with %q", head)
	}
	readBlock(t, body)
	f.sub(t, 0).fail(errDraining)
	if _, err := io.ReadAll(body); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// TestConnectionsThatComeAndGo: each gets what is its own though descriptors are used again, and nothing stays behind.
func TestConnectionsThatComeAndGo(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := newFace(t, Config{Metrics: registry, Heartbeat: 20 * time.Millisecond})
	descriptors, goroutines := open(t), runtime.NumGoroutine()
	stays := f.dial(t, "?topic=orders")
	stays.next()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 40 {
				request := streamRequests[[]string{"sse", "websocket"}[i%2]]
				conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(conn, request)
				if i%3 > 0 {
					for got, b := "", make([]byte, 1<<10); !strings.Contains(got, "P0"); {
						n, err := conn.Read(b)
						if err != nil {
							t.Errorf("after %q: %v", got, err)
							break
						}
						got += string(b[:n])
					}
				}
				conn.Close()
			}
		})
	}
	all.Wait()
	f.sub(t, 0).push(wsItem("1", 1))
	stays.want(`{"type":"event","topic":"orders","event":1,"position":"P1"}`)
	stays.CloseNow()
	eventually(t, "all are counted out", func() bool {
		return metric(t, registry, "streamgw_connections", "sse")+metric(t, registry, "streamgw_connections", "websocket") == 0
	})
	eventually(t, "descriptors and goroutines are given back", func() bool {
		return open(t) <= descriptors && runtime.NumGoroutine() <= goroutines
	})
	eventually(t, "the watcher has forgotten them", func() bool {
		watch := f.writers.Load().watch
		watch.mu.Lock()
		defer watch.mu.Unlock()
		return len(watch.free) == len(watch.slots)
	})
	for _, s := range f.hubs.subs {
		<-s.closed
	}
}

// open returns the number of this process's open descriptors.
func open(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
