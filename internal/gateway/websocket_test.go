package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// wsClient is a WebSocket client of a test.
type wsClient struct {
	*websocket.Conn
	t *testing.T
}

func (f *face) dial(t *testing.T, query string) *wsClient {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), f.url+"/v1/ws"+query, &websocket.DialOptions{Subprotocols: []string{"other", subprotocol}})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(16 << 20)
	t.Cleanup(func() { c.CloseNow() })
	return &wsClient{c, t}
}

func (c *wsClient) send(frame string) {
	c.t.Helper()
	if err := c.Write(c.t.Context(), websocket.MessageText, []byte(frame)); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next frame.
func (c *wsClient) next() string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	_, b, err := c.Read(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

func (c *wsClient) want(frames ...string) {
	c.t.Helper()
	for _, want := range frames {
		if got := c.next(); got != want {
			c.t.Errorf("got %s, want %s", got, want)
		}
	}
}

// wantProblem reads an error frame.
func (c *wsClient) wantProblem(id, name, field, detail string) {
	c.t.Helper()
	var frame struct {
		Type, ID string
		Problem  problem
	}
	text := c.next()
	if err := json.Unmarshal([]byte(text), &frame); err != nil {
		c.t.Fatal(err)
	}
	if frame.Type != "error" || frame.ID != id || frame.Problem.name() != name || frame.Problem.Field != field || !strings.Contains(frame.Problem.Detail, detail) {
		c.t.Errorf("got %s, want problem %s of %q, field %q, with %q", text, name, id, field, detail)
	}
}

// wantClose reads until the connection ends.
func (c *wsClient) wantClose(code websocket.StatusCode) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	for {
		if _, _, err := c.Read(ctx); err != nil {
			if got := websocket.CloseStatus(err); got != code {
				c.t.Errorf("closed with %v (%v), want %v", got, err, code)
			}
			return
		}
	}
}

func wsItem(value string, n int) fanout.Item { return sharedItem(webSocketFrames{}, value, n) }

func TestWebSocketOfTheQuery(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			f := newFace(t, Config{Metrics: registry})
			c := f.dial(t, "?topic=orders")
			if got := c.Subprotocol(); got != subprotocol {
				t.Errorf("subprotocol %q", got)
			}
			c.want(`{"type":"subscribed","position":"P0"}`)
			sub := f.sub(t, 0)
			if sub.req.Format != wsValue {
				t.Errorf("format %d", sub.req.Format)
			}
			sub.push(wsItem("1", 1), item(`"own"`, 2), wsItem("3", 3))
			c.want(
				`{"type":"event","topic":"orders","event":1,"position":"P1"}`,
				`{"type":"event","topic":"orders","event":"own","position":"P2"}`,
				`{"type":"event","topic":"orders","event":3,"position":"P3"}`,
			)
			c.send(`{"type":"ping"}`)
			c.send(`{"type":"ping","id":"x"}`)
			c.want(`{"type":"pong"}`, `{"type":"pong","id":"x"}`)
			eventually(t, "3 are counted", func() bool {
				return metric(t, registry, "streamgw_events_delivered_total", "orders", "websocket") == 3
			})
			c.Close(websocket.StatusNormalClosure, "")
			<-sub.closed
			eventually(t, "it is counted out", func() bool {
				return metric(t, registry, "streamgw_connections", "websocket") == 0
			})
		})
	}
}

func TestWebSocketSubscriptions(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{MaxSubscriptions: 2})
			c := f.dial(t, "")
			c.send(`{"type":"subscribe","id":"a","topics":["orders","users"],"keys":["k"],"types":["x.v1"],"from":"earliest","format":"record","slow":"close"}`)
			c.want(`{"type":"subscribed","position":"P0","id":"a"}`)
			c.send(`{"type":"subscribe","id":"b","topics":["orders"]}`)
			c.want(`{"type":"subscribed","position":"P0","id":"b"}`)
			want := fanout.Request{
				Topics: []string{"orders", "users"}, Filter: stream.Filter{Keys: []string{"k"}, Types: []string{"x.v1"}},
				From: fanout.From{At: stream.Earliest}, Slow: fanout.SlowClose, Format: wsRecord,
			}
			got := f.hubs.request(0)
			got.Waker = nil
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("asked for %+v, want %+v", got, want)
			}

			f.sub(t, 1).push(wsItem("1", 1))
			c.want(`{"type":"event","topic":"orders","event":1,"position":"P1","id":"b"}`)
			gap := &stream.Gap{Topic: "orders", From: 1, To: 2, Reason: stream.GapTruncated}
			f.sub(t, 1).push(fanout.Item{Gap: gap, ID: "P2"})
			c.want(`{"type":"gap","topic":"orders","partition":0,"from":1,"to":2,"reason":"truncated","position":"P2","id":"b"}`)

			c.send(`{"type":"subscribe","id":"b","topics":["orders"]}`)
			c.wantProblem("b", "bad-request", "id", "of this id")
			c.send(`{"type":"subscribe","id":"c","topics":["orders"]}`)
			c.wantProblem("c", "too-many", "", "2 subscriptions")
			c.send(`{"type":"unsubscribe","id":"a"}`)
			c.want(`{"type":"unsubscribed","id":"a"}`)
			<-f.sub(t, 0).closed
			c.send(`{"type":"unsubscribe","id":"a"}`)
			c.wantProblem("a", "bad-request", "id", "no subscription")
			c.send(`{"type":"subscribe","id":"a","topics":["orders"]}`)
			c.want(`{"type":"subscribed","position":"P0","id":"a"}`)

			f.sub(t, 2).fail(stream.Errorf(stream.NotFound, "the topic is gone"))
			c.wantProblem("a", "not-found", "", "is gone")
			f.sub(t, 1).push(wsItem("3", 3))
			c.want(`{"type":"event","topic":"orders","event":3,"position":"P3","id":"b"}`)
		})
	}
}

// TestWrongFrames: each is answered, and the connection goes on.
func TestWrongFrames(t *testing.T) {
	f := newFace(t, Config{})
	for name, tt := range map[string]struct{ frame, id, problem, field, detail string }{
		"not JSON":         {`{"type"`, "", "bad-request", "", "JSON object"},
		"a list":           {`[]`, "", "bad-request", "", "JSON object"},
		"null":             {`null`, "", "bad-request", "", "JSON object"},
		"empty":            {``, "", "bad-request", "", "JSON object"},
		"no type":          {`{"id":"a"}`, "a", "bad-request", "type", "missing"},
		"unknown type":     {`{"type":"hello","id":"a"}`, "a", "bad-request", "type", `"hello"`},
		"publish":          {`{"type":"publish"}`, "", "bad-request", "type", "this version"},
		"type of a type":   {`{"type":7}`, "", "bad-request", "type", "a string"},
		"null id":          {`{"type":"ping","id":null}`, "", "bad-request", "id", "a string"},
		"unknown member":   {`{"type":"subscribe","id":"a","topic":"orders"}`, "a", "bad-request", "topic", "no such member"},
		"member not yet":   {`{"type":"subscribe","id":"a","topics":["orders"],"filter":"x"}`, "a", "bad-request", "filter", "this version"},
		"upper case":       {`{"type":"subscribe","id":"a","Topics":["orders"]}`, "a", "bad-request", "Topics", "no such member"},
		"no id":            {`{"type":"subscribe","topics":["orders"]}`, "", "bad-request", "id", "missing"},
		"long id":          {`{"type":"subscribe","id":"` + strings.Repeat("a", 65) + `","topics":["orders"]}`, "", "bad-request", "id", "64"},
		"no topics":        {`{"type":"subscribe","id":"a"}`, "a", "bad-request", "topics", "no topic"},
		"topics not list":  {`{"type":"subscribe","id":"a","topics":"orders"}`, "a", "bad-request", "topics", "a list"},
		"internal topic":   {`{"type":"subscribe","id":"a","topics":["__x"]}`, "a", "not-found", "topics", "there is no topic __x"},
		"empty type":       {`{"type":"subscribe","id":"a","topics":["orders"],"types":[""]}`, "a", "bad-request", "types", "empty"},
		"bad position":     {`{"type":"subscribe","id":"a","topics":["orders"],"from":"Ag"}`, "a", "bad-position", "from", "format 2"},
		"slow not yet":     {`{"type":"subscribe","id":"a","topics":["orders"],"slow":"skip"}`, "a", "bad-request", "slow", "this version"},
		"unsubscribe none": {`{"type":"unsubscribe"}`, "", "bad-request", "id", "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			c := f.dial(t, "")
			c.send(tt.frame)
			c.wantProblem(tt.id, tt.problem, tt.field, tt.detail)
			c.send(`{"type":"ping"}`)
			c.want(`{"type":"pong"}`)
		})
	}
}

func TestFramesOfBytesAreAnswered(t *testing.T) {
	c := newFace(t, Config{}).dial(t, "")
	if err := c.Write(t.Context(), websocket.MessageBinary, []byte(`{"type":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	c.wantProblem("", "bad-request", "", "not bytes")
}

func TestTooManyWrongFramesCloseTheConnection(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			c := newFace(t, Config{}).dial(t, "")
			for range maxStrikes {
				c.send(`{}`)
				c.wantProblem("", "bad-request", "type", "missing")
			}
			c.send(`{}`)
			c.wantProblem("", "bad-request", "", "more than 10")
			c.wantClose(websocket.StatusPolicyViolation)
		})
	}
}

func TestTooBigAFrameClosesTheConnection(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{})
			c := f.dial(t, "?topic=orders")
			c.send(`{"type":"ping","id":"` + strings.Repeat("a", readLimit) + `"}`)
			c.wantClose(websocket.StatusMessageTooBig)
			<-f.sub(t, 0).closed
		})
	}
}

func TestWebSocketCloseCodes(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		code websocket.StatusCode
	}{
		"too slow":    {stream.Errorf(stream.TooSlow, "x"), 4408},
		"Kafka away":  {stream.Errorf(stream.Unavailable, "x"), 1013},
		"topic gone":  {stream.Errorf(stream.NotFound, "x"), 1008},
		"our fault":   {stream.Errorf(stream.Internal, "x"), 1011},
		"token ended": {stream.Errorf(stream.Unauthorized, "x"), 4401},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFace(t, Config{})
			c := f.dial(t, "?topic=orders")
			c.next()
			f.sub(t, 0).push(wsItem("1", 1))
			f.sub(t, 0).fail(tt.err)
			c.want(`{"type":"event","topic":"orders","event":1,"position":"P1"}`)
			c.wantProblem("", problemOf(tt.err).name(), "", "")
			c.wantClose(tt.code)
			<-f.sub(t, 0).closed
		})
	}
}

// TestTooSlowOnASubscriptionClosesTheConnection: it is the connection that is slow.
func TestTooSlowOnASubscriptionClosesTheConnection(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{})
			c := f.dial(t, "")
			c.send(`{"type":"subscribe","id":"a","topics":["orders"],"slow":"close"}`)
			c.next()
			f.sub(t, 0).fail(stream.Errorf(stream.TooSlow, "resume"))
			c.wantProblem("a", "too-slow", "", "resume")
			c.wantClose(4408)
		})
	}
}

func TestShutdownClosesWebSocketsWith1012(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{})
			c := f.dial(t, "?topic=orders")
			c.next()
			ended := make(chan error)
			go func() { ended <- f.Shutdown(t.Context()) }()
			c.wantClose(websocket.StatusServiceRestart)
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			_, resp, err := websocket.Dial(t.Context(), f.url+"/v1/ws?topic=orders", nil)
			if err == nil {
				t.Fatal("a new connection was let in")
			}
			if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
				t.Errorf("refused with %d", resp.StatusCode)
			}
		})
	}
}

// TestPingsDuringLargeWrites: the library's frames go between the gateway's, and damage none.
func TestPingsDuringLargeWrites(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			f := newFace(t, Config{})
			c := f.dial(t, "?topic=orders")
			c.next()
			sub := f.sub(t, 0)
			const n = 300
			value := `"` + strings.Repeat("x", 20_000) + `"`
			pinged := make(chan error, 1)
			go func() {
				var err error
				for i := 0; i < 50 && err == nil; i++ {
					err = c.Ping(t.Context())
				}
				pinged <- err
			}()
			go func() {
				for i := range n / 3 {
					sub.push(wsItem(value, i), wsItem(value, i), wsItem(value, i))
				}
			}()
			for i := range n {
				want := fmt.Sprintf(`{"type":"event","topic":"orders","event":%s,"position":"P%d"}`, value, i/3)
				if got := c.next(); got != want {
					t.Fatalf("frame %d is damaged: %.100s", i, got)
				}
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.Read(t.Context()) // pongs are read by Read
			}()
			if err := <-pinged; err != nil {
				t.Error(err)
			}
			c.CloseNow()
			<-done
		})
	}
}

func TestHandshakesThatAreRefused(t *testing.T) {
	f := newFace(t, Config{Origins: []string{"https://app.example"}})
	good := map[string]string{
		"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	}
	for name, tt := range map[string]struct {
		query, header, value string
		status               int
		problem, field       string
	}{
		"version":        {"?topic=orders", "Sec-WebSocket-Version", "8", 426, "upgrade-required", ""},
		"key":            {"?topic=orders", "Sec-WebSocket-Key", "short", 400, "bad-request", "Sec-WebSocket-Key"},
		"upgrade":        {"?topic=orders", "Upgrade", "h2c", 426, "upgrade-required", ""},
		"other origin":   {"?topic=orders", "Origin", "https://evil.example", 403, "forbidden", "Origin"},
		"null origin":    {"?topic=orders", "Origin", "null", 403, "forbidden", "Origin"},
		"query":          {"?topic=__x", "X", "", 404, "not-found", "topic"},
		"key, no topic":  {"?key=a", "X", "", 400, "bad-request", "topic"},
		"event=type":     {"?topic=orders&event=type", "X", "", 400, "bad-request", "event"},
		"refuse=stream":  {"?topic=orders&refuse=stream", "X", "", 400, "bad-request", "refuse"},
		"no such member": {"?topics=orders", "X", "", 400, "bad-request", "topics"},
	} {
		t.Run(name, func(t *testing.T) {
			header := []string{}
			for n, v := range good {
				header = append(header, n, v)
			}
			header = append(header, tt.header, tt.value)
			checkProblem(t, get(t, f.url+"/v1/ws"+tt.query, header...), tt.status, tt.problem, tt.field, "")
		})
	}
	for _, origin := range []string{"https://app.example", "HTTPS://APP.EXAMPLE", f.url, ""} {
		c, _, err := websocket.Dial(t.Context(), f.url+"/v1/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
		if err != nil {
			t.Errorf("origin %q: %v", origin, err)
			continue
		}
		c.CloseNow()
	}
}

func TestASubscribeThatWaitsDoesNotKeepTheGateway(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			hubs := &stuckHubs{newFakeHubs(), make(chan struct{})}
			f := newFace(t, Config{})
			f.Gateway.hubs = hubs
			c := f.dial(t, "")
			c.send(`{"type":"subscribe","id":"a","topics":["orders"]}`)
			<-hubs.asked // and isn't answered
			ended := make(chan error)
			go func() { ended <- f.Shutdown(t.Context()) }()
			c.wantClose(websocket.StatusServiceRestart)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// FuzzClientFrame sends anything at all: it is a frame that makes sense, or an error that names what doesn't.
func FuzzClientFrame(f *testing.F) {
	g := newGateway(Config{}, newFakeHubs(), &fakeTopics{}, openAccess(f))
	for _, s := range []string{
		`{"type":"subscribe","id":"a","topics":["orders"],"keys":["k"],"types":["t"],"from":"-5m","format":"record","slow":"close"}`,
		`{"type":"unsubscribe","id":"a"}`, `{"type":"ping"}`, `[]`, `null`, `{"":1}`, `{"type":"subscribe","id":"\u0000","topics":["__x"]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		frame, err := parseFrame(text)
		var req request
		if err == nil && frame.Type == "subscribe" {
			req, err = frame.request(g, everything(t))
		}
		if err != nil {
			if p := problemOf(err); p.Status < 400 || p.Status >= 500 || p.Detail == "" {
				t.Errorf("%q: %v became %+v", text, err, p)
			}
			return
		}
		for _, topic := range req.Topics {
			if !stream.ValidTopic(topic) || stream.InternalTopic(topic) {
				t.Errorf("%q: topic %q is let in", text, topic)
			}
		}
		if pong, rest := unframe(t, webSocketFrames{id: frame.id()}.appendType(nil, "pong")); !json.Valid([]byte(pong)) || len(rest) > 0 {
			t.Errorf("%q is answered with %q", text, pong)
		}
	})
}

func everything(t testing.TB) *auth.Grant {
	t.Helper()
	grant, err := openAccess(t).Admit(nil)
	if err != nil {
		t.Fatal(err)
	}
	return grant
}
