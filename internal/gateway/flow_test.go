package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/kafka"
	"github.com/prometheus/client_golang/prometheus"
)

// cluster is what a contract test runs on, with an admin: an embedded broker, or the brokers that KAFKA_BROKERS names.
type cluster struct {
	*devbroker.Admin
	addrs []string
	t     *testing.T
}

func newCluster(t *testing.T, topics ...devbroker.Topic) *cluster {
	t.Helper()
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		return realCluster(t, strings.Split(brokers, ","), topics)
	}
	broker, err := devbroker.Start(devbroker.Config{Topics: topics, AutoCreate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	admin, err := broker.Admin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	return &cluster{admin, broker.Addrs(), t}
}

// realCluster makes the topics, and deletes them when the test is over: the next one makes its own of these names.
func realCluster(t *testing.T, addrs []string, topics []devbroker.Topic) *cluster {
	t.Helper()
	admin, err := devbroker.NewAdmin(addrs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	for _, topic := range topics {
		topic.Partitions = max(topic.Partitions, 1)
		if err := admin.CreateTopic(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx := context.WithoutCancel(t.Context())
			left, err := admin.Topics(ctx)
			if err == nil && slices.Contains(left, topic.Name) {
				err = admin.DeleteTopic(ctx, topic.Name)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	return &cluster{admin, addrs, t}
}

func (c *cluster) produce(records ...devbroker.Record) {
	c.t.Helper()
	if _, err := c.Produce(c.t.Context(), records...); err != nil {
		c.t.Fatal(err)
	}
}

// replica is a whole gateway on a cluster, with hubs and readers of its own.
type replica struct {
	*Gateway
	registry *prometheus.Registry
	url      string
}

func newReplica(t *testing.T, c *cluster) *replica { return newReplicaOf(t, c, Config{}) }

func newReplicaOf(t *testing.T, c *cluster, cfg Config) *replica {
	t.Helper()
	client, err := kafka.New(kafka.Config{Brokers: c.addrs})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	reader, history := kafka.NewReader(client), kafka.NewHistory(client)
	hubs := fanout.New(fanout.Config{Formats: Formats(), Metrics: registry}, reader, history)
	r := &replica{registry: registry}
	cfg.Heartbeat, cfg.Metrics = 50*time.Millisecond, registry
	r.Gateway = New(cfg, hubs, client.Topics(), openAccess(t))
	r.running(t)
	server := httptest.NewUnstartedServer(nil)
	server.Config = Server(r.Public(), nil)
	server.Start()
	r.url = server.URL

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- reader.Run(ctx) }()
	go func() { ended <- hubs.Run(ctx) }()
	t.Cleanup(func() {
		deadline, stop := context.WithTimeout(context.Background(), 10*time.Second)
		defer stop()
		if err := r.Shutdown(deadline); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		server.Close()
		cancel()
		for range 2 {
			if err := <-ended; err != nil && ctx.Err() == nil {
				t.Errorf("run: %v", err)
			}
		}
		history.Close()
		client.Close()
	})
	return r
}

// browser reads an event stream block by block.
type browser struct {
	t      *testing.T
	resp   *http.Response
	body   *bufio.Reader
	cancel context.CancelFunc
	lastID string
}

func (r *replica) open(t *testing.T, query, lastID string) *browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/v1/events?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", lastID)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t, resp, bufio.NewReader(resp.Body), cancel, lastID}
	t.Cleanup(b.close)
	if resp.StatusCode != 200 {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %d %s", query, resp.StatusCode, body)
	}
	b.block() // the stream is open: nothing written from now on is missed
	return b
}

func (b *browser) close() {
	b.cancel()
	b.resp.Body.Close()
}

// block reads one block and returns its event, if it has one.
func (b *browser) block() (sseEvent, bool) {
	b.t.Helper()
	got := parseEventStream(readBlock(b.t, b.body) + "\n")
	if got.lastID != "" {
		b.lastID = got.lastID
	}
	if len(got.events) == 0 {
		return sseEvent{}, false
	}
	return got.events[0], true
}

func (b *browser) next() sseEvent {
	b.t.Helper()
	for {
		if e, ok := b.block(); ok {
			return e
		}
	}
}

// take reads n events and returns their data.
func (b *browser) take(n int) (data []string) {
	b.t.Helper()
	for range n {
		data = append(data, b.next().data)
	}
	return data
}

const topic = "orders.order.placed"

func numbered(partition int32, from, to int) (records []devbroker.Record) {
	for i := from; i < to; i++ {
		records = append(records, devbroker.Record{
			Topic: topic, Partition: partition, Key: fmt.Appendf(nil, "k%d", i%3), Value: fmt.Appendf(nil, "%d", i),
			Headers: []devbroker.Header{{Name: "event-type", Value: fmt.Appendf(nil, "t%d", i%2)}},
		})
	}
	return records
}

func wantEvents(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func numbers(from, to int) (s []string) {
	for i := from; i < to; i++ {
		s = append(s, fmt.Sprint(i))
	}
	return s
}

// TestContractResumeOnAnotherReplica is the product in one test: live, cut, on with the other replica, from memory and from
// Kafka, each event once.
func TestContractResumeOnAnotherReplica(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	one, two := newReplica(t, c), newReplica(t, c)
	b := one.open(t, "topic="+topic, "")
	c.produce(numbered(0, 0, 10)...)
	wantEvents(t, b.take(5), numbers(0, 5)...)
	b.close()
	c.produce(numbered(0, 10, 15)...)

	cold := two.open(t, "topic="+topic, b.lastID)
	c.produce(numbered(0, 15, 20)...)
	wantEvents(t, cold.take(15), numbers(5, 20)...)
	cold.close()

	warm := one.open(t, "topic="+topic, b.lastID)
	wantEvents(t, warm.take(15), numbers(5, 20)...)
	warm.close()
	if warm.lastID != cold.lastID {
		t.Errorf("the replicas name the same place %q and %q", warm.lastID, cold.lastID)
	}
}

func TestContractWhereAStreamBegins(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	records := numbered(0, 0, 6)
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range records {
		records[i].Timestamp = start.Add(time.Duration(i) * time.Minute)
	}
	c.produce(records...)
	r := newReplica(t, c)
	back := time.Since(start.Add(210 * time.Second)).Round(time.Second)
	for query, want := range map[string][]string{
		"from=earliest": numbers(0, 6),
		"from=" + url.QueryEscape(start.Add(2*time.Minute).Format(time.RFC3339)): numbers(2, 6),
		"from=-" + back.String():              numbers(4, 6),
		"from=earliest&key=k1":                {"1", "4"},
		"from=earliest&key=k1&key=k2&type=t0": {"2", "4"},
	} {
		b := r.open(t, "topic="+topic+"&"+query, "")
		wantEvents(t, b.take(len(want)), want...)
		b.close()
	}
	for _, query := range []string{"", "&from=latest"} {
		b := r.open(t, "topic="+topic+query, "")
		c.produce(numbered(0, 99, 100)...)
		wantEvents(t, b.take(1), "99")
		b.close()
	}
}

// TestContractAnyRecord sends what records can be made of, as values, as records, over each transport.
func TestContractAnyRecord(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	r := newReplica(t, c)
	large := strings.Repeat("Größe\r\n", 110_000)
	values := [][]byte{[]byte(`{"a":1}`), []byte("two\nlines"), {0xff, 0x00}, {}, nil, []byte(large), []byte("null")}
	var records []devbroker.Record
	for _, v := range values {
		records = append(records, devbroker.Record{Topic: topic, Key: []byte{0xfe}, Value: v, Headers: []devbroker.Header{{Name: "h", Value: []byte{0xfd}}, {Name: "h"}}})
	}
	c.produce(records...)

	sse := r.open(t, "topic="+topic+"&from=earliest", "")
	for i, want := range []sseEvent{
		{name: "message", data: `{"a":1}`}, {name: "message", data: "two\nlines"}, {name: "message", data: "/wA="}, {name: "message", data: ""},
		{name: "streamgw.delete"}, {name: "message", data: strings.ReplaceAll(large, "\r\n", "\n")}, {name: "message", data: "null"},
	} {
		got := sse.next()
		if got.name != want.name || want.name == "message" && got.data != want.data || got.id == "" {
			t.Errorf("value %d: %.100q, want %.100q", i, got, want)
		}
	}
	for _, stream := range []*recordStream{r.ndjson(t, "&format=record&from=earliest"), r.webSocket(t, "&format=record&from=earliest")} {
		for i, want := range values {
			m := message("")
			m.Topic, m.Partition, m.Offset, m.Key, m.Value = topic, 0, int64(i), []byte{0xfe}, want
			text := stream.next()
			var got record
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatalf("%.200q: %v", text, err)
			}
			m.Timestamp = time.UnixMilli(got.Timestamp)
			m.Headers = append(m.Headers[:0], headers...)
			checkRecord(t, string(text), m)
		}
	}
}

// TestContractATopicThatDoesNotExistIsSaidAtOnce and never comes to exist by being asked for, on a broker that would create it.
func TestContractATopicThatDoesNotExistIsSaidAtOnce(t *testing.T) {
	c := newCluster(t)
	r := newReplica(t, c)
	for _, path := range []string{"/v1/events?topic=nope", "/v1/events?topic=nope&from=earliest", "/v1/topics"} {
		resp := get(t, r.url+path)
		if strings.HasPrefix(path, "/v1/events") {
			checkProblem(t, resp, 404, "not-found", "topic", "there is no topic nope")
		}
		resp.Body.Close()
	}
	topics, err := c.Topics(t.Context())
	if err != nil || slices.Contains(topics, "nope") {
		t.Errorf("topics are now %v, %v", topics, err)
	}
}

// TestContractADeletedTopicIsNotFoundThoughItIsRead: its hub is warm, and yet nobody gets a stream that stays silent. Who
// has one already keeps it, and the topic's return is told there.
func TestContractADeletedTopicIsNotFoundThoughItIsRead(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	r := newReplica(t, c)
	b := r.open(t, "topic="+topic, "")
	c.produce(numbered(0, 0, 3)...)
	wantEvents(t, b.take(3), numbers(0, 3)...)
	if err := c.DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is not found", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel() // a stream that opens is closed again
		req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/v1/events?topic="+topic, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusNotFound
	})
	if err := c.CreateTopic(t.Context(), devbroker.Topic{Name: topic, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	c.produce(numbered(0, 7, 9)...)
	if e := b.next(); e.name != "streamgw.gap" || !strings.Contains(e.data, `"from":3,"to":0,"reason":"recreated"`) {
		t.Errorf("got %+v, want the gap", e)
	}
	wantEvents(t, b.take(2), "7", "8")
}

func TestContractGapOfRetention(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	one, two := newReplica(t, c), newReplica(t, c)
	b := one.open(t, "topic="+topic, "")
	c.produce(numbered(0, 0, 10)...)
	wantEvents(t, b.take(2), "0", "1")
	b.close()
	if err := c.DeleteRecords(t.Context(), topic, 0, 7); err != nil {
		t.Fatal(err)
	}
	again := two.open(t, "topic="+topic, b.lastID)
	if e := again.next(); e.name != "streamgw.gap" || e.data != `{"topic":"`+topic+`","partition":0,"from":2,"to":7,"reason":"retention"}` {
		t.Errorf("got %+v", e)
	}
	wantEvents(t, again.take(3), "7", "8", "9")
}

func TestContractAFilteredClientIsToldItsProgress(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	r := newReplica(t, c)
	b := r.open(t, "topic="+topic+"&key=k0", "")
	c.produce(numbered(0, 1, 3)...) // k1, k2
	opened := b.lastID
	for b.lastID == opened {
		if e, ok := b.block(); ok {
			t.Fatalf("got %+v", e)
		}
	}
	b.close()
	all := r.open(t, "topic="+topic, b.lastID)
	c.produce(numbered(0, 3, 4)...)
	wantEvents(t, all.take(1), "3")
}

func TestContractAPositionOfOtherTopicsIsRefused(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic}, devbroker.Topic{Name: "users"})
	r := newReplica(t, c)
	b := r.open(t, "topic=users", "")
	b.close()
	checkProblem(t, get(t, r.url+"/v1/events?topic="+topic, "Last-Event-ID", b.lastID), 400, "bad-position", "Last-Event-ID", "other topics")
	checkProblem(t, get(t, r.url+"/v1/events?topic="+topic+"&from="+b.lastID), 400, "bad-position", "from", "other topics")
	both := r.open(t, "topic=users&topic="+topic, b.lastID)
	c.produce(numbered(0, 1, 2)...)
	wantEvents(t, both.take(1), "1")
}

func TestContractTopicsOfABroker(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 2})
	r := newReplica(t, c)
	c.produce(numbered(1, 0, 3)...)
	b := r.open(t, "topic="+topic+"&from=earliest", "")
	b.take(3)
	body, _ := io.ReadAll(get(t, r.url+"/v1/topics").Body)
	want := `{"name":"` + topic + `","partitions":[{"partition":0,"begin":0,"end":0},{"partition":1,"begin":0,"end":3}],`
	if !strings.Contains(string(body), want) || !strings.Contains(string(body), `"subscribers":1}`) {
		t.Errorf("got %s", body)
	}
}

func TestContractManyClientsGetTheSame(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	r := newReplica(t, c)
	var clients []*browser
	for range 50 {
		clients = append(clients, r.open(t, "topic="+topic, ""))
	}
	var sockets []*recordStream
	for range 50 {
		sockets = append(sockets, r.webSocket(t, ""))
	}
	c.produce(numbered(0, 0, 100)...)
	for _, b := range clients {
		wantEvents(t, b.take(100), numbers(0, 100)...)
	}
	for _, s := range sockets {
		for i := range 100 {
			if got := string(s.next()); got != fmt.Sprint(i) {
				t.Fatalf("got %s, want %d", got, i)
			}
		}
	}
	eventually(t, "all are counted", func() bool {
		return metric(t, r.registry, "streamgw_events_delivered_total", topic, "sse") == 5000 &&
			metric(t, r.registry, "streamgw_events_delivered_total", topic, "websocket") == 5000
	})
}
