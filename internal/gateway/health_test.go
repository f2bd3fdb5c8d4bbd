package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
)

func TestReadiness(t *testing.T) {
	var kafka error
	f := newFace(t, Config{Checks: map[string]func(context.Context) error{
		"kafka": func(context.Context) error { return kafka },
		"disk":  func(context.Context) error { return nil },
	}})
	body := func(url string, status int) string {
		t.Helper()
		resp := get(t, url)
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status {
			t.Errorf("%s: %d, %v; want %d", url, resp.StatusCode, err, status)
		}
		return string(b)
	}
	if got := body(f.url+"/readyz", 200); got != "" {
		t.Errorf("the public is told %q", got)
	}
	if got := body(f.admin+"/readyz", 200); got != `{"ready":true,"draining":false,"checks":{"disk":"ok","kafka":"ok"}}`+"\n" {
		t.Errorf("operators are told %s", got)
	}
	kafka = errors.New("dial tcp 10.0.0.1:9092: refused")
	if got := body(f.url+"/readyz", 503); got != "" {
		t.Errorf("the public is told %q", got)
	}
	if got := body(f.admin+"/readyz", 503); got != `{"ready":false,"draining":false,"checks":{"disk":"ok","kafka":"dial tcp 10.0.0.1:9092: refused"}}`+"\n" {
		t.Errorf("operators are told %s", got)
	}
	if got := body(f.admin+"/livez", 200); got != `{"live":true}`+"\n" {
		t.Errorf("livez: %s", got)
	}
}

func TestAdminPathsAreNotPublic(t *testing.T) {
	f := newFace(t, Config{})
	for _, path := range []string{"/metrics", "/livez", "/v1/hubs", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
		if resp := get(t, f.url+path); resp.StatusCode != 404 {
			t.Errorf("public %s: %d", path, resp.StatusCode)
		}
		if resp := get(t, f.admin+path); resp.StatusCode != 200 {
			t.Errorf("admin %s: %d", path, resp.StatusCode)
		}
	}
	b, _ := io.ReadAll(get(t, f.admin+"/v1/hubs").Body)
	if got := strings.TrimSpace(string(b)); got != `{"hubs":[{"topic":"orders","subscribers":3,"channels":1,"messages":7,"bytes":700}]}` {
		t.Errorf("hubs: %s", got)
	}
	checkProblem(t, get(t, f.admin+"/v1/events"), 404, "no-such-path", "", "")
}

func TestMetricsAreServed(t *testing.T) {
	f := newFace(t, Config{})
	checkProblem(t, get(t, f.url+"/v1/events?topic=__x"), 404, "not-found", "topic", "")
	f.hubs.refusal = stream.Errorf(stream.NotFound, "there is no topic made-up")
	checkProblem(t, get(t, f.url+"/v1/events?topic=made-up"), 404, "not-found", "topic", "")
	b, _ := io.ReadAll(get(t, f.admin+"/metrics").Body)
	for _, want := range []string{`streamgw_refusals_total{problem="not-found"} 2`, "streamgw_delivery_seconds_count 0"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %.2000s", want, b)
		}
	}
	if strings.Contains(string(b), "made-up") {
		t.Error("a topic that doesn't exist has metrics: clients can make up any number of them")
	}
}

func TestTopicsThatAreListed(t *testing.T) {
	f := newFace(t, Config{Served: func(topic string) bool { return topic != "unserved" }})
	f.topics.topics = []stream.Topic{
		{Name: "__consumer_offsets", Begin: []int64{0}, End: []int64{9}},
		{Name: "orders", Begin: []int64{3, 0}, End: []int64{7, 0}},
		{Name: "unserved", Begin: []int64{0}, End: []int64{0}},
		{Name: "users", Begin: []int64{0}, End: []int64{1}},
	}
	const want = `{"topics":[` +
		`{"name":"orders","partitions":[{"partition":0,"begin":3,"end":7},{"partition":1,"begin":0,"end":0}],"window":{"messages":7,"bytes":700},"subscribers":3},` +
		`{"name":"users","partitions":[{"partition":0,"begin":0,"end":1}],"window":{"messages":0,"bytes":0},"subscribers":0}]}`
	for range 5 {
		b, _ := io.ReadAll(get(t, f.url+"/v1/topics").Body)
		if got := strings.TrimSpace(string(b)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if f.topics.asked > 2 {
		t.Errorf("Kafka was asked %d times for 5 requests in a moment", f.topics.asked)
	}
}

func TestTopicsWithoutKafka(t *testing.T) {
	f := newFace(t, Config{})
	f.topics.err = stream.Errorf(stream.Unavailable, "Kafka is away")
	checkProblem(t, get(t, f.url+"/v1/topics", "Sec-Fetch-Mode", "cors"), 503, "unavailable", "", "Kafka is away")
}

func TestEveryKindIsAProblem(t *testing.T) {
	for kind := stream.Internal; kind <= stream.TooSlow; kind++ {
		p, ok := problems[kind]
		if !ok || p.Status < 400 || p.close < 1000 || p.Title == "" {
			t.Errorf("kind %d: %+v", kind, p)
		}
		var back problem
		if err := json.Unmarshal(p.append(nil), &back); err != nil || back.Type != p.Type {
			t.Errorf("kind %d is told as %s", kind, p.append(nil))
		}
	}
}
