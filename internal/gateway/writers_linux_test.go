package gateway

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
)

// TestShutdownOfManyConnections ends them all, and needs no goroutine for each.
func TestShutdownOfManyConnections(t *testing.T) {
	f := newFace(t, Config{})
	const each = 250
	var browsers []*bufio.Reader
	var sockets []*wsClient
	for i := range each {
		browsers = append(browsers, bufio.NewReader(get(t, f.url+"/v1/events?topic=orders").Body))
		sockets = append(sockets, f.dial(t, "?topic=orders"))
		f.sub(t, 2*i+1)
	}
	for range each {
		get(t, f.url+"/v1/events?topic=orders", "Accept", "application/x-ndjson")
	}
	ended := make(chan error)
	go func() { ended <- f.Shutdown(t.Context()) }()
	for _, s := range sockets {
		s.wantClose(websocket.StatusServiceRestart)
	}
	for _, b := range browsers {
		all, err := io.ReadAll(b)
		if got := parseEventStream(string(all)); err != nil || got.retry < 1000 || got.lastID != "P0" || strings.Count(string(all), "retry:") != 2 {
			t.Fatalf("a stream was %q, %v", all, err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestAStoppedRunEndsWhatIsLeft without a Shutdown before it.
func TestAStoppedRunEndsWhatIsLeft(t *testing.T) {
	f := newPlainFace(t, Config{WriteTimeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	eventually(t, "it runs", func() bool { return f.writers.Load() != nil })
	for _, request := range streamRequests {
		stall(t, f.url, request)
	}
	big := item(strings.Repeat("x", 8<<20), 1)
	f.sub(t, 0).push(big, big) // and is blocked
	f.sub(t, 1)
	eventually(t, "it is being written", func() bool {
		f.hubs.mu.Lock()
		defer f.hubs.mu.Unlock()
		return f.hubs.taken > 0
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-f.sub(t, 0).closed
	<-f.sub(t, 1).closed
}

// TestWhatAClientSaysBeforeItIsAdopted isn't left until the writer comes by: what it says wakes nobody until then.
func TestWhatAClientSaysBeforeItIsAdopted(t *testing.T) {
	g := newGateway(Config{}, newFakeHubs(), &fakeTopics{}, openAccess(t))
	for _, said := range []bool{false, true} {
		w := newWriter(&writers{g: g})
		w.parked, w.timed = true, true
		c := &taken{w: w, socket: &socket{}}
		c.queued.Store(true)
		c.socket.heard.Store(said)
		if !w.adopt(c) || w.parked == said || (len(w.kick) > 0) != said {
			t.Errorf("said %v: the writer waits: %v, and was kicked %d times", said, w.parked, len(w.kick))
		}
	}
}

func TestWheelTurnsOnceAHeartbeat(t *testing.T) {
	const heartbeat = 32 * time.Second
	w := newWheel(heartbeat)
	start := time.Now()
	count := make(map[*taken]int)
	for i := range 100 {
		now := start.Add(time.Duration(i) * 100 * time.Millisecond)
		w.turn(now, func(*taken) (time.Time, bool) { t.Fatal("none is due"); return now, true })
		w.add(new(taken), now.Add(heartbeat), now)
	}
	gone := 0
	for s := 11; s <= 330; s++ {
		now := start.Add(time.Duration(s) * time.Second)
		w.turn(now, func(c *taken) (time.Time, bool) {
			count[c]++
			if s > 200 {
				gone++
				return now, false
			}
			return now.Add(heartbeat), true
		})
	}
	for c, n := range count {
		if n < 5 || n > 7 {
			t.Errorf("%p was due %d times in 200 s, then once", c, n)
		}
	}
	if len(count) != 100 || gone != 100 || w.n != 0 {
		t.Errorf("%d were due, %d went, %d stay", len(count), gone, w.n)
	}
}

// TestWritersBeatToo has connections that were taken over, on a real clock.
func TestWritersBeatToo(t *testing.T) {
	const heartbeat = 50 * time.Millisecond
	f := newFace(t, Config{Heartbeat: heartbeat})
	body := bufio.NewReader(get(t, f.url+"/v1/events?topic=orders&heartbeat=event").Body)
	readBlock(t, body)
	const want = "event: streamgw.heartbeat\ndata: {}\n"
	begun := time.Now()
	for range 10 {
		if got := readBlock(t, body); got != want {
			t.Fatalf("got %q", got)
		}
	}
	if took := time.Since(begun); took < 9*heartbeat {
		t.Errorf("10 heartbeats took %v", took)
	}
	f.sub(t, 0).pass("P9")
	for got := want; got == want; {
		if got = readBlock(t, body); got != want && got != "id: P9\n" {
			t.Errorf("got %q", got)
		}
	}
}

func TestWritersEndAClientThatAnswersNoPing(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := newFace(t, Config{Heartbeat: 20 * time.Millisecond, WriteTimeout: 100 * time.Millisecond, Metrics: registry})
	conn := stall(t, f.url, streamRequests["websocket"])
	answers := f.dial(t, "?topic=orders")
	answers.next()
	reading := answers.CloseRead(t.Context()) // which fails on a message
	begun := time.Now()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Logf("it ended with %v", err)
	}
	if took := time.Since(begun); took < 100*time.Millisecond {
		t.Errorf("it was closed after %v", took)
	}
	eventually(t, "it is counted as a timeout", func() bool {
		return metric(t, registry, "streamgw_connections_closed_total", "timeout", "websocket") == 1
	})
	if reading.Err() != nil || metric(t, registry, "streamgw_connections", "websocket") != 1 {
		t.Error("one that answers was closed too")
	}
}

// TestAPanicEndsOneConnection and no other of the same writer, and is logged with where it was.
func TestAPanicEndsOneConnection(t *testing.T) {
	for name, request := range streamRequests {
		t.Run(name, func(t *testing.T) {
			log := make(chan string, 8)
			f := newFace(t, Config{Log: slog.New(slog.NewTextHandler(chanWriter(log), nil))})
			conn := stall(t, f.url, request)
			neighbour := bufio.NewReader(get(t, f.url+"/v1/events?topic=orders").Body)
			f.sub(t, 1)
			f.sub(t, 0).fail(errPanic)
			if _, err := io.ReadAll(conn); err != nil {
				t.Error(err)
			}
			<-f.sub(t, 0).closed
			if got := <-log; !strings.Contains(got, errPanic.Error()) || !strings.Contains(got, "fakeSub).Poll") {
				t.Errorf("the log has %q", got)
			}
			readBlock(t, neighbour)
			f.sub(t, 1).push(item("still here", 1))
			if got := readBlock(t, neighbour); !strings.Contains(got, "still here") {
				t.Errorf("the neighbour got %q", got)
			}
		})
	}
}

// chanWriter sends what is written to it.
type chanWriter chan string

func (c chanWriter) Write(b []byte) (int, error) {
	c <- string(b)
	return len(b), nil
}
