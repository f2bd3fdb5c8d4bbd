package harness

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Producer writes numbered events to a topic, each partition's in order, acknowledged by all replicas and, whatever
// brokers do meanwhile, each once.
type Producer struct {
	// Series is the number that stands for the topic in its events.
	Series int
	// Keys is how many keys there are: event N of a partition has key "k" and N modulo Keys. 0: events have no key.
	Keys int
	// Size is the least size of a value in bytes.
	Size int

	t      testing.TB
	topic  string
	open   func() *kgo.Client
	client *kgo.Client
	next   []int64 // by partition; for one goroutine at a time

	mu   sync.Mutex // guards what follows
	lost error      // the first record that wasn't acknowledged
}

// NewProducer returns a producer of a topic; Kafka's own retries have no end.
func (k *Kafka) NewProducer(topic string, opts ...kgo.Opt) *Producer {
	k.t.Helper()
	p := &Producer{t: k.t, topic: topic}
	p.open = func() *kgo.Client {
		return k.open(append([]kgo.Opt{
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.RequiredAcks(kgo.AllISRAcks()),
			kgo.ProducerLinger(0),
			kgo.MetadataMinAge(100 * time.Millisecond),
			kgo.UnknownTopicRetries(-1),
		}, opts...)...)
	}
	p.client = p.open()
	k.t.Cleanup(func() { p.client.Close() })
	return p
}

// Reopen begins anew on the same numbers, so that partitions added since are known at once.
func (p *Producer) Reopen() {
	p.client.Close()
	p.client = p.open()
}

// Send writes the next event of a partition, without waiting for it. Flush waits.
func (p *Producer) Send(partition int) {
	for len(p.next) <= partition {
		p.next = append(p.next, 0)
	}
	n := p.next[partition]
	p.next[partition]++
	r := &kgo.Record{Topic: p.topic, Partition: int32(partition)}
	r.Value = AppendNumber(nil, Number{p.Series, partition, n}, p.Size)
	if p.Keys > 0 {
		r.Key = fmt.Appendf(nil, "k%d", n%int64(p.Keys))
	}
	p.client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.lost == nil {
				p.lost = fmt.Errorf("write %d to %s/%d: %w", n, p.topic, partition, err)
			}
		}
	})
}

// SendAll writes count events to each of some partitions, in turn, and waits until they are acknowledged.
func (p *Producer) SendAll(count int, partitions ...int) {
	p.t.Helper()
	for range count {
		for _, partition := range partitions {
			p.Send(partition)
		}
	}
	p.Flush()
}

// SendAt writes events to the partitions 0 to partitions-1 in turn, at a rate a second, for a time.
func (p *Producer) SendAt(ctx context.Context, partitions, perSecond int, during time.Duration) {
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for sent, total := 0, int(during.Seconds()*float64(perSecond)); sent < total; {
		due := min(total, int(time.Since(start).Seconds()*float64(perSecond)))
		for ; sent < due; sent++ {
			p.Send(sent % partitions)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Flush waits until all that was sent is acknowledged, and fails the test when something can't be.
func (p *Producer) Flush() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := p.client.Flush(ctx); err != nil {
		p.t.Fatalf("write to %s: %v", p.topic, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost != nil {
		p.t.Fatal(p.lost)
	}
}

// Sent returns how many events were written in all.
func (p *Producer) Sent() (sum int64) {
	for _, n := range p.next {
		sum += n
	}
	return sum
}

// CheckLog reads the topic back from Kafka itself and fails the test unless every number stands there once and in
// order, so that what clients see is the gateway's doing alone.
func (k *Kafka) CheckLog(topic string, want int64) {
	k.t.Helper()
	consumer := k.open(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer consumer.Close()
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	l := NewLedger()
	for l.Count() < want {
		fetches := consumer.PollFetches(ctx)
		if ctx.Err() != nil {
			k.t.Fatalf("%s holds %d of %d events", topic, l.Count(), want)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n, err := ParseNumber(r.Value)
			if err == nil {
				err = l.Take(n)
			}
			if err != nil {
				k.t.Fatalf("%s/%d@%d: %v", r.Topic, r.Partition, r.Offset, err)
			}
		})
	}
}

// SendRaw writes a value that has no number, without waiting for it.
func (p *Producer) SendRaw(partition int, key, value []byte) {
	r := &kgo.Record{Topic: p.topic, Partition: int32(partition), Key: key, Value: value}
	p.client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.lost == nil {
				p.lost = fmt.Errorf("write to %s/%d: %w", p.topic, partition, err)
			}
		}
	})
}

// Begin begins a transaction. The producer was made with a transactional id.
func (p *Producer) Begin() {
	p.t.Helper()
	if err := p.client.BeginTransaction(); err != nil {
		p.t.Fatal(err)
	}
}

// End commits or aborts what was sent since Begin.
func (p *Producer) End(commit bool) {
	p.t.Helper()
	p.Flush()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.client.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		p.t.Fatal(err)
	}
}
