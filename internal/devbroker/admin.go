package devbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Admin does to a cluster, embedded or real, what tests need done. Each call returns when the cluster has done it
// and shows it to others.
type Admin struct {
	brokers []string

	writing sync.RWMutex // held to forget topics, and for reading while records are on their way

	mu      sync.Mutex // guards what follows
	clients map[Codec]*kgo.Client
}

// NewAdmin returns an admin of the cluster of these brokers. It connects when first used.
func NewAdmin(brokers ...string) (*Admin, error) {
	a := &Admin{brokers: slices.Clone(brokers), clients: map[Codec]*kgo.Client{}}
	if _, err := a.client(Uncompressed); err != nil {
		return nil, err
	}
	return a, nil
}

// Close ends the admin's connections. Transactions of its are ended by themselves.
func (a *Admin) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, client := range a.clients {
		client.Close()
	}
	a.clients = map[Codec]*kgo.Client{}
}

// client returns the one that writes with a codec.
func (a *Admin) client(codec Codec, more ...kgo.Opt) (*kgo.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if client, ok := a.clients[codec]; ok && len(more) == 0 {
		return client, nil
	}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(a.brokers...),
		kgo.ClientID("devbroker"),
		kgo.ProducerBatchCompression(codec.kgo()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequestRetries(10),
		kgo.RetryTimeout(20 * time.Second),
		kgo.MetadataMinAge(20 * time.Millisecond),
	}, more...)...)
	if err == nil && len(more) == 0 {
		a.clients[codec] = client
	}
	return client, err
}

// request sends a request to whichever broker it is for.
func (a *Admin) request(ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	client, err := a.client(Uncompressed)
	if err != nil {
		return nil, err
	}
	return client.Request(ctx, r)
}

// CreateTopic creates a topic. One that was deleted and is created again has another topic id.
func (a *Admin) CreateTopic(ctx context.Context, topic Topic) error {
	if topic.Partitions == 0 {
		topic.Partitions = defaultPartitions
	}
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic.Name, int32(topic.Partitions), -1
	for name, value := range topic.Configs {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, &value
		t.Configs = append(t.Configs, c)
	}
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Topics = append(r.Topics, t)
	r.TimeoutMillis = 10_000
	md, err := a.describe(ctx, topic.Name)
	if err == nil && md.ErrorCode == 0 {
		err = kerr.TopicAlreadyExists
	}
	if err == nil {
		var answer kmsg.Response
		if answer, err = a.request(ctx, r); err == nil {
			err = kerr.ErrorForCode(answer.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode)
		}
		if errors.Is(err, kerr.TopicAlreadyExists) { // by us: the answer was lost, and the request sent again
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("create topic %s: %w", topic.Name, err)
	}
	return a.awaitPartitions(ctx, topic.Name, topic.Partitions)
}

// DeleteTopic deletes a topic.
func (a *Admin) DeleteTopic(ctx context.Context, topic string) error {
	r := kmsg.NewPtrDeleteTopicsRequest()
	t := kmsg.NewDeleteTopicsRequestTopic()
	t.Topic = &topic
	r.Topics, r.TopicNames, r.TimeoutMillis = append(r.Topics, t), []string{topic}, 10_000
	md, err := a.describe(ctx, topic)
	if err == nil {
		err = kerr.ErrorForCode(md.ErrorCode)
	}
	if err == nil {
		var answer kmsg.Response
		if answer, err = a.request(ctx, r); err == nil {
			err = kerr.ErrorForCode(answer.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode)
		}
		if errors.Is(err, kerr.UnknownTopicOrPartition) { // by now: the answer was lost, and the request sent again
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("delete topic %s: %w", topic, err)
	}
	return a.awaitPartitions(ctx, topic, 0)
}

// AddPartitions lets a topic grow to a number of partitions.
func (a *Admin) AddPartitions(ctx context.Context, topic string, total int) error {
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = topic, int32(total)
	r := kmsg.NewPtrCreatePartitionsRequest()
	r.Topics, r.TimeoutMillis = append(r.Topics, t), 10_000
	answer, err := a.request(ctx, r)
	if err == nil {
		err = kerr.ErrorForCode(answer.(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("add partitions to %s: %w", topic, err)
	}
	return a.awaitPartitions(ctx, topic, total)
}

// DeleteRecords moves the log start of a partition to an offset, as retention does.
func (a *Admin) DeleteRecords(ctx context.Context, topic string, partition int32, before int64) error {
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = partition, before
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	r := kmsg.NewPtrDeleteRecordsRequest()
	r.Topics, r.TimeoutMillis = append(r.Topics, t), 10_000
	answer, err := a.request(ctx, r)
	if err == nil {
		err = kerr.ErrorForCode(answer.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("delete records of %s/%d before %d: %w", topic, partition, before, err)
	}
	return nil
}

// Topics returns the names of all topics, internal ones too, sorted. It creates none.
func (a *Admin) Topics(ctx context.Context) ([]string, error) {
	answer, err := a.request(ctx, kmsg.NewPtrMetadataRequest())
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var names []string
	for _, t := range answer.(*kmsg.MetadataResponse).Topics {
		names = append(names, *t.Topic)
	}
	slices.Sort(names)
	return names, nil
}

// TopicID returns a topic's id. It changes when the topic is created again.
func (a *Admin) TopicID(ctx context.Context, topic string) ([16]byte, error) {
	md, err := a.describe(ctx, topic)
	if err == nil {
		err = kerr.ErrorForCode(md.ErrorCode)
	}
	if err != nil {
		return [16]byte{}, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	return md.TopicID, nil
}

// describe asks the first broker that answers. A request to a broker of one's choice passes by what the library
// remembers of topics for a while, also that there was none.
func (a *Admin) describe(ctx context.Context, topic string) (kmsg.MetadataResponseTopic, error) {
	client, err := a.client(Uncompressed)
	if err != nil {
		return kmsg.MetadataResponseTopic{}, err
	}
	var failures []error
	for _, b := range client.SeedBrokers() {
		md, err := ask(ctx, b, topic)
		if err == nil {
			return md, nil
		}
		failures = append(failures, err)
	}
	return kmsg.MetadataResponseTopic{}, errors.Join(failures...)
}

// ask asks one broker about a topic.
func ask(ctx context.Context, b *kgo.Broker, topic string) (kmsg.MetadataResponseTopic, error) {
	r := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	r.Topics = append(r.Topics, t)
	answer, err := b.Request(ctx, r)
	if err != nil {
		return kmsg.MetadataResponseTopic{}, err
	}
	topics := answer.(*kmsg.MetadataResponse).Topics
	if len(topics) != 1 {
		return kmsg.MetadataResponseTopic{}, errors.New("the broker didn't answer about " + topic)
	}
	return topics[0], nil
}

// forget drops what the clients remember of a topic, such as how many partitions it had.
func (a *Admin) forget(topic string) {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, client := range a.clients {
		client.PurgeTopicsFromClient(topic)
	}
}

// awaitPartitions waits until every broker that answers shows a topic with so many partitions, each with a leader;
// none: until it is gone.
func (a *Admin) awaitPartitions(ctx context.Context, topic string, partitions int) error {
	defer a.forget(topic)
	shown := func(t kmsg.MetadataResponseTopic) bool {
		if partitions == 0 {
			return t.ErrorCode == kerr.UnknownTopicOrPartition.Code
		}
		led := 0
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				led++
			}
		}
		return t.ErrorCode == 0 && led == partitions
	}
	return poll(ctx, func() (bool, error) {
		return a.everyBroker(ctx, topic, shown)
	})
}

// everyBroker reports whether each broker that can be reached shows a topic in a way.
func (a *Admin) everyBroker(ctx context.Context, topic string, shown func(kmsg.MetadataResponseTopic) bool) (bool, error) {
	client, err := a.client(Uncompressed)
	if err != nil {
		return false, err
	}
	var failure error
	answered := 0
	for _, b := range client.SeedBrokers() {
		md, err := ask(ctx, b, topic)
		if err != nil {
			failure = fmt.Errorf("describe topic %s: %w", topic, err)
			continue
		}
		answered++
		if !shown(md) {
			return false, nil
		}
	}
	if answered == 0 {
		return false, failure
	}
	return true, nil
}

// poll asks every few milliseconds until the answer is yes.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
