package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// get opens a stream and returns the response; the request ends with the test.
func get(t *testing.T, url string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// readBlock reads up to the next blank line.
func readBlock(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var block strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", block.String(), err)
		}
		if line == "\n" {
			return block.String()
		}
		block.WriteString(line)
	}
}

func TestSSEFlowsAtOnce(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			f := newFace(t, Config{Metrics: registry})
			resp := get(t, f.url+"/v1/events?topic=orders")
			for name, want := range map[string]string{
				"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff",
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			body := bufio.NewReader(resp.Body)
			if got := readBlock(t, body); !strings.HasPrefix(got, "retry: ") || !strings.HasSuffix(got, "\nid: P0\n") {
				t.Errorf("the stream opens with %q", got)
			}
			sub := f.sub(t, 0)
			sub.push(item("a", 1))
			if got := readBlock(t, body); got != "data: a\nid: P1\n" {
				t.Errorf("got %q", got)
			}
			if n := metric(t, registry, "streamgw_connections", "sse"); n != 1 {
				t.Errorf("%v connections", n)
			}
			resp.Body.Close()
			<-sub.closed
			eventually(t, "the connection is counted out", func() bool {
				return metric(t, registry, "streamgw_connections", "sse") == 0 &&
					metric(t, registry, "streamgw_connections_closed_total", "client", "sse") == 1
			})
		})
	}
}

func TestFormatsAreThoseOfTheHubs(t *testing.T) {
	f := newFace(t, Config{})
	for i, tt := range []struct {
		query, accept string
		want          int
	}{
		{"", "", sseValue},
		{"&event=type", "", sseValueNamed},
		{"&format=record", "", sseRecord},
		{"&format=record&event=type", "", sseRecordNamed},
		{"&heartbeat=event", "", sseValue},
		{"", "application/x-ndjson", ndjsonValue},
		{"&format=record", "application/x-ndjson", ndjsonRecord},
	} {
		resp := get(t, f.url+"/v1/events?topic=orders"+tt.query, "Accept", tt.accept)
		f.sub(t, i)
		if got := f.hubs.request(i).Format; got != tt.want {
			t.Errorf("%s %s: format %d, want %d", tt.query, tt.accept, got, tt.want)
		}
		if want := Formats()[tt.want].AppendMessage(nil, message("x"), "P"); len(want) == 0 {
			t.Errorf("format %d writes nothing", tt.want)
		}
		resp.Body.Close()
	}
}

func TestNDJSONStream(t *testing.T) {
	f := newFace(t, Config{})
	resp := get(t, f.url+"/v1/events?topic=orders", "Accept", "application/x-ndjson")
	if got := resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("Content-Type is %q", got)
	}
	f.sub(t, 0).push(item(`{"a":1}`, 1))
	f.sub(t, 0).fail(stream.Errorf(stream.NotFound, "the topic is gone"))
	var types []string
	lines := json.NewDecoder(resp.Body)
	for lines.More() {
		var line struct {
			Type, Position string
			Problem        problem
		}
		if err := lines.Decode(&line); err != nil {
			t.Fatal(err)
		}
		types = append(types, line.Type+" "+line.Position+line.Problem.Detail)
	}
	if got := strings.Join(types, ", "); got != "position P0, event P1, error P1the topic is gone" {
		t.Errorf("got %s", got)
	}
}

// TestPassingRefusalsReachAnEventSource: an error status would end it for good.
func TestPassingRefusalsReachAnEventSource(t *testing.T) {
	f := newFace(t, Config{})
	f.hubs.refusal = stream.Errorf(stream.Unavailable, "Kafka is away")
	for name, tt := range map[string]struct {
		query  string
		header []string
		stream bool
	}{
		"browser":               {"", []string{"Sec-Fetch-Mode", "cors", "Accept", "text/event-stream"}, true},
		"asks for it":           {"&refuse=stream", nil, true},
		"curl":                  {"", nil, false},
		"browser, but NDJSON":   {"", []string{"Sec-Fetch-Mode", "cors", "Accept", "application/x-ndjson"}, false},
		"browser, any type":     {"", []string{"Sec-Fetch-Mode", "navigate", "Accept", "*/*"}, true},
		"browser, bad position": {"&lastEventId=x", []string{"Sec-Fetch-Mode", "cors"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			resp := get(t, f.url+"/v1/events?topic=orders"+tt.query, tt.header...)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if !tt.stream {
				if resp.StatusCode < 400 {
					t.Errorf("status %d, %s", resp.StatusCode, body)
				}
				return
			}
			got := parseEventStream(string(body))
			if resp.StatusCode != 200 || got.retry < 1000 || len(got.events) != 1 || got.events[0].name != "streamgw.error" || got.lastID != "" {
				t.Errorf("status %d, %q", resp.StatusCode, body)
			}
			var p problem
			if err := json.Unmarshal([]byte(got.events[0].data), &p); err != nil || p.Status != 503 || p.Detail != "Kafka is away" {
				t.Errorf("problem %+v, %v", p, err)
			}
		})
	}
}

// TestAClientThatTakesNothingIsClosed fills a connection's buffers and then waits for the write timeout.
func TestAClientThatTakesNothingIsClosed(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			f := newFace(t, Config{WriteTimeout: 50 * time.Millisecond, Metrics: registry})
			conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "GET /v1/events?topic=orders HTTP/1.1\r\nHost: x\r\n\r\n")
			sub := f.sub(t, 0)
			big := item(strings.Repeat("x", 8<<20), 1)
			sub.push(big, big)
			<-sub.closed
			eventually(t, "it is counted as a timeout", func() bool {
				return metric(t, registry, "streamgw_connections_closed_total", "timeout", "sse") == 1
			})
		})
	}
}

// TestAStreamOverHTTP2OutlivesTheWriteTimeout: a deadline ends a stream of HTTP/2 though nothing is being written.
func TestAStreamOverHTTP2OutlivesTheWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, Config{WriteTimeout: 5 * time.Second})
		transport := n.transport(t, 0)
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://gateway/v1/events?topic=orders", nil)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body := bufio.NewReader(resp.Body)
		readBlock(t, body)
		if resp.ProtoMajor != 2 {
			t.Fatalf("spoke %s", resp.Proto)
		}
		time.Sleep(14 * time.Second) // longer than the timeout, and before the heartbeat: there is nothing to write
		n.hubs.sub(0).push(item("a", 1))
		if got := readBlock(t, body); got != "data: a\nid: P1\n" {
			t.Errorf("got %q", got)
		}
	})
}

func TestShutdownEndsStreamsAndRefusesNewOnes(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{})
			resp := get(t, f.url+"/v1/events?topic=orders")
			f.sub(t, 0)
			if err := f.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if got := parseEventStream(string(body)); err != nil || got.retry < 1000 || got.lastID != "P0" || strings.Count(string(body), "retry:") != 2 {
				t.Errorf("the stream was %q, %v", body, err)
			}
			checkProblem(t, get(t, f.url+"/v1/events?topic=orders"), 503, "unavailable", "", "shutting down")
			body, _ = io.ReadAll(get(t, f.url+"/v1/events?topic=orders&refuse=stream").Body)
			if got := parseEventStream(string(body)); len(got.events) != 1 {
				t.Errorf("a browser gets %q", body)
			}
			for _, at := range []string{f.url, f.admin} {
				if resp := get(t, at+"/readyz"); resp.StatusCode != 503 {
					t.Errorf("%s/readyz: %d", at, resp.StatusCode)
				}
			}
			if err := f.Shutdown(t.Context()); err != nil {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

// TestShutdownCutsWhoDoesNotGo has a client that takes nothing while the gateway stops.
func TestShutdownCutsWhoDoesNotGo(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{WriteTimeout: time.Hour})
			conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "GET /v1/events?topic=orders HTTP/1.1\r\nHost: x\r\n\r\n")
			big := item(strings.Repeat("x", 8<<20), 1)
			f.sub(t, 0).push(big, big)
			eventually(t, "it is being written", func() bool {
				f.hubs.mu.Lock()
				defer f.hubs.mu.Unlock()
				return f.hubs.taken > 0
			})
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := f.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("shutdown: %v", err)
			}
			<-f.sub(t, 0).closed
		})
	}
}

// TestShutdownDoesNotWaitForKafka has a client whose topic can't be read yet.
func TestShutdownDoesNotWaitForKafka(t *testing.T) {
	hubs := &stuckHubs{newFakeHubs(), make(chan struct{})}
	g := newGateway(Config{}, hubs, &fakeTopics{}, openAccess(t))
	l := g.newLoop("sse", sse{}, &fakeSink{})
	answer := make(chan error)
	go func() {
		answer <- g.subscribe(t.Context(), &l.connection, &feed{frames: sse{}}, request{})
	}()
	<-hubs.asked
	if err := g.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; !errors.Is(err, errDraining) {
		t.Errorf("the client is told %v", err)
	}
}

type stuckHubs struct {
	*fakeHubs
	asked chan struct{}
}

func (h *stuckHubs) subscribe(ctx context.Context, _ fanout.Request) (subscription, error) {
	close(h.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestCORS(t *testing.T) {
	for name, tt := range map[string]struct {
		origins       []string
		origin        string
		allow         string
		vary          string
		preflightCode int
	}{
		"none configured": {nil, "https://app.example", "", "", 405},
		"listed":          {[]string{"https://app.example"}, "https://app.example", "https://app.example", "Origin", 204},
		"not listed":      {[]string{"https://app.example"}, "https://evil.example", "", "Origin", 405},
		"other scheme":    {[]string{"https://app.example"}, "http://app.example", "", "Origin", 405},
		"all":             {[]string{"*"}, "https://any.example", "https://any.example", "Origin", 204},
		"no origin":       {[]string{"*"}, "", "", "Origin", 405},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFace(t, Config{Origins: tt.origins})
			header := []string{}
			if tt.origin != "" {
				header = []string{"Origin", tt.origin}
			}
			resp := get(t, f.url+"/v1/events?topic=", header...)
			if got := resp.Header.Get("Access-Control-Allow-Origin"); got != tt.allow {
				t.Errorf("allowed origin %q, want %q", got, tt.allow)
			}
			if got := resp.Header.Get("Vary"); got != tt.vary {
				t.Errorf("Vary %q, want %q", got, tt.vary)
			}
			r, _ := http.NewRequest("OPTIONS", f.url+"/v1/events?topic=orders", nil)
			r.Header.Set("Origin", tt.origin)
			r.Header.Set("Access-Control-Request-Method", "GET")
			pre, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			pre.Body.Close()
			if pre.StatusCode != tt.preflightCode {
				t.Errorf("preflight: %d, want %d", pre.StatusCode, tt.preflightCode)
			}
		})
	}
}
