//go:build integration

package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/test/harness"
)

// TestNoSecretIsWrittenDown uses tokens, tickets and cookies in every way, good and bad, and then searches the bodies and
// headers of answers. What the gateway writes by itself is searched at the end of each scenario that has an issuer.
func TestNoSecretIsWrittenDown(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(1)
	issuer := harness.NewIssuer(t, "  query: true\n  cookie: token\n")
	const origin = "https://app.example"
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{
		Brokers: kafka.Bootstrap, Issuer: issuer, Config: "cors: {origins: [\"" + origin + "\"]}\nlimits: {perSubject: 3}\n",
	})
	var said bytes.Buffer // what answers said
	other := harness.NewIssuer(t, "")
	tokens := map[string]string{
		"good": issuer.Token("ann", time.Hour), "of nobody known": issuer.Gave(other.Token("ann", time.Hour)), "expired": issuer.Token("ann", -time.Hour),
		"cut": issuer.Gave(issuer.Token("ann", time.Hour)[:150]), "long": issuer.Token("ann", time.Hour, "much", strings.Repeat("x", 20<<10)),
		"without subject": issuer.Token("", time.Hour), "malformed rules": issuer.Token("ann", time.Hour, "streamgw", "x"),
		"hostile": issuer.Gave("eyJhbGciOiJub25lIn0.eyJzZWNyZXQiOiJjYW5hcnkifQ.canary-of-a-signature"),
	}
	for name, token := range tokens {
		for _, request := range []struct{ path, header, value string }{
			{"/v1/events?topic=" + topic, "Authorization", "Bearer " + token},
			{"/v1/events?topic=" + topic, "Authorization", "Basic " + token},
			{"/v1/events?topic=" + topic + "&access_token=" + url.QueryEscape(token), "", ""},
			{"/v1/events?topic=none&access_token=" + url.QueryEscape(token), "", ""},
			{"/v1/events?topic=" + topic + "&wrong=1&access_token=" + url.QueryEscape(token), "", ""},
			{"/v1/events?topic=" + topic + "&ticket=" + url.QueryEscape(token), "", ""},
			{"/v1/events?topic=" + topic, "Cookie", "token=" + token},
			{"/v1/events?topic=" + topic, "Cookie", "streamgw-session=" + token},
			{"/v1/topics?access_token=" + url.QueryEscape(token), "", ""},
			{"/v1/topics/" + url.PathEscape(token), "Authorization", "Bearer " + token},
			{"/nowhere?access_token=" + url.QueryEscape(token), "", ""},
			{"/v1/ws?topic=" + topic + "&access_token=" + url.QueryEscape(token), "", ""},
		} {
			status, answer := ask(t, gateway.URL+request.path, request.header, request.value, origin)
			if name == "good" && request.header == "Authorization" && strings.HasPrefix(request.value, "Bearer") && strings.HasPrefix(request.path, "/v1/events") && status != 200 {
				t.Fatalf("a good token is answered with %d: %s", status, answer)
			}
			said.Write(answer)
		}
		speak(t, gateway.URL, topic, token, &said)
	}
	// Tickets, their cookies, and both when they are altered.
	token := issuer.Token("ann", time.Hour)
	resp := ticketOf(t, gateway.URL+"/v1/tickets", token)
	var ticket struct{ Ticket string }
	if err := json.NewDecoder(resp.Body).Decode(&ticket); err != nil || ticket.Ticket == "" {
		t.Fatal(resp.Status, err)
	}
	issuer.Gave(ticket.Ticket)
	for _, c := range resp.Cookies() {
		issuer.Gave(c.Value)
	}
	for _, sealed := range []string{ticket.Ticket, ticket.Ticket[:len(ticket.Ticket)-4] + "AAAA"} {
		_, answer := ask(t, gateway.URL+"/v1/events?topic="+topic+"&ticket="+sealed, "", "", origin)
		said.Write(answer)
	}
	for _, path := range []string{"/metrics", "/v1/connections", "/v1/hubs", "/readyz", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2"} {
		_, body, err := harness.Get(gateway.Admin + path)
		if err != nil {
			t.Fatal(err)
		}
		said.Write(body)
	}
	_, _ = do(t, http.MethodDelete, gateway.Admin+"/v1/connections?subject=ann", "")
	gateway.Terminate(20 * time.Second)
	log := gateway.Log()
	if !bytes.Contains(log, []byte("request refused")) || said.Len() < 10_000 {
		t.Fatalf("there is hardly anything to search: %d bytes of log, %d of answers", len(log), said.Len())
	}
	secrets := issuer.Secrets()
	if leaks := harness.Leaks(said.Bytes(), secrets); len(leaks) > 0 {
		t.Errorf("answers have %q", leaks)
	}
	t.Logf("%d secrets, in %d bytes of log and %d of answers", len(secrets), len(log), said.Len())
}

// ask returns what a request is answered with, its headers too, but for the cookie that is the client's to have.
func ask(t *testing.T, address, header, value, origin string) (status int, answer []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", origin)
	if header != "" {
		r.Header.Set(header, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // a stream goes on until ctx ends
	resp.Header.Del("Set-Cookie")
	return resp.StatusCode, fmt.Append(nil, resp.Header, string(body), "\n")
}

// speak brings a token over a WebSocket: as a subprotocol, and in a frame.
func speak(t *testing.T, address, topic, token string, said io.Writer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if c, resp, err := websocket.Dial(ctx, address+"/v1/ws?topic="+topic, &websocket.DialOptions{Subprotocols: []string{"streamgw.v1", "bearer." + token}}); err == nil {
		_, frame, _ := c.Read(ctx)
		fmt.Fprintln(said, resp.Header, string(frame))
		_ = c.CloseNow()
	} else if resp != nil {
		body, _ := io.ReadAll(resp.Body)
		fmt.Fprintln(said, resp.Header, string(body))
	}
	c, _, err := websocket.Dial(ctx, address+"/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, frame := range []string{`{"type":"auth","token":"` + token + `"}`, `{"type":"auth","token":"` + token, `{"type":"` + token + `"}`, `{"` + token + `":1,"type":"ping"}`, `{"type":"ping","id":"1"}`} {
		if err := c.Write(ctx, websocket.MessageText, []byte(frame)); err != nil {
			return
		}
		_, answer, err := c.Read(ctx)
		if err != nil {
			return
		}
		if !strings.Contains(frame, `"auth","token"`) {
			continue // what is no token's place may come back, shortened, as what isn't known
		}
		_, _ = said.Write(answer)
	}
}

func ticketOf(t *testing.T, address, token string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = harness.Bearer(token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}
