//go:build integration

// Package traefik shows that streams pass a real Traefik, configured by the repository's own files, as they leave the
// gateway, and that its clients go on at the other replica when one dies.
package traefik

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

// behind is two gateways behind Traefik.
type behind struct {
	url  string
	a, b *harness.Gateway
}

func start(t *testing.T, kafka *harness.Kafka, env ...string) behind {
	t.Helper()
	options := harness.GatewayOptions{Brokers: kafka.Bootstrap, Env: env}
	w := behind{a: harness.StartGateway(t, "gateway-a", options), b: harness.StartGateway(t, "gateway-b", options)}
	address := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	w.url = "http://" + address
	files := filepath.Join(harness.Root(t), "traefik")
	// Only what a container has of its own differs from the file: its port and where it mounts the other file.
	static := replace(t, filepath.Join(files, "traefik.yml"), map[string]string{
		`":80"`:                    `"` + address + `"`,
		"/etc/traefik/dynamic.yml": filepath.Join(files, "dynamic.yml"),
	})
	harness.StartProcess(t, "traefik", []string{"GATEWAY_1=" + w.a.URL, "GATEWAY_2=" + w.b.URL},
		harness.Prepare(t, "traefik"), "--configFile="+static)
	harness.Until(t, 30*time.Second, "Traefik leads to both gateways", func() bool {
		status, _, err := harness.Get(w.url + "/v1/topics")
		return err == nil && status == http.StatusOK
	})
	return w
}

// waitRouted waits until Traefik leads to a gateway again: its health check has noticed that it is back.
func (w behind) waitRouted(t *testing.T, g *harness.Gateway, topic string) {
	t.Helper()
	before := g.Metrics().Sum("streamgw_connections")
	harness.Until(t, 30*time.Second, "Traefik leads to the gateway that is back", func() bool {
		r := harness.OpenReader(t, harness.OverWebSocket, harness.Dial{URL: w.url, Query: harness.Topics([]string{topic})}, harness.NewLedger())
		defer r.Close()
		return g.Metrics().Sum("streamgw_connections") > before
	})
}

// replace copies a file with some of its texts replaced, each of which it must have.
func replace(t *testing.T, file string, texts map[string]string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := string(content)
	for old, text := range texts {
		if !strings.Contains(s, old) {
			t.Fatalf("%s has no %s", file, old)
		}
		s = strings.ReplaceAll(s, old, text)
	}
	name := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestClientsResumeThroughTraefik(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(6)
	w := start(t, kafka)
	var clients []*harness.Client
	for i := range 40 {
		clients = append(clients, &harness.Client{
			Name: fmt.Sprintf("client %d", i), Transport: harness.Transports()[i%2], Targets: []string{w.url},
			Query: harness.Topics([]string{topic}, "from=earliest"), Ledger: harness.NewLedger(), Rand: rand.New(rand.NewPCG(11, uint64(i))),
		})
	}
	crowd := harness.StartCrowd(t, clients...)
	crowd.WaitStanding(time.Minute)
	producer := kafka.NewProducer(topic)
	written := make(chan struct{})
	go func() {
		defer close(written)
		producer.SendAt(t.Context(), 6, 300, 15*time.Second)
	}()
	flowing := func(events int64) {
		t.Helper()
		harness.Until(t, time.Minute, fmt.Sprintf("%d events flow to each client", events), func() bool {
			crowd.Check()
			return crowd.Deliveries() > events*int64(len(clients))
		})
	}
	flowing(1000)
	w.a.Kill()
	flowing(2000)
	w.a.Restart()
	flowing(3000)
	w.b.Terminate(20 * time.Second)
	<-written
	producer.Flush()
	kafka.CheckLog(topic, producer.Sent())
	crowd.WaitCount(producer.Sent(), time.Minute)
	tally := crowd.Tally()
	t.Logf("%d deliveries over %d connections, %d broken by a gateway's end, %d resumed, %d refused", crowd.Deliveries(), tally.Connected, tally.Broken, tally.Resumed, tally.Refused)
	if tally.Broken < len(clients) || tally.Resumed == 0 {
		t.Errorf("with each gateway half of the streams should have ended: %+v", tally)
	}
}

func TestBytesPassTraefikAtOnce(t *testing.T) {
	const atOnce = 2 * time.Second // a proxy that buffers holds them for as long as nothing more comes
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(1)
	producer := kafka.NewProducer(topic)
	w := start(t, kafka)
	for _, transport := range harness.Transports() {
		began := time.Now()
		r := harness.OpenReader(t, transport, harness.Dial{URL: w.url, Query: harness.Topics([]string{topic}, "from=earliest")}, harness.NewLedger())
		if took := time.Since(began); took > atOnce {
			t.Errorf("%s: the first byte took %v", transport, took)
		}
		r.Take(int(producer.Sent()))
		for range 5 {
			began := time.Now()
			producer.SendAll(1, 0)
			r.Take(1)
			if took := time.Since(began); took > atOnce {
				t.Errorf("%s: an event took %v", transport, took)
			}
		}
		r.Close()
	}
}

// Traefik passes compressed streams on as they are: it neither holds them back until more comes nor packs them anew.
func TestCompressedBytesPassTraefikAtOnce(t *testing.T) {
	const atOnce = 2 * time.Second
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(1)
	producer := kafka.NewProducer(topic)
	w := start(t, kafka, "STREAMGW_COMPRESSION_ENABLED=true")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/v1/events?topic="+topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("Content-Encoding is %q", got)
	}
	unpacked, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(unpacked)
	for n := range 5 {
		began := time.Now()
		producer.SendAll(1, 0)
		want := fmt.Sprintf(`"n":%d`, n)
		for lines.Scan() && !strings.Contains(lines.Text(), want) {
		}
		if took := time.Since(began); lines.Err() != nil || took > atOnce {
			t.Errorf("an event took %v, %v", took, lines.Err())
		}
	}
	for name, url := range map[string]string{"eventsource.mjs": "/v1/events?refuse=stream&from=earliest&topic=", "ws.mjs": "/v1/ws?from=earliest&topic="} {
		client := harness.StartNodeClient(t, name, w.url+url+topic)
		client.WaitCount(5)
	}
}

func TestOnlyStreamsAreRouted(t *testing.T) {
	w := start(t, harness.Brokers(t))
	for _, path := range []string{"/metrics", "/livez", "/debug/pprof/", "/v1/hubs", "/v1/connections"} {
		if status, body, err := harness.Get(w.url + path); err != nil || status != http.StatusNotFound {
			t.Errorf("%s: %d, %v: %.100s", path, status, err, body)
		}
	}
}

// An EventSource never comes back after a 502, so Traefik must not answer one while a gateway is gone.
func TestEventSourceResumesThroughTraefik(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	producer := kafka.NewProducer(topic)
	origin := harness.Serve(t, http.HandlerFunc(harness.ServePage))
	w := start(t, kafka, "STREAMGW_CORS_ORIGINS="+origin)
	page := harness.OpenPage(t, origin)
	page.Listen(w.url + "/v1/events?topic=" + topic)
	l := harness.NewLedger()
	producer.SendAll(20, 0, 1, 2)
	page.TakeTo(l, 60)
	// The stream is on one of them.
	w.a.Kill()
	producer.SendAll(20, 0, 1, 2)
	page.TakeTo(l, 120)
	w.a.Restart()
	w.waitRouted(t, w.a, topic)
	w.b.Kill()
	producer.SendAll(20, 0, 1, 2)
	if opened := page.TakeTo(l, 180); opened < 2 {
		t.Errorf("the EventSource opened %d times: it never reconnected", opened)
	}
}
