package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// tokenBack returns a token of ann's that lets one key of a topic be read, so far back.
func (d *door) tokenBack(t *testing.T, topic, history string) string {
	t.Helper()
	now := d.Now()
	token, err := d.key.Sign(map[string]any{
		"iss": testIssuer, "aud": "streamgw", "sub": "ann", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"streamgw": map[string]any{"subscribe": []any{map[string]any{"topic": topic, "keys": []string{"a"}, "history": history}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestARenewedTokenGoesNoFurtherBack than it grants, also where a replay is under way.
func TestARenewedTokenGoesNoFurtherBack(t *testing.T) {
	d := newDoor(t, nil)
	f := guarded["taken over"](t, Config{}, d)
	ws := f.dialAs(t, "?topic=rows&from=earliest", d.tokenBack(t, "rows", "720h"))
	ws.want(`{"type":"subscribed","position":"P0"}`)
	f.sub(t, 0).pass(stream.NewPosition(stream.Incarnation{1}, "rows", 7).String())
	for n, tt := range []struct {
		history string
		asked   int
	}{{"720h", 1}, {"1h", 2}, {"1h", 2}, {"0s", 3}} {
		ws.send(authFrame(d.tokenBack(t, "rows", tt.history)))
		ws.wantAuthenticated()
		f.hubs.mu.Lock()
		asked := len(f.hubs.requests)
		f.hubs.mu.Unlock()
		if asked != tt.asked {
			t.Errorf("%d: %s back: %d subscriptions so far, want %d", n, tt.history, asked, tt.asked)
		}
		f.sub(t, asked-1).pass(stream.NewPosition(stream.Incarnation{1}, "rows", 7).String())
	}
	if since := f.hubs.request(2).Bounds[0].Since; time.Since(since) > time.Minute {
		t.Errorf("it goes back to %s", since)
	}
}

// TestAQuerysSubscriptionThatCantGoOnEndsItsConnection: nothing would come on it any more, and nobody would know.
func TestAQuerysSubscriptionThatCantGoOnEndsItsConnection(t *testing.T) {
	d := newDoor(t, nil)
	f := guarded["taken over"](t, Config{}, d)
	ws := f.dialAs(t, "?topic=rows", d.token(t, "ann", time.Hour, "rows=a"))
	ws.want(`{"type":"subscribed","position":"P0"}`)
	f.sub(t, 0).pass(stream.NewPosition(stream.Incarnation{1}, "rows", 7).String())
	f.hubs.mu.Lock()
	f.hubs.refusal = stream.Errorf(stream.TooMany, "too many replays")
	f.hubs.mu.Unlock()
	ws.send(authFrame(d.token(t, "ann", time.Hour, "rows=b")))
	ws.wantProblem("", "too-many", "", "replays")
	ws.wantClose(1013)
}

// TestAnEndThatIsBroughtForward comes at its time, not with the next heartbeat.
func TestAnEndThatIsBroughtForward(t *testing.T) {
	for driven, newFace := range guarded {
		t.Run(driven, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, nil)
			f := newFace(t, Config{Heartbeat: 5 * time.Minute}, d)
			ws := f.dialAs(t, "?topic=orders", d.token(t, "ann", time.Hour, "orders"))
			ws.want(`{"type":"subscribed","position":"P0"}`)
			ws.send(authFrame(d.token(t, "ann", 6*time.Second, "orders")))
			ws.wantAuthenticated()
			for {
				if frame := ws.next(); len(frame) > 20 && frame[:20] == `{"type":"error","pro` {
					break
				}
			}
			ws.wantClose(closeToken)
		})
	}
}

func TestFramesThatCostSomethingHaveABudget(t *testing.T) {
	d := newDoor(t, nil)
	registry := prometheus.NewRegistry()
	f := guarded["taken over"](t, Config{Metrics: registry}, d)
	ws := f.dialAs(t, "", d.token(t, "ann", time.Hour, "orders"))
	token := d.token(t, "ann", time.Hour, "orders")
	const sent = 200
	for range sent {
		ws.send(authFrame(token))
	}
	taken := 0
	for range sent {
		if frame := ws.next(); len(frame) > 24 && frame[:24] == `{"type":"authenticated",` {
			taken++
		}
	}
	if refused := metric(t, registry, "streamgw_limited_total", "frames"); taken < frameBurst/10 || taken == sent || refused != float64(sent-taken) {
		t.Errorf("%d of %d were taken, %v counted as too many", taken, sent, refused)
	}
}

// TestWithoutATokenAWebSocketLearnsNothing, and doesn't ask for long.
func TestWithoutATokenAWebSocketLearnsNothing(t *testing.T) {
	d := newDoor(t, nil)
	f := guarded["taken over"](t, Config{Served: func(topic string) bool { return topic == "orders" }}, d)
	ws := f.dialAs(t, "", "")
	for i := range maxStrikes {
		ws.send(fmt.Sprintf(`{"type":"subscribe","id":"a","topics":[%q]}`, []string{"orders", "others", "__consumer_offsets", "*"}[i%4]))
		ws.wantProblem("a", "unauthorized", "", "auth frame")
	}
	ws.send(`{"type":"subscribe","id":"a","topics":["orders"]}`)
	ws.wantProblem("", "bad-request", "", "made no sense")
	ws.wantClose(1008)
}

func TestTopicsCountUnderTheLimits(t *testing.T) {
	d := newDoor(t, nil)
	f := faceOf(t, Config{Limits: Limits{ConnectRate: 0.1}}, d.Access)
	for i, want := range []int{http.StatusUnauthorized, http.StatusTooManyRequests} {
		if resp := get(t, f.url+"/v1/topics", bearer("guessed")...); resp.StatusCode != want {
			t.Errorf("request %d: %s", i, resp.Status)
		}
	}
}

// TestAPanicEndsALoopsConnectionAlone, and all of it.
func TestAPanicEndsALoopsConnectionAlone(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := newPlainFace(t, Config{Metrics: registry})
	ws, other := f.dial(t, "?topic=orders"), f.dial(t, "?topic=orders")
	ws.want(`{"type":"subscribed","position":"P0"}`)
	f.sub(t, 0).fail(errPanic)
	ws.wantClose(1011)
	sse := get(t, f.url+"/v1/events?topic=orders")
	f.sub(t, 2).fail(errPanic)
	eventually(t, "they are counted out", func() bool {
		return metric(t, registry, "streamgw_connections", "websocket") == 1 && metric(t, registry, "streamgw_connections", "sse") == 0
	})
	sse.Body.Close()
	other.want(`{"type":"subscribed","position":"P0"}`)
	f.sub(t, 1).push(wsItem("1", 1))
	if frame := other.next(); frame == "" {
		t.Error("the other has nothing")
	}
}

// TestAMessageThatOutlivesItsTokenIsBroken: its client must not take half of it for a whole.
func TestAMessageThatOutlivesItsTokenIsBroken(t *testing.T) {
	d := newDoor(t, nil)
	f := guarded["by loops"](t, Config{}, d)
	big := strings.Repeat("x", 16<<20)
	for _, accept := range []string{ndjsonType, sseType} {
		n, token := len(f.hubs.requests), d.token(t, "ann", 3*time.Second, "orders")
		resp := get(t, f.url+"/v1/events?topic=orders", append(bearer(token), "Accept", accept)...)
		f.sub(t, n).push(item(big, 1)) // of which the client takes nothing yet
		eventually(t, "the token has ended", func() bool { _, err := d.AdmitToken(t.Context(), token); return err != nil })
		if body, err := io.ReadAll(resp.Body); err == nil || len(body) >= len(big) {
			t.Errorf("%s: %d bytes, %v", accept, len(body), err)
		}
	}
}
