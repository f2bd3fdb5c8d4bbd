//go:build integration

// Package compression measures what compressed streams save and cost on a whole gateway: bytes on the wire, and the
// gateway's CPU, for each delivery. A few of the clients unpack what they get and check that nothing is missing.
package compression

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

var full = flag.Bool("full", false, "measure the whole table of docs/decisions/0011-compression.md, with up to 1,000 clients")

// load is what is measured: clients that all read one topic.
type load struct {
	transport string
	size      int // of an event, in bytes
	rate      int // events a second
	clients   int
	during    time.Duration
}

func loads() (list []load) {
	for _, transport := range []string{"sse", "ws"} {
		if !*full {
			list = append(list, load{transport, 2048, 500, 100, 2 * time.Second})
			continue
		}
		for _, size := range []int{256, 2048} {
			list = append(list, load{transport, size, 100, 1000, 5 * time.Second}, load{transport, size, 1000, 200, 5 * time.Second})
		}
	}
	return list
}

func TestWhatCompressionSavesAndCosts(t *testing.T) {
	kafka := harness.Brokers(t)
	gateways := map[bool]*harness.Gateway{}
	for _, compressed := range []bool{false, true} {
		gateways[compressed] = harness.StartGateway(t, fmt.Sprintf("gateway-%v", compressed), harness.GatewayOptions{
			Brokers: kafka.Bootstrap, Env: []string{fmt.Sprintf("STREAMGW_COMPRESSION_ENABLED=%v", compressed)},
		})
	}
	for _, l := range loads() {
		plain, packed := l.measure(t, kafka, gateways[false]), l.measure(t, kafka, gateways[true])
		t.Logf("%3s, %4d bytes, %4d events a second to %d clients: %5.0f -> %4.0f bytes and %4.2f -> %4.2f µs of CPU a delivery",
			l.transport, l.size, l.rate, l.clients, plain.bytes, packed.bytes, plain.cpu, packed.cpu)
		if packed.bytes > 0.85*plain.bytes {
			t.Errorf("compression saves too little: %.0f of %.0f bytes", packed.bytes, plain.bytes)
		}
	}
}

// cost is what one delivery took: bytes on the wire, and the gateway's CPU in microseconds.
type cost struct{ bytes, cpu float64 }

// checkers is how many of the clients unpack what they get; the others count its bytes.
const checkers = 5

func (l load) measure(t *testing.T, kafka *harness.Kafka, g *harness.Gateway) cost {
	t.Helper()
	topic := kafka.NewTopic(1)
	var received atomic.Int64
	var readers sync.WaitGroup
	defer readers.Wait()
	progress := make([]atomic.Int64, checkers)
	for i := range l.clients {
		s := l.join(t, g, topic, &received)
		defer s.conn.Close()
		if i < checkers {
			readers.Go(func() { s.follow(t, &progress[i]) })
		} else {
			readers.Go(func() { _, _ = io.Copy(io.Discard, s.rest) })
		}
	}
	orders := newOrders(t, kafka, topic, l.size)
	orders.send(l.rate, time.Second) // until all is warm
	settled := func() bool {
		for i := range progress {
			if progress[i].Load() < orders.sent {
				return false
			}
		}
		return true
	}
	harness.Until(t, 30*time.Second, "what warms up has come", settled)
	sent, bytes, cpu := orders.sent, received.Load(), cpuTime(t, g)
	orders.send(l.rate, l.during)
	harness.Until(t, 30*time.Second, "all has come", settled)
	deliveries := float64(orders.sent-sent) * float64(l.clients)
	return cost{
		bytes: float64(received.Load()-bytes) / deliveries,
		cpu:   float64((cpuTime(t, g) - cpu).Microseconds()) / deliveries,
	}
}

// opened is a stream whose bytes are counted as they come.
type opened struct {
	conn     net.Conn
	response *http.Response
	rest     io.Reader // what follows the response's head
}

// join opens a stream by hand: what counts is the bytes.
func (l load) join(t *testing.T, g *harness.Gateway, topic string, received *atomic.Int64) *opened {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	path, head := "/v1/events", "Accept-Encoding: gzip\r\n"
	if l.transport == "ws" {
		path, head = "/v1/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
	}
	fmt.Fprintf(conn, "GET %s?topic=%s HTTP/1.1\r\nHost: test\r\n%s\r\n", path, topic, head)
	rest := bufio.NewReaderSize(counted{conn, received}, 16<<10)
	response, err := http.ReadResponse(rest, nil)
	if err != nil || response.StatusCode >= 300 {
		t.Fatalf("%+v, %v", response, err)
	}
	return &opened{conn, response, rest}
}

type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c counted) Read(b []byte) (n int, err error) {
	n, err = c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// follow reads a stream until it is cut, and checks that order after order comes.
func (s *opened) follow(t *testing.T, progress *atomic.Int64) {
	text := s.rest
	switch {
	case s.response.StatusCode == http.StatusSwitchingProtocols:
		text = &messages{from: bufio.NewReader(s.rest)}
	case s.response.Header.Get("Content-Encoding") == "gzip":
		unpacked, err := gzip.NewReader(s.rest)
		if err != nil {
			t.Error(err)
			return
		}
		text = unpacked
	}
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		_, after, ok := strings.Cut(lines.Text(), `"orderId":`)
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(after, ",")
		if n, err := strconv.ParseInt(digits, 10, 64); err != nil || n != progress.Load() {
			t.Errorf("order %q came, not %d", digits, progress.Load())
			return
		}
		progress.Add(1)
	}
}

// messages reads a WebSocket's messages as lines.
type messages struct {
	from *bufio.Reader
	line []byte
}

func (m *messages) Read(b []byte) (int, error) {
	for len(m.line) == 0 {
		line, err := m.next()
		if err != nil {
			return 0, err
		}
		m.line = append(line, '\n')
	}
	n := copy(b, m.line)
	m.line = m.line[n:]
	return n, nil
}

func (m *messages) next() ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(m.from, head[:]); err != nil {
		return nil, err
	}
	length := uint64(head[1])
	if more := map[byte]int{126: 2, 127: 8}[head[1]]; more > 0 {
		var b [8]byte
		if _, err := io.ReadFull(m.from, b[8-more:]); err != nil {
			return nil, err
		}
		length = binary.BigEndian.Uint64(b[:])
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(m.from, payload); err != nil {
		return nil, err
	}
	const final, text, rsv1 = 0x80, 0x01, 0x40
	switch head[0] {
	case final | text:
		return payload, nil
	case final | rsv1 | text:
		return io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
	default:
		return nil, nil // a ping
	}
}

// cpuTime is what a gateway has taken of CPU (proc(5): utime and stime, in hundredths of a second).
func cpuTime(t *testing.T, g *harness.Gateway) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
