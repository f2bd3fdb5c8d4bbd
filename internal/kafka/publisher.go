package kafka

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// PublisherConfig says how records are written. Its zero value works.
type PublisherConfig struct {
	// Compression is none, gzip, snappy, lz4 or zstd. It costs CPU here and at every reader, and spares network and
	// the brokers' disks; it pays where many records are written at once. Default none.
	Compression string `yaml:"compression"`

	// Timeout is how long a record may wait for its acknowledgement, over retries, before Publish fails. Default
	// 20 s, which outlasts the loss of a broker: the others notice it after 9 s.
	Timeout time.Duration `yaml:"timeout"`

	// MaxPending bounds the bytes that wait for an acknowledgement. More is refused as overloaded. Default 64 MiB.
	MaxPending int64 `yaml:"maxPending"`

	Metrics prometheus.Registerer `yaml:"-"` // nil: none
}

var codecs = map[string]sarama.CompressionCodec{
	"": sarama.CompressionNone, "none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

// topicFreshness is how old a topic's metadata may be when a partition is chosen.
const topicFreshness = 15 * time.Second

// Publisher writes records, acknowledged by all replicas in sync, and each once only however often a broker must be
// asked again: a partition has one writer, and that an identity of its own with the brokers (KIP-98). It implements
// [stream.Publisher].
//
// A record with a key goes where Kafka's own clients would put it (murmur2). Those of one call without a key go to one
// partition. Records of one partition are written in the order of the calls and within each.
type Publisher struct {
	client  *Client
	cfg     PublisherConfig
	codec   sarama.CompressionCodec
	metrics publisherMetrics

	mu      sync.Mutex // guards what follows
	closed  bool
	pending int64 // bytes that wait for an acknowledgement
	topics  map[string]*topicWriters
}

type publisherMetrics struct {
	pending prometheus.Gauge
	records *prometheus.CounterVec // by outcome
}

// topicWriters are the writers of one topic's partitions. Only the map changes, and that under the publisher's lock.
type topicWriters struct {
	md      topicMetadata
	asked   time.Time
	writers map[int32]*writer
}

// Publisher returns a publisher. It begins to work when it is first used. An error names the setting at fault.
func (c *Client) Publisher(cfg PublisherConfig) (*Publisher, error) {
	setDefault(&cfg.Timeout, 20*time.Second)
	setDefault(&cfg.MaxPending, 64<<20)
	codec, ok := codecs[cfg.Compression]
	switch {
	case !ok:
		return nil, stream.BadField("kafka.publish.compression", "%q is none of none, gzip, snappy, lz4, zstd", cfg.Compression)
	case cfg.Timeout < 0:
		return nil, stream.BadField("kafka.publish.timeout", "%v is negative", cfg.Timeout)
	case cfg.MaxPending < 0:
		return nil, stream.BadField("kafka.publish.maxPending", "%d is negative", cfg.MaxPending)
	}
	auto := promauto.With(cfg.Metrics)
	return &Publisher{
		client: c,
		cfg:    cfg,
		codec:  codec,
		metrics: publisherMetrics{
			pending: auto.NewGauge(prometheus.GaugeOpts{
				Name: "streamgw_publish_pending_bytes", Help: "Bytes of records that wait for an acknowledgement.",
			}),
			records: auto.NewCounterVec(prometheus.CounterOpts{
				Name: "streamgw_published_records_total", Help: "Records by outcome: written or failed.",
			}, []string{"outcome"}),
		},
		topics: map[string]*topicWriters{},
	}, nil
}

// Close takes no more records. Those that wait are written or fail within the timeout of each; Close waits for it.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.closed = true
	var writers []*writer
	for _, t := range p.topics {
		for _, w := range t.writers {
			writers = append(writers, w)
		}
	}
	p.mu.Unlock()
	for _, w := range writers {
		w.wait()
	}
	return nil
}

// Publish writes records and returns where each is, in order. Errors are of kind NotFound (no such topic; none was
// written then), BadRequest (a record that can't be), TooLarge, Forbidden, Unavailable or Overloaded.
func (p *Publisher) Publish(ctx context.Context, records []stream.Record) ([]stream.Receipt, error) {
	if len(records) == 0 {
		return nil, nil
	}
	size := int64(0)
	for i := range records {
		size += recordSize(&records[i])
	}
	if err := p.reserve(size); err != nil {
		return nil, err
	}
	call := &call{
		receipts: make([]stream.Receipt, len(records)),
		left:     len(records),
		done:     make(chan struct{}),
		release:  func() { p.unreserve(size) },
	}
	targets, err := p.targets(ctx, records, call)
	if err != nil {
		call.release()
		return nil, err
	}
	for w, items := range groupByWriter(targets, records, call, time.Now().Add(p.cfg.Timeout)) {
		w.add(items)
	}
	select {
	case <-call.done:
	case <-ctx.Done():
		call.fail(&stream.Error{Kind: stream.Unavailable, Detail: "Kafka hasn't acknowledged the records in time", Err: context.Cause(ctx)})
	}
	if err := call.err(); err != nil {
		return nil, err
	}
	return call.receipts, nil
}

// targets returns the writer of each record, and fills in the receipts but for their offsets.
func (p *Publisher) targets(ctx context.Context, records []stream.Record, call *call) ([]*writer, error) {
	partitions := map[string]topicMetadata{}
	spare := map[string]int32{} // where records without a key go
	targets := make([]*writer, len(records))
	for i := range records {
		r := &records[i]
		md, known := partitions[r.Topic]
		if !known {
			var err error
			if md, err = p.topic(ctx, r.Topic); err != nil {
				return nil, err
			}
			partitions[r.Topic], spare[r.Topic] = md, anyPartition(md)
		}
		partition, err := choosePartition(r, md, spare[r.Topic])
		if err != nil {
			return nil, err
		}
		call.receipts[i] = stream.Receipt{Topic: r.Topic, Partition: partition, Offset: -1}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, receipt := range call.receipts {
		if targets[i] = p.writerLocked(receipt.Topic, receipt.Partition); targets[i] == nil {
			return nil, topicError(receipt.Topic, sarama.ErrUnknownTopicOrPartition) // it was deleted just now
		}
	}
	return targets, nil
}

// topic returns a topic's metadata, not older than topicFreshness.
func (p *Publisher) topic(ctx context.Context, name string) (topicMetadata, error) {
	p.mu.Lock()
	t := p.topics[name]
	p.mu.Unlock()
	if t != nil && time.Since(t.asked) < topicFreshness {
		return t.md, nil
	}
	ctx, cancel := context.WithTimeout(ctx, min(topicsPatience, p.cfg.Timeout))
	defer cancel()
	md, err := p.client.lookupTopic(ctx, name)
	p.learn(name, md, err)
	return md, err
}

// learn takes over what a look-up of a topic has shown. The writers of one that is gone, or was created again, begin anew.
func (p *Publisher) learn(name string, md topicMetadata, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := errors.AsType[*stream.Error](err); ok && e.Kind == stream.NotFound {
		delete(p.topics, name)
		return
	} else if err != nil {
		return
	}
	if t, ok := p.topics[name]; ok && t.md.id == md.id {
		p.topics[name] = &topicWriters{md: md, asked: time.Now(), writers: t.writers}
		return
	}
	p.topics[name] = &topicWriters{md: md, asked: time.Now(), writers: map[int32]*writer{}}
}

// forget has the topic's metadata asked for anew when it is needed next.
func (p *Publisher) forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t, ok := p.topics[name]; ok {
		p.topics[name] = &topicWriters{md: t.md, writers: t.writers}
	}
}

func (p *Publisher) writerLocked(topic string, partition int32) *writer {
	t, ok := p.topics[topic]
	if !ok {
		return nil
	}
	w, ok := t.writers[partition]
	if !ok {
		w = newWriter(p, topic, t.md.id, partition)
		t.writers[partition] = w
	}
	return w
}

// anyPartition returns a partition at random, of those that have a leader if any has.
func anyPartition(md topicMetadata) int32 {
	var led []int32
	for i, p := range md.partitions {
		if p.leader >= 0 {
			led = append(led, int32(i))
		}
	}
	if len(led) == 0 {
		return rand.Int32N(max(1, int32(len(md.partitions))))
	}
	return led[rand.IntN(len(led))]
}

func choosePartition(r *stream.Record, md topicMetadata, spare int32) (int32, error) {
	n := int32(len(md.partitions))
	switch {
	case n == 0:
		return 0, topicError(r.Topic, sarama.ErrLeaderNotAvailable)
	case r.Partition != nil && (*r.Partition < 0 || *r.Partition >= n):
		return 0, stream.BadField("partition", "the topic %s has no partition %d, only 0 to %d", r.Topic, *r.Partition, n-1)
	case r.Partition != nil:
		return *r.Partition, nil
	case r.Key == nil:
		return spare, nil
	}
	return sarama.NewMurmur2Partitioner(r.Topic).Partition(&sarama.ProducerMessage{Key: sarama.ByteEncoder(r.Key)}, n)
}

// reserve counts bytes that wait. There is always room for one call.
func (p *Publisher) reserve(n int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return unavailable(errors.New("the publisher is closed"))
	}
	if p.pending > 0 && p.pending+n > p.cfg.MaxPending {
		return stream.Errorf(stream.Overloaded, "too many records wait for Kafka's acknowledgement")
	}
	p.pending += n
	p.metrics.pending.Set(float64(p.pending))
	return nil
}

func (p *Publisher) unreserve(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending -= n
	p.metrics.pending.Set(float64(p.pending))
}
