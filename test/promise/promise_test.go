//go:build integration

// Package promise shows what a crowd of clients costs Kafka: nothing.
package promise

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

func TestClientsCostKafkaNoGroupAndNoConnection(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{Brokers: kafka.Bootstrap})
	before := kafka.Groups()
	producer := kafka.NewProducer(topic)

	connections := map[int]int{}
	for _, clients := range []int{10, 100, 1000} {
		written := producer.Sent()
		crowd := harness.StartCrowd(t, crowdOf(clients, topic, gateway.URL, written/3)...)
		crowd.WaitStanding(2 * time.Minute)
		// Every client reads, so what it takes to read is there.
		producer.SendAll(20, 0, 1, 2)
		crowd.WaitCount(producer.Sent()-written, time.Minute)
		connections[clients] = gateway.Connections(kafka.Addresses())
		for _, group := range kafka.Groups() {
			if !slices.Contains(before, group) {
				t.Errorf("with %d clients there is a consumer group %s", clients, group)
			}
		}
		t.Logf("%d clients: 0 consumer groups, %d connections from the gateway to the brokers", clients, connections[clients])
		crowd.Stop()
	}
	if connections[10] == 0 || connections[10] != connections[100] || connections[10] != connections[1000] {
		t.Errorf("connections to the brokers change with the number of clients: %v", connections)
	}
	for _, group := range kafka.Groups() {
		if strings.Contains(group, "streamgw") || strings.Contains(group, "sse") {
			t.Errorf("a consumer group that looks like a gateway's: %s", group)
		}
	}
}

// crowdOf returns clients that begin at the topic's end, where each partition's next number is first.
func crowdOf(n int, topic string, gateway string, first int64) (clients []*harness.Client) {
	for i := range n {
		clients = append(clients, &harness.Client{
			Name:      fmt.Sprintf("client %d of %d", i, n),
			Transport: harness.Transports()[i%2],
			Targets:   []string{gateway},
			Query:     harness.Topics([]string{topic}, "from=latest"),
			Ledger:    harness.NewLedgerOf(first, 1),
			Rand:      rand.New(rand.NewPCG(7, uint64(i))),
		})
	}
	return clients
}
