//go:build integration

// Package resume shows, case by case, that a client which comes back anywhere goes on exactly where it was: the
// cases are those in which other gateways lose events, repeat them or fall silent.
package resume

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

// world is two replicas on one Kafka. A topic that only one of them has read is cold on the other.
type world struct {
	kafka *harness.Kafka
	a, b  *harness.Gateway
}

func newWorld(t *testing.T, kafka *harness.Kafka) world {
	t.Helper()
	options := harness.GatewayOptions{Brokers: kafka.Bootstrap, Config: harness.SmallWindows}
	return world{kafka, harness.StartGateway(t, "gateway-a", options), harness.StartGateway(t, "gateway-b", options)}
}

func TestResume(t *testing.T) {
	w := newWorld(t, harness.Brokers(t))
	for name, scenario := range map[string]func(*testing.T, world){
		"filters by key":                        testFilters,
		"several topics on one connection":      testSeveralTopics,
		"partition added in mid-stream":         testPartitionAdded,
		"other replica with a cold window":      testOtherReplica,
		"position taken at an empty partition":  testEmptyPartition,
		"cut before the first event":            testCutBeforeFirstEvent,
		"130 partitions":                        test130Partitions,
		"codecs":                                testCodecs,
		"batches of another producer":           testOtherProducer,
		"transaction open at subscribe time":    testOpenTransaction,
		"transaction aborted":                   testAbortedTransaction,
		"partition that ends in a marker":       testEndsInMarker,
		"topic idle for longer than timeouts":   testIdleTopic,
		"retention took messages away":          testRetention,
		"topic created again":                   testRecreated,
		"topic created again under live stream": testRecreatedLive,
		"unknown topic":                         testUnknownTopic,
		"position that makes no sense":          testBadPositions,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scenario(t, world{w.kafka.For(t), w.a, w.b})
		})
	}
}

// each runs a scenario over both transports.
func each(t *testing.T, scenario func(*testing.T, harness.Transport)) {
	for _, transport := range harness.Transports() {
		t.Run(string(transport), func(t *testing.T) { scenario(t, transport) })
	}
}

// open returns a reader of topics at a position, or where from says.
func open(t *testing.T, tr harness.Transport, g *harness.Gateway, l *harness.Ledger, position string, topic string, parameters ...string) *harness.Reader {
	t.Helper()
	return harness.OpenReader(t, tr, harness.Dial{URL: g.URL, Query: harness.Topics([]string{topic}, parameters...), Position: position}, l)
}

// crowd runs n clients of both replicas and both transports that cut themselves at random, after so many bytes at most.
func (w world) crowd(t *testing.T, n int, bytes int64, topics []string, ledger func(i int) (*harness.Ledger, string)) *harness.Crowd {
	t.Helper()
	var clients []*harness.Client
	for i := range n {
		l, filter := ledger(i)
		q := harness.Topics(topics, "from=earliest")
		if filter != "" {
			q.Set("key", filter)
		}
		clients = append(clients, &harness.Client{
			Name:      fmt.Sprintf("client %d", i),
			Transport: harness.Transports()[i%2],
			Targets:   []string{w.a.URL, w.b.URL},
			Query:     q,
			Ledger:    l,
			Rand:      rand.New(rand.NewPCG(3, uint64(i))),
			Cut: func(r *rand.Rand) *harness.Cut {
				return &harness.Cut{After: 200 + r.Int64N(bytes), Away: time.Duration(r.IntN(500)) * time.Millisecond}
			},
		})
	}
	return harness.StartCrowd(t, clients...)
}

func everything(int) (*harness.Ledger, string) { return harness.NewLedger(), "" }

// wantCuts fails the test when clients didn't reconnect: then it has shown nothing.
func wantCuts(t *testing.T, c *harness.Crowd) {
	t.Helper()
	tally := c.Tally()
	t.Logf("%d deliveries over %d connections, %d resumed, %d cut", c.Deliveries(), tally.Connected, tally.Resumed, tally.Cuts)
	if tally.Cuts == 0 || tally.Resumed == 0 {
		t.Errorf("no client cut its connection and resumed: %+v", tally)
	}
}

func testFilters(t *testing.T, w world) {
	topic := w.kafka.NewTopic(3)
	producer := w.kafka.NewProducer(topic)
	producer.Keys = 5
	crowd := w.crowd(t, 20, 60_000, []string{topic}, func(i int) (*harness.Ledger, string) {
		return harness.NewLedgerOf(int64(i%5), 5), fmt.Sprintf("k%d", i%5)
	})
	producer.SendAt(t.Context(), 3, 1500, 10*time.Second)
	producer.Flush()
	crowd.WaitCount(producer.Sent()/5, time.Minute)
	wantCuts(t, crowd)
}

func testSeveralTopics(t *testing.T, w world) {
	topics := []string{w.kafka.NewTopic(1), w.kafka.NewTopic(2), w.kafka.NewTopic(3)}
	crowd := w.crowd(t, 20, 200_000, topics, everything)
	written := make(chan int64)
	for series, topic := range topics {
		producer := w.kafka.NewProducer(topic)
		producer.Series = series
		go func() {
			producer.SendAt(t.Context(), series+1, 200, 8*time.Second)
			written <- producer.Sent()
		}()
	}
	var sent int64
	for range topics {
		sent += <-written
	}
	crowd.WaitCount(sent, time.Minute)
	wantCuts(t, crowd)
}

func testPartitionAdded(t *testing.T, w world) {
	topic := w.kafka.NewTopic(2)
	producer := w.kafka.NewProducer(topic)
	crowd := w.crowd(t, 20, 60_000, []string{topic}, everything)
	producer.SendAt(t.Context(), 2, 400, 3*time.Second)
	producer.Flush()
	w.kafka.AddPartitions(topic, 4)
	producer.Reopen()
	// At once: what is written before a gateway knows of the partition must come too.
	producer.SendAt(t.Context(), 4, 400, 5*time.Second)
	producer.Flush()
	crowd.WaitCount(producer.Sent(), 2*time.Minute)
	wantCuts(t, crowd)
}

func testOtherReplica(t *testing.T, w world) {
	for _, received := range []int{0, 1, 99, 150, 299} {
		t.Run(fmt.Sprintf("after %d of 300", received), func(t *testing.T) {
			each(t, func(t *testing.T, transport harness.Transport) {
				topic := w.kafka.NewTopic(3)
				w.kafka.NewProducer(topic).SendAll(100, 0, 1, 2)
				l := harness.NewLedger()
				r := open(t, transport, w.a, l, "", topic, "from=earliest")
				r.Take(received)
				r.Close()
				open(t, transport, w.b, l, r.Position, topic).Take(300 - received)
			})
		})
	}
}

func testEmptyPartition(t *testing.T, w world) {
	each(t, func(t *testing.T, transport harness.Transport) {
		topic := w.kafka.NewTopic(3)
		producer := w.kafka.NewProducer(topic)
		producer.SendAll(10, 1)
		l := harness.NewLedger()
		r := open(t, transport, w.a, l, "", topic, "from=earliest")
		r.Take(10)
		r.Close()
		producer.SendAll(10, 0, 1, 2)
		for _, g := range []*harness.Gateway{w.a, w.b} {
			l := harness.NewLedger()
			l.Expect(harness.Number{Partition: 1, N: 10})
			rest := open(t, transport, g, l, r.Position, topic)
			rest.Take(30)
			rest.Close()
		}
	})
}

func testCutBeforeFirstEvent(t *testing.T, w world) {
	each(t, func(t *testing.T, transport harness.Transport) {
		topic := w.kafka.NewTopic(3)
		producer := w.kafka.NewProducer(topic)
		producer.SendAll(10, 0, 2)
		r := open(t, transport, w.a, harness.NewLedger(), "", topic, "from=latest")
		r.Close()
		producer.SendAll(10, 0, 1, 2)
		for _, g := range []*harness.Gateway{w.a, w.b} {
			l := harness.NewLedger()
			l.Expect(harness.Number{Partition: 0, N: 10})
			l.Expect(harness.Number{Partition: 2, N: 10})
			rest := open(t, transport, g, l, r.Position, topic)
			rest.Take(30)
			rest.Close()
		}
	})
}

func test130Partitions(t *testing.T, w world) {
	topic := w.kafka.NewTopic(130)
	producer := w.kafka.NewProducer(topic)
	crowd := w.crowd(t, 10, 200_000, []string{topic}, everything)
	// One of each partition at once: the writes are long, and most cuts fall into one.
	all := make([]int, 130)
	for i := range all {
		all[i] = i
	}
	for range 10 {
		producer.SendAll(5, all...)
	}
	crowd.WaitCount(producer.Sent(), 2*time.Minute)
	wantCuts(t, crowd)
}
