//go:build integration

package browser

import (
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

// witness is a proxy that passes everything on as it comes and notes how what the gateway answers is compressed. It serves
// the page too.
type witness struct {
	url  string
	mu   sync.Mutex // guards what follows
	seen []string
}

func newWitness(t *testing.T, gateway *harness.Gateway) *witness {
	t.Helper()
	target, err := url.Parse(gateway.URL)
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{}
	mux := http.NewServeMux()
	mux.HandleFunc("/", harness.ServePage)
	mux.Handle("/v1/", &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ModifyResponse: func(r *http.Response) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen = append(w.seen, r.Header.Get("Content-Encoding")+r.Header.Get("Sec-WebSocket-Extensions"))
			return nil
		},
	})
	w.url = harness.Serve(t, mux)
	return w
}

// wantAll checks that every stream was compressed so, and that there were some.
func (w *witness) wantAll(t *testing.T, least int, want string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seen) < least || slices.ContainsFunc(w.seen, func(s string) bool { return s != want }) {
		t.Errorf("the gateway answered %q", w.seen)
	}
}

const (
	gzip    = "gzip"
	deflate = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
)

func compressing(t *testing.T, kafka *harness.Kafka, env ...string) *harness.Gateway {
	t.Helper()
	env = append(env, "STREAMGW_COMPRESSION_ENABLED=true")
	return harness.StartGateway(t, "gateway", harness.GatewayOptions{Brokers: kafka.Bootstrap, Env: env})
}

// atOnce is less than a heartbeat: what is held back until more comes takes longer.
const atOnce = 5 * time.Second

func TestEventSourceTakesGzip(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	producer := kafka.NewProducer(topic)
	gateway := compressing(t, kafka)
	w := newWitness(t, gateway)
	page := harness.OpenPage(t, w.url)
	page.Listen("/v1/events?topic=" + topic)

	l := harness.NewLedger()
	for n := range int64(5) {
		began := time.Now()
		producer.SendAll(1, 0)
		page.TakeTo(l, n+1)
		if took := time.Since(began); took > atOnce {
			t.Errorf("an event took %v", took)
		}
	}
	producer.SendAll(100, 0, 1, 2)
	page.TakeTo(l, 305)
	gateway.Kill()
	producer.SendAll(50, 0, 1, 2)
	gateway.Restart()
	page.TakeTo(l, 455)
	gateway.Terminate(20 * time.Second) // a stream that is ended, not cut
	producer.SendAll(50, 0, 1, 2)
	gateway.Start()
	gateway.WaitReady()
	if opened := page.TakeTo(l, 605); opened < 3 {
		t.Errorf("the EventSource opened %d times", opened)
	}
	w.wantAll(t, 3, gzip)
}

func TestABrowsersWebSocketTakesPermessageDeflate(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	producer := kafka.NewProducer(topic)
	producer.Size = 2000
	origin := harness.Serve(t, http.HandlerFunc(harness.ServePage))
	gateway := compressing(t, kafka, "STREAMGW_CORS_ORIGINS="+origin)
	page := harness.OpenPage(t, origin)
	page.Converse(strings.Replace(gateway.URL, "http", "ws", 1)+"/v1/ws", `{"type":"subscribe","id":"a","topics":["`+topic+`"]}`)
	if got := page.Extensions(); got != deflate {
		t.Errorf("the page's WebSocket has the extensions %q", got)
	}
	l := harness.NewLedger()
	for n := range int64(5) {
		producer.SendAll(1, 0)
		page.TakeTo(l, n+1)
	}
	producer.SendAll(200, 0, 1, 2)
	page.TakeTo(l, 605)
}

func TestNpmClientsTakeCompressedStreams(t *testing.T) {
	for name, tt := range map[string]struct{ script, path, want string }{
		"eventsource": {"eventsource.mjs", "/v1/events?refuse=stream&topic=", gzip},
		"ws":          {"ws.mjs", "/v1/ws?topic=", deflate},
	} {
		t.Run(name, func(t *testing.T) {
			kafka := harness.Brokers(t)
			topic := kafka.NewTopic(3)
			producer := kafka.NewProducer(topic)
			producer.Size = 2000
			gateway := compressing(t, kafka)
			w := newWitness(t, gateway)
			client := harness.StartNodeClient(t, tt.script, w.url+tt.path+topic)
			client.WaitOpened(1)
			producer.SendAll(1, 0)
			client.WaitCount(1)
			producer.SendAll(100, 0, 1, 2)
			client.WaitCount(301)
			gateway.Kill()
			producer.SendAll(50, 0, 1, 2)
			gateway.Restart()
			client.WaitCount(451)
			w.wantAll(t, 2, tt.want)
		})
	}
}
