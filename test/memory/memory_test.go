//go:build integration

// Package memory shows that clients can't make a gateway hold more than limits.memory, whatever they do.
package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

const (
	limit   = 64 << 20
	large   = 700 << 10 // bytes of a record
	records = 150       // 105 MB: more than the limit, and less than each client that never reads has coming
	hostile = 300
)

const config = `
limits: {memory: 64MiB}
topics:
  - match: "**"
    window: {bytes: 48MiB, age: 10m}
`

// TestClientsThatNeverReadHoldNoMoreThanTheBound opens hundreds of streams of large records, from the beginning, in
// every form, and takes nothing of them, while others are written and one client reads.
func TestClientsThatNeverReadHoldNoMoreThanTheBound(t *testing.T) {
	kafka := harness.Brokers(t)
	topic, other := kafka.NewTopic(3), kafka.NewTopic(1)
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{Brokers: kafka.Bootstrap, Config: config})
	producer := kafka.NewProducer(topic)
	rng := rand.NewChaCha8([32]byte{1})
	send := func(topic *harness.Producer, n int) {
		for i := range n {
			value := make([]byte, large)
			_, _ = rng.Read(value)
			topic.SendRaw(i%3, fmt.Append(nil, "key", i%7), value)
		}
		topic.Flush()
	}
	send(producer, records)

	for i := range hostile {
		stall(t, gateway, i, topic, other)
	}
	numbered := kafka.NewProducer(other)
	reader := harness.OpenReader(t, harness.Transports()[0], harness.Dial{URL: gateway.URL, Query: harness.Topics([]string{other}, "from=latest")}, harness.NewLedger())
	defer reader.Close()

	var peak struct{ counted, heap, resident float64 }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		numbered.SendAll(5, 0)
		reader.Take(5) // who reads is served, whatever the others hold
		send(producer, 3)
		m := gateway.Metrics()
		peak.counted = max(peak.counted, m["streamgw_memory_bytes"])
		peak.heap = max(peak.heap, m["go_memstats_heap_inuse_bytes"])
		peak.resident = max(peak.resident, m["process_resident_memory_bytes"])
	}
	const MiB = 1 << 20
	t.Logf("%d clients that take nothing of %d MiB: %.0f MiB counted of %d, heap %.0f MiB, resident %.0f MiB",
		hostile, records*large/MiB, peak.counted/MiB, limit/MiB, peak.heap/MiB, peak.resident/MiB)
	// What a fetch brings is counted before windows shrink for it.
	if peak.counted < limit/4 || peak.counted > limit+8*MiB {
		t.Errorf("%.0f bytes are counted; the bound is %d, and there was more than enough to fill it", peak.counted, limit)
	}
	// The collector lets the heap grow to twice what is live. A client costs some ten KB that aren't counted, and sarama
	// an answer for each broker and read of history.
	if most := 2*limit + 150*MiB; peak.heap > float64(most) {
		t.Errorf("the heap had %.0f bytes", peak.heap)
	}
}

// stall opens a stream by hand and never reads of it.
func stall(t *testing.T, g *harness.Gateway, i int, topics ...string) {
	t.Helper()
	address := strings.TrimPrefix(g.URL, "http://")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	path, header := "/v1/events", ""
	switch i % 3 {
	case 1:
		header = "Accept: application/x-ndjson\r\n"
	case 2:
		path = "/v1/ws"
		header = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	}
	query := []string{"from=earliest", "format=value"}
	if i%2 == 0 {
		query[1] = "format=record"
	}
	if i%5 == 0 {
		query = append(query, fmt.Sprintf("key=key%d", i%7), fmt.Sprintf("key=another%d", i))
	}
	for _, topic := range topics[:1+i%2] {
		query = append(query, "topic="+topic)
	}
	if _, err := fmt.Fprintf(conn, "GET %s?%s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, strings.Join(query, "&"), address, header); err != nil {
		t.Fatal(err)
	}
}
