package gateway

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/devbroker"
)

// openGzipped is open for a client that unpacks the stream itself, with a reader that the gateway doesn't use.
func (r *replica) openGzipped(t *testing.T, query, lastID string) *browser {
	t.Helper()
	b := r.openCoded(t, query, lastID, "gzip")
	b.block()
	return b
}

// openPlain is open for a client that doesn't let itself be given anything compressed, as Go's do without a word.
func (r *replica) openPlain(t *testing.T, query string) *browser {
	t.Helper()
	b := r.openCoded(t, query, "", "identity")
	b.block()
	return b
}

func (r *replica) openCoded(t *testing.T, query, lastID, coding string) *browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/v1/events?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", lastID)
	req.Header.Set("Accept-Encoding", coding)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Encoding"); (got == "gzip") != (coding == "gzip") {
		t.Fatalf("asked for %s, got %q", coding, got)
	}
	var body io.Reader = resp.Body
	if coding == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			t.Fatal(err)
		}
	}
	b := &browser{t, resp, bufio.NewReader(body), cancel, lastID}
	t.Cleanup(b.close)
	return b
}

// long returns records whose values are of some length, and of what compresses or doesn't.
func long(rng *rand.Rand, partitions int32, from, to int) (records []devbroker.Record) {
	for i := from; i < to; i++ {
		noise := make([]byte, rng.IntN(300))
		for j := range noise {
			noise[j] = byte(rng.Uint32())
		}
		value := fmt.Sprintf(`{"n":%d,"text":%q,"noise":%q}`, i, strings.Repeat("shipped ", rng.IntN(100)), base64.StdEncoding.EncodeToString(noise))
		records = append(records, devbroker.Record{Topic: topic, Partition: rng.Int32N(partitions), Key: fmt.Appendf(nil, "k%d", i%3), Value: []byte(value)})
	}
	return records
}

// TestCompressedStreamsAreThePlainOnes compares what clients get that read side by side: plain, gzipped, gzipped with a
// filter, and gzipped on another replica from each of many positions on.
func TestCompressedStreamsAreThePlainOnes(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 3})
	one, two := newReplicaOf(t, c, Config{Compression: true}), newReplicaOf(t, c, Config{Compression: true})
	query := "topic=" + topic + "&format=record"
	plain, zipped, filtered := one.openPlain(t, query), one.openGzipped(t, query, ""), one.openGzipped(t, query+"&key=k1", "")
	rng := rand.New(rand.NewPCG(5, 6))
	const n = 600
	for i := 0; i < n; {
		next := min(n, i+1+rng.IntN(60))
		c.produce(long(rng, 3, i, next)...)
		i = next
	}
	var want []sseEvent
	for range n {
		want = append(want, plain.next())
	}
	for i := range n {
		if got := zipped.next(); got != want[i] {
			t.Fatalf("event %d: got %q, want %q", i, got, want[i])
		}
	}
	for _, w := range want {
		if !strings.Contains(w.data, `"key":"k1"`) {
			continue
		}
		if got := filtered.next(); got.data != w.data {
			t.Fatalf("with a filter: got %q, want %q", got, w)
		}
	}
	for range 20 {
		from := rng.IntN(n)
		again := two.openGzipped(t, query, want[from].id)
		var got []string
		for range want[from+1:] {
			got = append(got, again.next().data)
		}
		var rest []string
		for _, w := range want[from+1:] {
			rest = append(rest, w.data)
		}
		slices.Sort(got) // replicas interleave partitions differently
		slices.Sort(rest)
		if !slices.Equal(got, rest) {
			t.Fatalf("resumed at %d: %d events, want %d, or others", from, len(got), len(rest))
		}
		again.close()
	}
}

// A client that stops reading for a while is given whole blocks: what the kernel took of a run, and the rest.
func TestASlowClientOfAGzippedStreamMissesNothing(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	r := newReplicaOf(t, c, Config{Compression: true})
	slow, fast := r.openGzipped(t, "topic="+topic, ""), r.openGzipped(t, "topic="+topic, "")
	rng := rand.New(rand.NewPCG(7, 8))
	const rounds, each = 40, 50
	for i := range rounds {
		var records []devbroker.Record
		for range each {
			noise := make([]byte, 6000)
			for j := range noise {
				noise[j] = byte(rng.Uint32())
			}
			records = append(records, devbroker.Record{Topic: topic, Value: []byte(base64.StdEncoding.EncodeToString(noise))})
		}
		c.produce(records...)
		if i < rounds/2 {
			_ = fast.take(each) // the hub has encoded it
		}
	}
	want := r.openPlain(t, "topic="+topic+"&from=earliest").take(rounds * each)
	if got := slow.take(rounds * each); !slices.Equal(got, want) {
		t.Error("the slow client got something else")
	}
}

// dialDeflated returns a WebSocket that was agreed to be compressed.
func (f *face) dialDeflated(t *testing.T, query string) *wsClient {
	t.Helper()
	c, resp, err := websocket.Dial(t.Context(), f.url+"/v1/ws"+query, &websocket.DialOptions{
		Subprotocols: []string{subprotocol}, CompressionMode: websocket.CompressionNoContextTakeover, CompressionThreshold: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	if got, want := resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate; client_no_context_takeover; server_no_context_takeover"; got != want {
		t.Fatalf("agreed on %q", got)
	}
	c.SetReadLimit(16 << 20)
	return &wsClient{c, t}
}

func TestWebSocketsAreCompressedForThoseWhoOfferIt(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{Compression: true})
			c := f.dialDeflated(t, "?topic=orders")
			c.want(`{"type":"subscribed","position":"P0"}`)
			c.send(`{"type":"subscribe","id":"a","topics":["orders"]}`) // the client compresses this
			c.want(`{"type":"subscribed","position":"P0","id":"a"}`)
			value := `{"text":"` + strings.Repeat("abc ", 1000) + `"}`
			event := `{"type":"event","topic":"orders","event":` + value + `,"position":"P1"`
			for i, end := range []string{"}", `,"id":"a"}`} {
				sub := f.sub(t, i)
				if sub.req.Format != compressed+wsValue {
					t.Errorf("format %d", sub.req.Format)
				}
				format := Formats()[sub.req.Format]
				shared := sharedItem(format, value, 1)
				if len(shared.Frame) > 200 {
					t.Errorf("the frame has %d bytes", len(shared.Frame))
				}
				sub.push(shared, item(value, 1), item("1", 2))
				c.want(event+end, event+end, `{"type":"event","topic":"orders","event":1,"position":"P2"`+end)
			}
		})
	}
}

func TestWebSocketsAreNotCompressedUnlessItIsOn(t *testing.T) {
	f := newFace(t, Config{})
	c, resp, err := websocket.Dial(t.Context(), f.url+"/v1/ws?topic=orders", &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != "" || f.sub(t, 0).req.Format != wsValue {
		t.Errorf("agreed on %q", got)
	}
}

// What a client's message may take is bounded when it is unpacked, not only as it was sent.
func TestABombFromAClient(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{Compression: true})
			c := f.dialDeflated(t, "?topic=orders")
			c.want(`{"type":"subscribed","position":"P0"}`)
			c.send(`{"type":"ping","id":"` + strings.Repeat("0", 4<<20) + `"}`)
			c.wantClose(websocket.StatusMessageTooBig)
		})
	}
}

// TestContractCompressedWebSocket reads what the hub shares, with an id and without.
func TestContractCompressedWebSocket(t *testing.T) {
	cluster := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	r := newReplicaOf(t, cluster, Config{Compression: true})
	f := &face{url: r.url}
	c := f.dialDeflated(t, "?topic="+topic)
	_ = c.next()
	c.send(`{"type":"subscribe","id":"a","topics":["` + topic + `"]}`)
	_ = c.next()
	cluster.produce(long(rand.New(rand.NewPCG(9, 10)), 1, 0, 300)...)
	next := map[string]int{}
	for next[""] < 300 || next["a"] < 300 {
		var frame struct {
			Type, ID string
			Event    struct{ N int }
		}
		text := c.next()
		if err := json.Unmarshal([]byte(text), &frame); err != nil {
			t.Fatalf("%v: %.200q", err, text)
		}
		if frame.Type == "position" {
			continue
		}
		if frame.Type != "event" || frame.Event.N != next[frame.ID] {
			t.Fatalf("got %.200q, want %d", text, next[frame.ID])
		}
		next[frame.ID]++
	}
}

// A stream that ends ends at a block: nothing that came is lost to a reader, which finds no checksum.
func TestAGzippedStreamEndsAtABlock(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{Compression: true})
			resp := get(t, f.url+"/v1/events?topic=orders", "Accept-Encoding", "gzip")
			unzipped, err := gzip.NewReader(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			plain := bufio.NewReader(unzipped)
			_ = readBlock(t, plain)
			f.sub(t, 0).push(item("a", 1))
			if got := readBlock(t, plain); got != "data: a\nid: P1\n" {
				t.Errorf("got %q", got)
			}
			if err := f.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(plain); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(string(got), "retry: ") || !strings.HasSuffix(string(got), "\n\n") {
				t.Errorf("got %q, then %v", got, err)
			}
		})
	}
}

// Whatever carries the stream, it is the same bytes.
func TestGzippedOverHTTP2AndAsLinesOfJSON(t *testing.T) {
	for name, tt := range map[string]struct {
		http2  bool
		accept string
		want   string
	}{
		"events over HTTP/2": {true, sseType, "id: P0\n\ndata: a\nid: P1\n\n"},
		"lines over HTTP/2":  {true, ndjsonType, `{"type":"position","position":"P0"}` + "\n" + `{"type":"event","topic":"orders","event":"a","encoding":"text","position":"P1"}` + "\n"},
		"lines over HTTP/1":  {false, ndjsonType, `{"type":"position","position":"P0"}` + "\n" + `{"type":"event","topic":"orders","event":"a","encoding":"text","position":"P1"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFace(t, Config{Compression: true})
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetHTTP1(!tt.http2)
			transport.Protocols.SetUnencryptedHTTP2(tt.http2)
			defer transport.CloseIdleConnections()
			r, err := http.NewRequestWithContext(t.Context(), "GET", f.url+"/v1/events?topic=orders", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Accept", tt.accept)
			r.Header.Set("Accept-Encoding", "gzip")
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.Header.Get("Content-Encoding") != "gzip" || (resp.ProtoMajor == 2) != tt.http2 {
				t.Fatalf("%s with %v", resp.Proto, resp.Header)
			}
			body, err := gzip.NewReader(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			f.sub(t, 0).push(item("a", 1))
			var got []byte
			for b := make([]byte, 1000); !strings.HasSuffix(string(got), tt.want); {
				n, err := body.Read(b)
				if got = append(got, b[:n]...); err != nil {
					t.Fatalf("%v after %q", err, got)
				}
			}
		})
	}
}
