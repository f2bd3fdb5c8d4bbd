package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

const testIssuer = "https://id.example"

// door is an access that asks for tokens, and who makes them.
type door struct {
	*auth.Access
	key auth.Mint
}

// newDoor returns one without skew. Its clock is time.Now unless now says another.
func newDoor(t testing.TB, now func() time.Time) *door {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	d := &door{key: auth.Mint{SecretFile: file("secret", strings.Repeat("s", 48))}}
	var err error
	d.Access, err = auth.New(auth.Config{
		Mode: auth.JWT, Issuers: []auth.Issuer{{Issuer: testIssuer, Audience: []string{"streamgw"}, SecretFile: d.key.SecretFile}},
		Verifier: auth.VerifierConfig{ClockSkew: -1, Now: now}, Query: true, TicketSecretFile: file("tickets", strings.Repeat("t", 48)),
		Origins: []string{"https://app.example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// token returns one of a subject that is good for some time, with a rule for each topic: orders, or orders=key.
func (d *door) token(t testing.TB, subject string, lasts time.Duration, topics ...string) string {
	t.Helper()
	var rules []map[string]any
	for _, topic := range topics {
		name, key, keyed := strings.Cut(topic, "=")
		rule := map[string]any{"topic": name}
		if keyed {
			rule["keys"] = []string{key}
		}
		rules = append(rules, rule)
	}
	now := d.Now()
	token, err := d.key.Sign(map[string]any{
		"iss": testIssuer, "aud": "streamgw", "sub": subject, "jti": "id-of-" + subject, "iat": now.Unix(), "exp": now.Add(lasts).Unix(),
		"streamgw": map[string]any{"subscribe": rules},
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// guarded are the ways to drive connections of a gateway that asks for tokens.
var guarded = map[string]func(*testing.T, Config, *door) *face{
	"by loops": func(t *testing.T, cfg Config, d *door) *face { return faceOf(t, cfg, d.Access) },
	"taken over": func(t *testing.T, cfg Config, d *door) *face {
		f := faceOf(t, cfg, d.Access)
		f.running(t)
		return f
	},
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

func (f *face) dialAs(t *testing.T, query, token string) *wsClient {
	t.Helper()
	h := http.Header{}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	c, _, err := websocket.Dial(t.Context(), f.url+"/v1/ws"+query, &websocket.DialOptions{Subprotocols: []string{subprotocol}, HTTPHeader: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return &wsClient{c, t}
}

func wantStatus(t *testing.T, resp *http.Response, status int, says string) {
	t.Helper()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != status || !strings.Contains(string(body), says) {
		t.Errorf("%s: %d %s, want %d with %q", resp.Request.URL.Path, resp.StatusCode, body, status, says)
	}
	if status == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Error("a 401 doesn't say how (RFC 6750 section 3)")
	}
}

func TestWithoutATokenThereIsNothing(t *testing.T) {
	d := newDoor(t, nil)
	f := faceOf(t, Config{}, d.Access)
	handshake := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
	for path, headers := range map[string][]string{
		"/v1/events?topic=orders": nil, "/v1/topics": nil, "/v1/ws?topic=orders": handshake, "/v1/events?topic=orders&access_token=x": nil,
	} {
		wantStatus(t, get(t, f.url+path, headers...), http.StatusUnauthorized, "token")
	}
	resp, err := http.Post(f.url+"/v1/tickets", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	wantStatus(t, resp, http.StatusUnauthorized, "token")
	if n := len(f.hubs.requests); n > 0 {
		t.Errorf("%d of them reached the hubs", n)
	}
}

func TestAGrantBoundsARequest(t *testing.T) {
	d := newDoor(t, nil)
	f := faceOf(t, Config{}, d.Access)
	token := d.token(t, "ann", time.Hour, "orders=ann", "news")
	for query, want := range map[string]struct {
		status int
		says   string
	}{
		"topic=orders":                    {200, ""},
		"topic=orders&key=ann":            {200, ""},
		"topic=orders&key=ann&key=bob":    {200, ""},
		"topic=orders&key=bob":            {403, `"field":"key"`},
		"topic=news&key=bob":              {200, ""},
		"topic=orders&topic=news":         {200, ""},
		"topic=orders&topic=news&key=bob": {403, `"field":"key"`},
		"topic=secret":                    {403, `"field":"topic"`},
		"topic=orders&topic=secret":       {403, `"field":"topic"`},
		"topic=__consumer_offsets":        {404, ""},
		"topic=orders&from=earliest":      {200, ""},
	} {
		resp := get(t, f.url+"/v1/events?"+query, bearer(token)...)
		if resp.StatusCode == 200 && want.status == 200 {
			continue
		}
		wantStatus(t, resp, want.status, want.says)
	}
	for _, req := range f.hubs.requests {
		for i, topic := range req.Topics {
			rows := req.Filter
			if req.Bounds != nil {
				rows = stream.And(rows, req.Bounds[i].Filter)
			}
			if topic == "orders" && !slices.Equal(rows.Keys, []string{"ann"}) || topic == "news" && !slices.Equal(rows.Keys, req.Filter.Keys) {
				t.Errorf("%v of %s lets through %s", req.Filter, topic, rows)
			}
		}
		if req.Owner != testIssuer+"\x00ann" {
			t.Errorf("the owner is %q", req.Owner)
		}
	}
}

// TestAStreamEndsWithItsToken on a clock of its own: the notice before, nothing after.
func TestAStreamEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, nil)
		n := guardedNetwork(t, Config{}, d.Access)
		client := &http.Client{Transport: n.transport(t, 0)}
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://gateway/v1/events?topic=orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		token := d.token(t, "ann", 10*time.Minute, "orders")
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		begun, exp := time.Now(), time.Now().Add(10*time.Minute).Truncate(time.Second)
		var mu sync.Mutex
		at := map[string]time.Duration{} // when each block came first
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			lines := bufio.NewScanner(resp.Body)
			for lines.Scan() {
				mu.Lock()
				if _, came := at[lines.Text()]; !came {
					at[lines.Text()] = time.Since(begun)
				}
				mu.Unlock()
			}
		}()
		sub := n.hubs.sub(0)
		for i := range 24 * 60 {
			time.Sleep(500 * time.Millisecond)
			sub.push(item(fmt.Sprint(i), i+1))
		}
		<-ended
		mu.Lock()
		defer mu.Unlock()
		wantAt := func(line string, from, to time.Duration) {
			t.Helper()
			if got, came := at[line]; !came || got < from || got > to {
				t.Errorf("%q came after %s (%v), want from %s to %s", line, got, came, from, to)
			}
		}
		lasts := exp.Sub(begun)
		wantAt("event: streamgw.expiring", lasts-time.Minute, lasts-time.Minute+time.Second)
		wantAt(`data: {"expires":"`+exp.UTC().Format(time.RFC3339)+`"}`, lasts-time.Minute, lasts-time.Minute+time.Second)
		wantAt("event: streamgw.error", lasts, lasts+time.Second)
		last := time.Duration(0)
		for line, when := range at {
			if strings.HasPrefix(line, "id: P") {
				last = max(last, when)
			}
		}
		if last > lasts || last < lasts-time.Second {
			t.Errorf("the last event came after %s, the token lasted %s", last, lasts)
		}
	})
}

// TestTokensEndInRealTime: on real connections, of each kind.
func TestTokensEndInRealTime(t *testing.T) {
	for driven, newFace := range guarded {
		t.Run(driven, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, nil)
			f := newFace(t, Config{Heartbeat: 400 * time.Millisecond}, d)
			token := d.token(t, "ann", 2*time.Second, "orders")
			exp := time.Now().Add(2 * time.Second)
			resp := get(t, f.url+"/v1/events?topic=orders", bearer(token)...)
			f.sub(t, 0)
			ws := f.dialAs(t, "?topic=orders", token)
			sub := f.sub(t, 1)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if time.Now().Before(exp.Add(-time.Second - 100*time.Millisecond)) {
				t.Errorf("the stream ended %s before its token", time.Until(exp))
			}
			for _, want := range []string{"event: streamgw.expiring\n", "event: streamgw.error\n", "urn:streamgw:problem:unauthorized"} {
				if !strings.Contains(string(body), want) {
					t.Errorf("%q isn't in %q", want, body)
				}
			}
			ws.want(`{"type":"subscribed","position":"P0"}`)
			if frame := ws.next(); !strings.HasPrefix(frame, `{"type":"expiring","expires":"`) {
				t.Errorf("got %s", frame)
			}
			ws.wantProblem("", "unauthorized", "", "expired")
			ws.wantClose(closeToken)
			<-sub.closed
			eventually(t, "no lease is left", func() bool { n := 0; f.leases.each(func(*lease) { n++ }); return n == 0 })
			wantStatus(t, get(t, f.url+"/v1/events?topic=orders", bearer(token)...), http.StatusUnauthorized, "expired")
		})
	}
}

// TestATokenForThousandsOfYears lasts longer than nanoseconds count.
func TestATokenForThousandsOfYears(t *testing.T) {
	d := newDoor(t, nil)
	f := guarded["taken over"](t, Config{}, d)
	token, err := d.key.Sign(map[string]any{
		"iss": testIssuer, "aud": "streamgw", "sub": "ann", "exp": int64(253402300799),
		"streamgw": map[string]any{"subscribe": []any{map[string]any{"topic": "orders"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ws := f.dialAs(t, "?topic=orders", token)
	ws.want(`{"type":"subscribed","position":"P0"}`)
	f.sub(t, 0).push(wsItem("1", 1))
	if frame := ws.next(); !strings.Contains(frame, `"event":1`) {
		t.Errorf("got %s", frame)
	}
}

func authFrame(token string) string { return `{"type":"auth","token":"` + token + `"}` }

func (c *wsClient) wantAuthenticated() {
	c.t.Helper()
	if frame := c.next(); !strings.HasPrefix(frame, `{"type":"authenticated","expires":"`) {
		c.t.Errorf("got %s", frame)
	}
}

func TestAWebSocketRenewsItsToken(t *testing.T) {
	for driven, newFace := range guarded {
		t.Run(driven, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, nil)
			f := newFace(t, Config{Heartbeat: 400 * time.Millisecond}, d)
			first := d.token(t, "ann", 3*time.Second, "orders", "news", "rows=a")
			ws := f.dialAs(t, "", first)
			for i, topic := range []string{"orders", "news", "rows"} {
				ws.send(fmt.Sprintf(`{"type":"subscribe","id":"%s","topics":["%s"]}`, topic, topic))
				ws.want(fmt.Sprintf(`{"type":"subscribed","position":"P0","id":"%s"}`, topic))
				f.sub(t, i)
			}
			f.hubs.sub(2).pass(stream.NewPosition(stream.Incarnation{1}, "rows", 7).String())
			ws.send(authFrame("bad"))
			ws.wantProblem("", "unauthorized", "", "JWT")
			ws.send(authFrame(d.token(t, "bob", time.Hour, "orders")))
			ws.wantProblem("", "forbidden", "", "another subject's")
			ws.send(authFrame(d.token(t, "ann", time.Hour, "orders", "rows=b")))
			ws.wantProblem("news", "forbidden", "topics", "news")
			ws.wantAuthenticated()
			<-f.hubs.sub(1).closed
			<-f.hubs.sub(2).closed
			again := f.hubs.request(3)
			if p := again.From.Position; p == nil || p.String() != stream.NewPosition(stream.Incarnation{1}, "rows", 7).String() {
				t.Errorf("other rows go on from %v", p)
			}
			if rows := again.Bounds[0].Filter; !slices.Equal(rows.Keys, []string{"b"}) {
				t.Errorf("the rows are now %s", rows)
			}
			eventually(t, "the first token has ended", func() bool { _, err := d.AdmitToken(t.Context(), first); return err != nil })
			orders := f.hubs.sub(0)
			orders.push(wsItem("1", 1))
			if frame := ws.next(); !strings.Contains(frame, `"event":1`) {
				t.Errorf("got %s", frame)
			}
			f.hubs.sub(3).push(wsItem("2", 2))
			if frame := ws.next(); !strings.Contains(frame, `"event":2`) || !strings.Contains(frame, `"id":"rows"`) {
				t.Errorf("got %s", frame)
			}
		})
	}
}

func TestTheQuerysOwnSubscriptionIsLostWithItsConnection(t *testing.T) {
	d := newDoor(t, nil)
	f := guarded["taken over"](t, Config{}, d)
	ws := f.dialAs(t, "?topic=orders", d.token(t, "ann", time.Hour, "orders"))
	ws.want(`{"type":"subscribed","position":"P0"}`)
	ws.send(authFrame(d.token(t, "ann", time.Hour, "news")))
	ws.wantProblem("", "forbidden", "topic", "orders")
	ws.wantClose(closeNotAllowed)
}

// TestTheQuerysOwnSubscriptionTakesOtherRows while events come: the writer looks at what is replaced.
func TestTheQuerysOwnSubscriptionTakesOtherRows(t *testing.T) {
	for driven, newFace := range guarded {
		t.Run(driven, func(t *testing.T) {
			d := newDoor(t, nil)
			f := newFace(t, Config{}, d)
			ws := f.dialAs(t, "?topic=rows", d.token(t, "ann", time.Hour, "rows=a"))
			ws.want(`{"type":"subscribed","position":"P0"}`)
			position := stream.NewPosition(stream.Incarnation{1}, "rows", 7).String()
			for n := range 20 {
				sub := f.sub(t, n)
				sub.pass(position)
				pushed := make(chan struct{})
				go func() {
					defer close(pushed)
					for range 20 {
						sub.req.Waker.Wake()
					}
				}()
				ws.send(authFrame(d.token(t, "ann", time.Hour, fmt.Sprint("rows=", n))))
				ws.wantAuthenticated()
				<-pushed
				<-sub.closed
			}
			f.sub(t, 20).push(wsItem("1", 1))
			if frame := ws.next(); !strings.Contains(frame, `"event":1`) {
				t.Errorf("got %s", frame)
			}
		})
	}
}

func TestAWebSocketBringsItsTokenInAFrame(t *testing.T) {
	for driven, newFace := range guarded {
		t.Run(driven, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, nil)
			f := newFace(t, Config{AuthTimeout: time.Second, Heartbeat: 200 * time.Millisecond}, d)
			late, ws := f.dialAs(t, "", ""), f.dialAs(t, "", "")
			subscribe := `{"type":"subscribe","id":"a","topics":["orders"]}`
			ws.send(subscribe)
			ws.wantProblem("a", "unauthorized", "", "auth frame")
			ws.send(authFrame("bad"))
			ws.wantProblem("", "unauthorized", "", "JWT")
			ws.send(`{"type":"auth"}`)
			ws.wantProblem("", "bad-request", "token", "missing")
			ws.send(authFrame(d.token(t, "ann", time.Hour, "orders")))
			ws.wantAuthenticated()
			ws.send(subscribe)
			ws.want(`{"type":"subscribed","position":"P0","id":"a"}`)
			late.wantProblem("", "unauthorized", "", "no auth frame")
			late.wantClose(closeToken)
			f.sub(t, 0).push(wsItem("1", 1))
			if frame := ws.next(); !strings.Contains(frame, `"event":1`) {
				t.Errorf("got %s", frame)
			}
		})
	}
}

func TestOnlyTheProtocolIsEchoed(t *testing.T) {
	d := newDoor(t, nil)
	f := guarded["taken over"](t, Config{}, d)
	token := d.token(t, "ann", time.Hour, "orders")
	c, resp, err := websocket.Dial(t.Context(), f.url+"/v1/ws?topic=orders", &websocket.DialOptions{Subprotocols: []string{"bearer." + token, subprotocol}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if got := resp.Header.Values("Sec-WebSocket-Protocol"); !slices.Equal(got, []string{subprotocol}) {
		t.Errorf("echoed %q", got)
	}
}

func TestStreamsOfASubjectAreBounded(t *testing.T) {
	d := newDoor(t, nil)
	registry := prometheus.NewRegistry()
	f := faceOf(t, Config{Limits: Limits{PerSubject: 2}, Metrics: registry}, d.Access)
	ann := d.token(t, "ann", time.Hour, "orders")
	first := get(t, f.url+"/v1/events?topic=orders", bearer(ann)...)
	ws := f.dialAs(t, "", "")
	ws.send(authFrame(ann))
	ws.wantAuthenticated()
	resp := get(t, f.url+"/v1/events?topic=orders", bearer(d.token(t, "ann", time.Minute, "orders"))...)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	wantStatus(t, resp, http.StatusTooManyRequests, "subject")
	other := f.dialAs(t, "", "")
	other.send(authFrame(ann))
	other.wantProblem("", "too-many", "", "subject")
	if get(t, f.url+"/v1/events?topic=orders", bearer(d.token(t, "bob", time.Hour, "orders"))...).StatusCode != http.StatusOK {
		t.Error("another subject is refused")
	}
	if n := metric(t, registry, "streamgw_limited_total", "perSubject"); n != 2 {
		t.Errorf("%v were counted as over the limit", n)
	}
	first.Body.Close()
	eventually(t, "another stream of ann's", func() bool {
		return get(t, f.url+"/v1/events?topic=orders", bearer(ann)...).StatusCode == http.StatusOK
	})
}
