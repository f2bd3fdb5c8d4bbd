//go:build integration

package harness

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The scenarios lean on these: a fault here must not look like one of the product's.
func TestProducerLosesAndRepeatsNothingWhileBrokersDie(t *testing.T) {
	cluster := StartCluster(t)
	topic := cluster.NewTopic(6)
	producer := cluster.NewProducer(topic)
	written := make(chan struct{})
	go func() {
		defer close(written)
		producer.SendAt(t.Context(), 6, 500, 12*time.Second)
	}()
	if moved := cluster.MoveLeaders(topic); moved == 0 {
		t.Error("no leader moved")
	}
	cluster.KillBroker(2)
	cluster.StartBrokers(2)
	cluster.StopBroker(3)
	cluster.StartBrokers(3)
	<-written
	producer.Flush()
	if producer.Sent() != 6000 {
		t.Errorf("%d sent", producer.Sent())
	}
	cluster.CheckLog(topic, producer.Sent())
}

func TestTopicsGrowShrinkAndGo(t *testing.T) {
	kafka := Brokers(t)
	topic := NewName()
	for range 2 {
		if kafka.TopicExists(topic) {
			t.Fatal("the topic exists, or came to exist by being asked for")
		}
	}
	kafka.CreateTopic(topic, 1, "retention.ms=3600000")
	kafka.AddPartitions(topic, 3)
	producer := kafka.NewProducer(topic)
	producer.Keys = 2
	producer.SendAll(10, 0, 1, 2)
	kafka.CheckLog(topic, 30)
	kafka.DeleteRecords(topic, 1, 4)
	kafka.DeleteTopic(topic)
	if kafka.TopicExists(topic) {
		t.Error("the topic exists")
	}
}

func TestGroupsAreListed(t *testing.T) {
	kafka := Brokers(t)
	topic := kafka.NewTopic(1)
	member := kafka.open(kgo.ConsumerGroup(topic), kgo.ConsumeTopics(topic))
	defer member.Close()
	Until(t, 30*time.Second, "the group is listed", func() bool { return slices.Contains(kafka.Groups(), topic) })
}
