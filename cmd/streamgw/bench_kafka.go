package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/goodgo/streamgw/internal/bench"
	"github.com/goodgo/streamgw/internal/kafka"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/spf13/pflag"
)

// publisher sets where events go, if the command publishes any, and returns what ends it.
func (b *benching) publisher(ctx context.Context, flags *pflag.FlagSet) (closeAll func(), err error) {
	if flags.Lookup("publish-url") == nil || flags.Changed("from") {
		return func() {}, nil
	}
	if b.posting.URL != "" {
		b.posting.Topic = b.load.Topic
		posts, err := b.posting.Publisher()
		if err != nil {
			return nil, usageError{err}
		}
		b.load.Publisher = posts
		return posts.Close, nil
	}
	c, problems := b.config.load(b.program)
	if len(c.Kafka.Brokers) == 0 {
		c.Kafka.Brokers = []string{devBroker}
	}
	if err := append(problems, kafkaProblems(c.Kafka)...).orNil(); err != nil {
		return nil, err
	}
	c.Kafka.Log = b.warnings()
	client, err := newKafka(c.Kafka)
	if err != nil {
		return nil, err
	}
	events, err := publishInto(ctx, client, b.load.Topic, b.load.Keyed)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	b.load.Publisher = events
	return func() {
		_ = events.to.Close() // what it wrote has been acknowledged
		_ = client.Close()
	}, nil
}

// kafkaEvents publishes a bench's events to a topic: a lane is a partition, or, where events have keys, one of as many
// shares of the keys.
type kafkaEvents struct {
	to         *kafka.Publisher
	topic      string
	partitions []int32
	keyed      bool
}

// maxPendingBench bounds what waits for acknowledgements: a batch of each lane.
const maxPendingBench = 4 << 30

func publishInto(ctx context.Context, client *kafka.Client, topic string, keyed bool) (*kafkaEvents, error) {
	found, err := client.Topics().Lookup(ctx, topic)
	if e, ok := errors.AsType[*stream.Error](err); ok && e.Kind == stream.NotFound {
		return nil, fmt.Errorf("--topic: there is no topic %s; create it first", topic)
	}
	if err != nil {
		return nil, fmt.Errorf("--brokers: %w", err)
	}
	to, err := client.Publisher(kafka.PublisherConfig{MaxPending: maxPendingBench})
	if err != nil {
		return nil, err
	}
	e := &kafkaEvents{to: to, topic: topic, keyed: keyed}
	for i := range found.End {
		e.partitions = append(e.partitions, int32(i))
	}
	return e, nil
}

// Lanes implements [bench.Publisher].
func (e *kafkaEvents) Lanes() int { return len(e.partitions) }

// Publish implements [bench.Publisher].
func (e *kafkaEvents) Publish(ctx context.Context, lane int, events []bench.Event) error {
	records := make([]stream.Record, len(events))
	for i, event := range events {
		records[i] = stream.Record{Topic: e.topic, Key: event.Key, Value: event.Value}
		if !e.keyed {
			records[i].Partition = &e.partitions[lane]
		}
	}
	_, err := e.to.Publish(ctx, records)
	return err
}
