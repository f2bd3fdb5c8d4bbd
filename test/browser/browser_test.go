//go:build integration

// Package browser shows that clients which we didn't write (the EventSource of a real browser, and the most used npm
// libraries for server-sent events and WebSocket) reconnect by themselves and miss nothing.
package browser

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

// ofOtherOrigin returns a page whose EventSource reads a gateway directly.
func ofOtherOrigin(t *testing.T, kafka *harness.Kafka) (*harness.Page, *harness.Gateway) {
	t.Helper()
	origin := harness.Serve(t, http.HandlerFunc(harness.ServePage))
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{Brokers: kafka.Bootstrap, Env: []string{"STREAMGW_CORS_ORIGINS=" + origin}})
	return harness.OpenPage(t, origin), gateway
}

func TestEventSourceResumesOnARestartedGateway(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	producer := kafka.NewProducer(topic)
	page, gateway := ofOtherOrigin(t, kafka)
	page.Listen(gateway.URL + "/v1/events?topic=" + topic)

	l := harness.NewLedger()
	producer.SendAll(50, 0, 1, 2)
	page.TakeTo(l, 150)
	gateway.Kill()
	producer.SendAll(50, 0, 1, 2)
	gateway.Restart()
	opened := page.TakeTo(l, 300)
	producer.SendAll(1, 0, 1, 2)
	page.TakeTo(l, 303)
	if opened < 2 {
		t.Errorf("the EventSource opened %d times: it never reconnected", opened)
	}
}

// A page of the gateway's own origin, behind a proxy that goes to the other replica when one has died.
func TestEventSourceResumesOnTheOtherReplica(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	producer := kafka.NewProducer(topic)
	a := harness.StartGateway(t, "gateway-a", harness.GatewayOptions{Brokers: kafka.Bootstrap})
	b := harness.StartGateway(t, "gateway-b", harness.GatewayOptions{Brokers: kafka.Bootstrap})
	var target atomic.Pointer[url.URL]
	use := func(g *harness.Gateway) {
		u, err := url.Parse(g.URL)
		if err != nil {
			t.Fatal(err)
		}
		target.Store(u)
	}
	use(a)
	mux := http.NewServeMux()
	mux.HandleFunc("/", harness.ServePage)
	mux.Handle("/v1/", &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target.Load()) },
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		// As a network does, and not a 502, after which an EventSource never comes back.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	})
	page := harness.OpenPage(t, harness.Serve(t, mux))
	page.Listen("/v1/events?topic=" + topic)

	l := harness.NewLedger()
	producer.SendAll(50, 0, 1, 2)
	page.TakeTo(l, 150)
	use(b)
	a.Kill()
	producer.SendAll(50, 0, 1, 2)
	if opened := page.TakeTo(l, 300); opened < 2 {
		t.Errorf("the EventSource opened %d times: it never reconnected", opened)
	}
}

// What a record holds can't make a browser see another event, or another position.
func TestEventSourceIsNotForged(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(1)
	producer := kafka.NewProducer(topic)
	page, gateway := ofOtherOrigin(t, kafka)
	page.Listen(gateway.URL + "/v1/events?event=type&topic=" + topic)
	for value, want := range map[string]string{ // as written, and as the page sees it
		"one\rid: forged\revent: forged\r\rdata: two":     "one\nid: forged\nevent: forged\n\ndata: two",
		"one\nid: forged\nevent: forged\n\ndata: two":     "one\nid: forged\nevent: forged\n\ndata: two",
		"one\r\nid: forged\r\nevent: forged\r\n\r\ndata:": "one\nid: forged\nevent: forged\n\ndata:",
		"\r\n":          "\n",
		"":              "",
		" \ta ":         " \ta ",
		"ünï\u2028cödé": "ünï\u2028cödé",
	} {
		producer.SendRaw(0, []byte("k\nid: forged\n\n"), []byte(value))
		producer.Flush()
		var taken harness.Taken
		harness.Until(t, 30*time.Second, fmt.Sprintf("%q has come", value), func() bool {
			taken = page.Take()
			return len(taken.Got)+len(taken.Others) > 0
		})
		if len(taken.Got) != 1 || len(taken.Others) != 0 || taken.Got[0].Data != want || taken.Got[0].ID == "forged" || taken.Got[0].ID == "" {
			t.Errorf("%q came as %+v", value, taken)
		}
	}
}

func TestNpmClientsResumeOnARestartedGateway(t *testing.T) {
	for name, tt := range map[string]struct{ script, path string }{
		"eventsource": {"eventsource.mjs", "/v1/events?refuse=stream&topic="},
		"ws":          {"ws.mjs", "/v1/ws?topic="},
	} {
		t.Run(name, func(t *testing.T) {
			kafka := harness.Brokers(t)
			topic := kafka.NewTopic(3)
			producer := kafka.NewProducer(topic)
			gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{Brokers: kafka.Bootstrap})
			client := harness.StartNodeClient(t, tt.script, gateway.URL+tt.path+topic)
			client.WaitOpened(1)
			producer.SendAll(50, 0, 1, 2)
			client.WaitCount(150)
			gateway.Kill()
			producer.SendAll(50, 0, 1, 2)
			gateway.Restart()
			client.WaitCount(300)
			client.WaitOpened(2)
			producer.SendAll(1, 0, 1, 2)
			client.WaitCount(303)
		})
	}
}
