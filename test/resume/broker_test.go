//go:build integration

package resume

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

// lasting runs clients that stay on the gateway and the connection that they have first.
func (w world) lasting(t *testing.T, n int, topic string) *harness.Crowd {
	t.Helper()
	var clients []*harness.Client
	for i := range n {
		clients = append(clients, &harness.Client{
			Name: fmt.Sprintf("client %d", i), Transport: harness.Transports()[i%2], Targets: []string{[]string{w.a.URL, w.b.URL}[i/2%2]},
			Query: harness.Topics([]string{topic}, "from=latest"), Ledger: harness.NewLedger(), Rand: rand.New(rand.NewPCG(5, uint64(i))),
		})
	}
	crowd := harness.StartCrowd(t, clients...)
	crowd.WaitStanding(time.Minute)
	return crowd
}

// wantLasted fails the test when a connection has ended.
func wantLasted(t *testing.T, crowd *harness.Crowd) {
	t.Helper()
	if tally := crowd.Tally(); tally.Broken > 0 || tally.Connected != len(crowd.Clients) {
		t.Errorf("streams ended: %+v", tally)
	}
}

func TestStreamsOutliveAKilledBroker(t *testing.T) {
	cluster := harness.StartCluster(t)
	w := newWorld(t, cluster.Kafka)
	topic := cluster.NewTopic(6)
	crowd := w.lasting(t, 20, topic)
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
	wantLasted(t, crowd)
}

func TestStreamsOutliveAClusterThatIsAway(t *testing.T) {
	cluster := harness.StartCluster(t)
	w := newWorld(t, cluster.Kafka)
	topic := cluster.NewTopic(3)
	producer := cluster.NewProducer(topic)
	crowd := w.lasting(t, 8, topic)
	producer.SendAll(10, 0, 1, 2)
	crowd.WaitCount(30, time.Minute)
	for broker := 1; broker <= 3; broker++ {
		cluster.KillBroker(broker)
	}
	away := time.Now()
	harness.Until(t, 2*time.Minute, "the brokers were away for longer than heartbeats and timeouts are apart", func() bool {
		status, _, err := harness.Get(w.a.Admin + "/livez")
		if err != nil || status != 200 {
			t.Fatalf("/livez: %d, %v", status, err)
		}
		return time.Since(away) > 40*time.Second
	})
	cluster.StartBrokers(1, 2, 3)
	cluster.WaitBrokers(3)
	cluster.WaitLeaders(topic, 3)
	producer.SendAll(10, 0, 1, 2)
	crowd.WaitCount(60, time.Minute)
	cluster.CheckLog(topic, 60)
	wantLasted(t, crowd)
}
