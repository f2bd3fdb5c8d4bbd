package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Kafka is a cluster as its administrator sees it. It speaks Kafka's protocol through another library than the product.
type Kafka struct {
	t      testing.TB
	client *kgo.Client
	// Bootstrap is the list of brokers as clients are given it.
	Bootstrap string
}

// Brokers returns a Kafka that the test leaves running: the one in $KAFKA_BROKERS, else that of StartCluster.
func Brokers(t testing.TB) *Kafka {
	t.Helper()
	if list := os.Getenv("KAFKA_BROKERS"); list != "" {
		return OpenKafka(t, list)
	}
	return StartCluster(t).Kafka
}

// OpenKafka returns the Kafka at a bootstrap list.
func OpenKafka(t testing.TB, bootstrap string) *Kafka {
	t.Helper()
	bootstrap = strings.TrimSpace(bootstrap)
	k := &Kafka{t: t, Bootstrap: bootstrap}
	k.client = k.open(kgo.MetadataMinAge(100 * time.Millisecond))
	t.Cleanup(k.client.Close)
	return k
}

func (k *Kafka) open(opts ...kgo.Opt) *kgo.Client {
	k.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(strings.Split(k.Bootstrap, ",")...))...)
	if err != nil {
		k.t.Fatal(err)
	}
	return cl
}

// bounded bounds one request. It outlives the test's own context, so that cleaning up may ask too.
func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

// WaitBrokers waits until n brokers are registered.
func (k *Kafka) WaitBrokers(n int) {
	k.t.Helper()
	Until(k.t, time.Minute, fmt.Sprintf("%d brokers are up", n), func() bool {
		ctx, cancel := context.WithTimeout(k.t.Context(), 5*time.Second)
		defer cancel()
		resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, k.client)
		return err == nil && len(resp.Brokers) == n
	})
}

// Addresses returns host:port of every broker.
func (k *Kafka) Addresses() (addresses []string) {
	k.t.Helper()
	for _, b := range k.brokers() {
		addresses = append(addresses, fmt.Sprintf("%s:%d", b.Host, b.Port))
	}
	return addresses
}

func (k *Kafka) brokers() []kmsg.MetadataResponseBroker {
	k.t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, k.client)
	if err != nil {
		k.t.Fatal(err)
	}
	return resp.Brokers
}

// CreateTopic creates a topic with settings, each as name=value, and waits until every partition has a leader. It is
// deleted when the test ends. Replicas are as many as there are brokers, three at most.
func (k *Kafka) CreateTopic(topic string, partitions int, settings ...string) {
	k.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 20_000
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, int32(partitions), int16(min(3, len(k.Addresses())))
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, &value
		rt.Configs = append(rt.Configs, c)
	}
	req.Topics = append(req.Topics, rt)
	k.do("create "+topic, func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, k.client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	})
	k.t.Cleanup(func() { _ = k.delete(topic) }) // the test may have deleted it
	k.WaitLeaders(topic, partitions)
}

// WaitLeaders waits until a topic has so many partitions and each has a leader, as every broker knows: clients ask any.
func (k *Kafka) WaitLeaders(topic string, partitions int) {
	k.t.Helper()
	Until(k.t, 30*time.Second, fmt.Sprintf("%d partitions of %s have leaders", partitions, topic), func() bool {
		for _, b := range k.brokers() {
			leaders := leadersOf(k.client.Broker(int(b.NodeID)), topic)
			if len(leaders) != partitions || slices.Contains(leaders, -1) {
				return false
			}
		}
		return true
	})
}

// leaders returns the leader of every partition; nil when there is no such topic.
func (k *Kafka) leaders(topic string) []int32 { return leadersOf(k.client, topic) }

func leadersOf(asked kmsg.Requestor, topic string) []int32 {
	info, err := describe(asked, topic)
	if err != nil {
		return nil
	}
	leaders := make([]int32, len(info.Partitions))
	for _, p := range info.Partitions {
		leaders[p.Partition] = p.Leader
		if p.ErrorCode != 0 {
			leaders[p.Partition] = -1
		}
	}
	return leaders
}

func describe(asked kmsg.Requestor, topic string) (kmsg.MetadataResponseTopic, error) {
	ctx, cancel := bounded()
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, asked)
	if err != nil {
		return kmsg.MetadataResponseTopic{}, err
	}
	return resp.Topics[0], kerr.ErrorForCode(resp.Topics[0].ErrorCode)
}

// TopicExists reports whether a broker knows a topic. Asking doesn't create it.
func (k *Kafka) TopicExists(topic string) bool {
	k.t.Helper()
	for _, b := range k.brokers() {
		_, err := describe(k.client.Broker(int(b.NodeID)), topic)
		if err == nil {
			return true
		}
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			k.t.Fatal(err)
		}
	}
	return false
}

// DeleteTopic deletes a topic and waits until no broker knows it.
func (k *Kafka) DeleteTopic(topic string) {
	k.t.Helper()
	if err := k.delete(topic); err != nil {
		k.t.Fatalf("delete %s: %v", topic, err)
	}
	Until(k.t, 30*time.Second, topic+" is gone", func() bool { return !k.TopicExists(topic) })
}

func (k *Kafka) delete(topic string) error {
	ctx, cancel := bounded()
	defer cancel()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 20_000
	req.TopicNames = []string{topic}
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, k.client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
}

// AddPartitions grows a topic to a number of partitions.
func (k *Kafka) AddPartitions(topic string, count int) {
	k.t.Helper()
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = 20_000
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = topic, int32(count)
	req.Topics = append(req.Topics, rt)
	k.do("add partitions to "+topic, func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, k.client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	})
	k.WaitLeaders(topic, count)
}

// DeleteRecords takes the records before an offset away, as retention does.
func (k *Kafka) DeleteRecords(topic string, partition int, before int64) {
	k.t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 20_000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Partition, rp.Offset = int32(partition), before
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	k.do("delete records of "+topic, func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, k.client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	})
}

// Groups returns the ids of all consumer groups that the brokers know.
func (k *Kafka) Groups() (ids []string) {
	k.t.Helper()
	k.do("list groups", func(ctx context.Context) error {
		resp, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, k.client)
		if err != nil {
			return err
		}
		ids = nil
		for _, g := range resp.Groups {
			ids = append(ids, g.Group)
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	return ids
}

// do asks until the answer isn't one that asking again mends, as while leaders move.
func (k *Kafka) do(what string, ask func(context.Context) error) {
	k.t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	for {
		err := ask(ctx)
		switch {
		case err == nil:
			return
		case ctx.Err() != nil || !kerr.IsRetriable(err):
			k.t.Fatalf("%s: %v", what, err)
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// NewTopic creates a topic of a name that no other test has, and returns the name.
func (k *Kafka) NewTopic(partitions int, settings ...string) string {
	k.t.Helper()
	topic := NewName()
	k.CreateTopic(topic, partitions, settings...)
	return topic
}

// NewName returns a topic's name that no other test has.
func NewName() string { return fmt.Sprintf("test.t%d.happened", rand.Uint64()) }

// For returns the same Kafka for a subtest: what that creates goes when it ends, and what fails fails it.
func (k *Kafka) For(t testing.TB) *Kafka {
	return &Kafka{t: t, client: k.client, Bootstrap: k.Bootstrap}
}

// Leader returns the broker that leads a partition.
func (k *Kafka) Leader(topic string, partition int) int {
	k.t.Helper()
	leaders := k.leaders(topic)
	if partition >= len(leaders) || leaders[partition] < 0 {
		k.t.Fatalf("%s/%d has no leader", topic, partition)
	}
	return int(leaders[partition])
}
