package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/goodgo/streamgw/internal/stream/streamtest"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestContractSource(t *testing.T) {
	onClusters(t, func(t *testing.T, env streamtest.Env) { streamtest.TestSource(t, env) })
}

func TestContractSourceInSessions(t *testing.T) {
	onClusters(t, func(t *testing.T, env streamtest.Env) {
		reader := NewReader(env.History.(*History).client)
		reader.sessionParts = 1
		run(t, reader)
		env.Source = reader
		streamtest.TestSource(t, env)
	})
}

func TestContractHistory(t *testing.T) {
	onClusters(t, func(t *testing.T, env streamtest.Env) { streamtest.TestHistory(t, env) })
}

// onClusters runs a test on an embedded cluster of three brokers, which creates topics that are asked for as most real
// ones do, and on the real one whose addresses are in KAFKA_BROKERS, if any are.
func onClusters(t *testing.T, test func(*testing.T, streamtest.Env)) {
	t.Run("embedded", func(t *testing.T) {
		broker := embedded(t, devbroker.Config{Brokers: 3, AutoCreate: true})
		test(t, newEnv(t, broker.Addrs(), broker.Cluster().Compact))
	})
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		t.Run("real", func(t *testing.T) { test(t, newEnv(t, strings.Split(brokers, ","), func() {})) })
	}
}

// newEnv returns an Env of a cluster. compact is called before it is expected to compact.
func newEnv(t *testing.T, brokers []string, compact func()) streamtest.Env {
	t.Helper()
	client := newClient(t, Config{Brokers: brokers, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	history := NewHistory(client)
	t.Cleanup(func() { history.Close() })
	return streamtest.Env{Source: runReader(t, client), History: history, Cluster: newContractCluster(t, brokers, compact)}
}

// runReader runs a Reader until the test ends.
func runReader(t *testing.T, client *Client) *Reader {
	t.Helper()
	reader := NewReader(client)
	run(t, reader)
	return reader
}

// run runs a Reader until the test ends.
func run(t *testing.T, reader *Reader) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reader.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v, want its context's error", err)
		}
	})
}

// contractCluster is a streamtest.Cluster, by way of software that isn't sarama.
type contractCluster struct {
	*devbroker.Admin
	brokers []string
	compact func()

	mu        sync.Mutex // guards what follows
	producers map[string]*kgo.Client
}

func newContractCluster(t *testing.T, brokers []string, compact func()) *contractCluster {
	t.Helper()
	admin, err := devbroker.NewAdmin(brokers...)
	if err != nil {
		t.Fatal(err)
	}
	c := &contractCluster{Admin: admin, brokers: brokers, compact: compact, producers: map[string]*kgo.Client{}}
	t.Cleanup(func() {
		admin.Close()
		for _, p := range c.producers {
			p.Close()
		}
	})
	return c
}

func (c *contractCluster) CreateTopic(ctx context.Context, name string, partitions int, configs map[string]string) error {
	return c.Admin.CreateTopic(ctx, devbroker.Topic{Name: name, Partitions: partitions, Configs: configs})
}

func (c *contractCluster) DeleteTopic(ctx context.Context, name string) error {
	defer c.forget(name)
	return c.Admin.DeleteTopic(ctx, name)
}

func (c *contractCluster) AddPartitions(ctx context.Context, name string, total int) error {
	defer c.forget(name)
	return c.Admin.AddPartitions(ctx, name, total)
}

// forget has producers look anew at a topic.
func (c *contractCluster) forget(topic string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.producers {
		p.PurgeTopicsFromProducing(topic)
	}
}

func (c *contractCluster) producer(codec string) (*kgo.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.producers[codec]; ok {
		return p, nil
	}
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	p, err := kgo.NewClient(
		kgo.SeedBrokers(c.brokers...), kgo.ProducerBatchCompression(codecs[codec]), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(1<<20), kgo.ProducerLinger(5*time.Millisecond), kgo.MetadataMinAge(20*time.Millisecond),
		kgo.MetadataMaxAge(time.Second), // once in many runs a producer waited for its next look, five minutes by default, after a broker had gone
	)
	if err == nil {
		c.producers[codec] = p
	}
	return p, err
}

func (c *contractCluster) Produce(ctx context.Context, codec string, records ...stream.Record) ([]int64, error) {
	p, err := c.producer(codec)
	if err != nil {
		return nil, err
	}
	out := make([]*kgo.Record, len(records))
	for i, r := range records {
		out[i] = &kgo.Record{Topic: r.Topic, Partition: *r.Partition, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
		for _, h := range r.Headers {
			out[i].Headers = append(out[i].Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
	}
	if err := p.ProduceSync(ctx, out...).FirstErr(); err != nil {
		return nil, fmt.Errorf("produce: %w", err)
	}
	offsets := make([]int64, len(out))
	for i, r := range out {
		offsets[i] = r.Offset
	}
	return offsets, nil
}

type transaction struct{ *devbroker.Transaction }

func (c *contractCluster) Begin(ctx context.Context) (streamtest.Transaction, error) {
	tx, err := c.Admin.Begin(ctx, fmt.Sprint("contract-", rand.Uint64()))
	return transaction{tx}, err
}

func (t transaction) Produce(ctx context.Context, records ...stream.Record) ([]int64, error) {
	out := make([]devbroker.Record, len(records))
	for i, r := range records {
		out[i] = devbroker.Record{Topic: r.Topic, Partition: *r.Partition, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
		for _, h := range r.Headers {
			out[i].Headers = append(out[i].Headers, devbroker.Header{Name: h.Name, Value: h.Value})
		}
	}
	return t.Transaction.Produce(ctx, out...)
}

// Compact writes one more record to partition 0, which makes what lies before it old, and waits until each key of that
// is there once.
func (c *contractCluster) Compact(ctx context.Context, topic string) error {
	select {
	case <-time.After(200 * time.Millisecond): // a segment's age in the topic's configs; the next record closes it then
	case <-ctx.Done():
		return ctx.Err()
	}
	ends, err := c.Produce(ctx, "none", stream.Record{Topic: topic, Partition: new(int32), Key: []byte("compact"), Value: []byte("now")})
	if err != nil {
		return err
	}
	for {
		c.compact()
		twice, err := c.keysTwice(ctx, topic, ends[0])
		if err != nil || !twice {
			return err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keysTwice reports whether partition 0 has a key twice before an offset.
func (c *contractCluster) keysTwice(ctx context.Context, topic string, end int64) (bool, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {0: kgo.NewOffset().AtStart()},
	}))
	if err != nil {
		return false, err
	}
	defer client.Close()
	seen := map[string]bool{}
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return false, err
		}
		for _, r := range fetches.Records() {
			if r.Offset >= end {
				return false, nil
			}
			if seen[string(r.Key)] {
				return true, nil
			}
			seen[string(r.Key)] = true
		}
	}
}
