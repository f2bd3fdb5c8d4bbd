//go:build integration

package resume

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

func TestStreamsOutliveAKilledBroker(t *testing.T) {
	cluster := harness.StartCluster(t)
	w := newWorld(t, cluster.Kafka)
	topic := cluster.NewTopic(6)
	var clients []*harness.Client
	for i := range 20 {
		clients = append(clients, &harness.Client{
			Name: fmt.Sprintf("client %d", i), Transport: harness.Transports()[i%2], Targets: []string{[]string{w.a.URL, w.b.URL}[i/2%2]},
			Query: harness.Topics([]string{topic}, "from=latest"), Ledger: harness.NewLedger(), Rand: rand.New(rand.NewPCG(5, uint64(i))),
		})
	}
	crowd := harness.StartCrowd(t, clients...)
	crowd.WaitStanding(time.Minute)
	producer := cluster.NewProducer(topic)
	written := make(chan struct{})
	go func() {
		defer close(written)
		producer.SendAt(t.Context(), 6, 300, 20*time.Second)
	}()
	harness.Until(t, time.Minute, "events flow", func() bool { return crowd.Deliveries() > 1000 })
	cluster.KillBroker(cluster.Leader(topic, 0))
	<-written
	producer.Flush()
	cluster.CheckLog(topic, producer.Sent())
	crowd.WaitCount(producer.Sent(), time.Minute)
	if tally := crowd.Tally(); tally.Broken > 0 || tally.Connected != len(clients) {
		t.Errorf("streams ended with the broker: %+v", tally)
	}
}

func TestStreamsOutliveAClusterThatIsAway(t *testing.T) {
	cluster := harness.StartCluster(t)
	w := newWorld(t, cluster.Kafka)
	topic := cluster.NewTopic(3)
	producer := cluster.NewProducer(topic)
	var readers []*harness.Reader
	for _, transport := range harness.Transports() {
		r := open(t, transport, w.a, harness.NewLedger(), "", topic, "from=latest")
		readers = append(readers, r)
	}
	producer.SendAll(10, 0, 1, 2)
	for _, r := range readers {
		r.Take(30)
	}
	for broker := 1; broker <= 3; broker++ {
		cluster.KillBroker(broker)
	}
	away := time.Now()
	harness.Until(t, time.Minute, "the gateway lives on while all brokers are away", func() bool {
		status, _, err := harness.Get(w.a.Admin + "/livez")
		if err != nil || status != 200 {
			t.Fatalf("/livez: %d, %v", status, err)
		}
		return time.Since(away) > 20*time.Second // longer than a heartbeat
	})
	cluster.StartBrokers(1, 2, 3)
	cluster.WaitBrokers(3)
	cluster.WaitLeaders(topic, 3)
	producer.SendAll(10, 0, 1, 2)
	for _, r := range readers {
		r.Take(30)
	}
}
