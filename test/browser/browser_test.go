//go:build integration

// Package browser shows that clients which we didn't write (the EventSource of a real browser, and the most used npm
// libraries for server-sent events and WebSocket) reconnect by themselves and miss nothing.
package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/goodgo/streamgw/test/harness"
)

// page keeps what its EventSource is given until the test takes it.
const page = `<!doctype html><title>events</title><script>
let got = [], gaps = [], opened = 0, source
function listen(url, credentials) {
  source = new EventSource(url)
  source.onopen = () => opened++
  source.onmessage = e => got.push({id: e.lastEventId, data: e.data})
  source.addEventListener('streamgw.gap', e => gaps.push(e.data))
  for (const forged of ['forged', 'error ']) source.addEventListener(forged, e => gaps.push('forged ' + e.data))
}
function take() { return {got: got.splice(0), gaps, opened, state: source.readyState} }
</script>`

// taken is what the page was given since it was last asked.
type taken struct {
	Got []struct {
		ID   string `json:"id"`
		Data string `json:"data"`
	} `json:"got"`
	Gaps   []string `json:"gaps"`
	Opened int      `json:"opened"`
	State  int      `json:"state"` // 2 is closed for good
}

// browser starts Chromium with the page open.
func browser(t *testing.T, address string) context.Context {
	t.Helper()
	harness.Prepare(t, "need", "chromium", "chromium")
	flags := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath("chromium"), chromedp.UserDataDir(t.TempDir()))
	for _, name := range []string{"no-sandbox", "disable-gpu", "disable-quic", "disable-component-update"} {
		flags = append(flags, chromedp.Flag(name, true))
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), flags...)
	t.Cleanup(cancel)
	tab, cancelTab := chromedp.NewContext(allocator)
	t.Cleanup(cancelTab)
	if err := chromedp.Do(tab, chromedp.Navigate(address)); err != nil {
		t.Fatal(err)
	}
	return tab
}

func evaluate[T any](t *testing.T, tab context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(tab, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// listen opens an EventSource in the page.
func listen(t *testing.T, tab context.Context, address string) {
	t.Helper()
	quoted, _ := json.Marshal(address)
	evaluate[bool](t, tab, fmt.Sprintf("listen(%s), true", quoted))
	harness.Until(t, 30*time.Second, "the EventSource is open", func() bool {
		return evaluate[int](t, tab, "source.readyState") == 1
	})
}

// take enters what has come into a ledger until it has count numbers, and returns how often the source has opened.
func take(t *testing.T, tab context.Context, l *harness.Ledger, count int64) (opened int) {
	t.Helper()
	harness.Until(t, time.Minute, fmt.Sprintf("the page has %d numbers", count), func() bool {
		got := evaluate[taken](t, tab, "take()")
		for _, e := range got.Got {
			n, err := harness.ParseNumber([]byte(e.Data))
			if err == nil {
				err = l.Take(n)
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.ID == "" {
				t.Fatalf("%s has no last event id", e.Data)
			}
		}
		if len(got.Gaps) > 0 {
			t.Fatalf("a gap where nothing was lost: %s", got.Gaps)
		}
		if got.State == 2 {
			t.Fatal("the EventSource has closed for good")
		}
		opened = got.Opened
		return l.Count() >= count
	})
	return opened
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func onlyPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, page)
}

// A page of another origin reads the gateway itself, which dies and comes back.
func TestEventSourceResumesOnARestartedGateway(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	producer := kafka.NewProducer(topic)
	origin := serve(t, http.HandlerFunc(onlyPage))
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{Brokers: kafka.Bootstrap, Env: []string{"STREAMGW_CORS_ORIGINS=" + origin}})
	tab := browser(t, origin)
	listen(t, tab, gateway.URL+"/v1/events?topic="+topic)

	l := harness.NewLedger()
	producer.SendAll(50, 0, 1, 2)
	take(t, tab, l, 150)
	gateway.Kill()
	producer.SendAll(50, 0, 1, 2)
	gateway.Restart()
	opened := take(t, tab, l, 300)
	producer.SendAll(1, 0, 1, 2)
	take(t, tab, l, 303)
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
	mux.HandleFunc("/", onlyPage)
	mux.Handle("/v1/", &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target.Load()) },
		FlushInterval: -1,
		// As a network does, and not a 502, after which an EventSource never comes back.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	})
	origin := serve(t, mux)
	tab := browser(t, origin)
	listen(t, tab, "/v1/events?topic="+topic)

	l := harness.NewLedger()
	producer.SendAll(50, 0, 1, 2)
	take(t, tab, l, 150)
	use(b)
	a.Kill()
	producer.SendAll(50, 0, 1, 2)
	if opened := take(t, tab, l, 300); opened < 2 {
		t.Errorf("the EventSource opened %d times: it never reconnected", opened)
	}
}

// What a record holds can't make a browser see another event, or another position.
func TestEventSourceIsNotForged(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(1)
	producer := kafka.NewProducer(topic)
	origin := serve(t, http.HandlerFunc(onlyPage))
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{Brokers: kafka.Bootstrap, Env: []string{"STREAMGW_CORS_ORIGINS=" + origin}})
	tab := browser(t, origin)
	listen(t, tab, gateway.URL+"/v1/events?event=type&topic="+topic)
	values := map[string]string{ // as written, and as the page sees it
		"one\rid: forged\revent: forged\r\rdata: two":     "one\nid: forged\nevent: forged\n\ndata: two",
		"one\nid: forged\nevent: forged\n\ndata: two":     "one\nid: forged\nevent: forged\n\ndata: two",
		"one\r\nid: forged\r\nevent: forged\r\n\r\ndata:": "one\nid: forged\nevent: forged\n\ndata:",
		"\r\n":          "\n",
		"":              "",
		" \ta ":         " \ta ",
		"ünï\u2028cödé": "ünï\u2028cödé",
	}
	for value, want := range values {
		producer.SendRaw(0, []byte("k\nid: forged\n\n"), []byte(value))
		producer.Flush()
		var got taken
		harness.Until(t, 30*time.Second, fmt.Sprintf("%q has come", value), func() bool {
			got = evaluate[taken](t, tab, "take()")
			return len(got.Got)+len(got.Gaps) > 0
		})
		if len(got.Got) != 1 || len(got.Gaps) != 0 || got.Got[0].Data != want || got.Got[0].ID == "forged" || got.Got[0].ID == "" {
			t.Errorf("%q came as %+v", value, got)
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
			waitOpened := func(n int) {
				t.Helper()
				harness.Until(t, time.Minute, fmt.Sprintf("%d connections were opened", n), func() bool {
					opened, err := client.Opened()
					if err != nil {
						t.Fatal(err)
					}
					return opened >= n
				})
			}
			waitCount := func(n int64) {
				t.Helper()
				harness.Until(t, time.Minute, fmt.Sprintf("%d numbers came", n), func() bool {
					if _, err := client.Opened(); err != nil {
						t.Fatal(err)
					}
					return client.Ledger.Count() >= n
				})
			}
			waitOpened(1)
			producer.SendAll(50, 0, 1, 2)
			waitCount(150)
			gateway.Kill()
			producer.SendAll(50, 0, 1, 2)
			gateway.Restart()
			waitCount(300)
			waitOpened(2)
			producer.SendAll(1, 0, 1, 2)
			waitCount(303)
		})
	}
}
