package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
)

const (
	batchBytes   = 512 << 10       // of records in one batch; a larger record goes alone, and the broker decides
	batchRecords = 10_000          // in one batch
	writeAttempt = 4 * time.Second // for one answer, before the leader is asked for anew
)

// writer writes one partition: one batch at a time, so that what comes meanwhile leaves in the next. A batch keeps its
// place in the brokers' sequence until its outcome is known, and then the next one follows.
type writer struct {
	publisher *Publisher
	topic     string
	id        stream.Incarnation // of the topic; records for another one fail
	partition int32

	mu    sync.Mutex // guards what follows
	idle  *sync.Cond // works has become false
	queue []item
	works bool // somebody is in run

	identity identity // of whoever is in run
}

// identity is what a broker knows a writer by (KIP-98). None is one to be asked for.
type identity struct {
	known    bool
	producer int64
	epoch    int16
	sequence int32 // of the next record
}

func newWriter(p *Publisher, topic string, id stream.Incarnation, partition int32) *writer {
	w := &writer{publisher: p, topic: topic, id: id, partition: partition}
	w.idle = sync.NewCond(&w.mu)
	return w
}

// add takes records in, and works on them unless somebody does.
func (w *writer) add(items []item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, items...)
	if w.works {
		return
	}
	w.works = w.publisher.client.start(w.run)
	if !w.works {
		w.settleAll(w.queue, -1, unavailable(errClosed))
		w.queue = nil
	}
}

// wait returns when nothing is left to write.
func (w *writer) wait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.works {
		w.idle.Wait()
	}
}

// run writes until nothing is left.
func (w *writer) run() {
	most := batchRecords
	for {
		batch := w.next(most)
		if len(batch) == 0 {
			return
		}
		first, err := w.write(batch)
		if len(batch) > 1 && errors.Is(err, errSplit) { // until who is at fault is alone
			w.putBack(batch)
			most = len(batch) / 2
			continue
		}
		w.settleAll(batch, first, err)
		most = min(2*most, batchRecords)
	}
}

// next takes the next batch off the queue. Records whose call has failed or whose time is over aren't written.
func (w *writer) next(most int) (batch []item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	size := int64(0)
	for len(w.queue) > 0 {
		i := w.queue[0]
		switch err := i.call.err(); {
		case err != nil:
			i.call.settle(i.index, -1, err)
		case time.Now().After(i.deadline):
			i.call.settle(i.index, -1, unavailable(context.DeadlineExceeded))
		case len(batch) > 0 && (len(batch) == most || size+i.size > batchBytes):
			return batch
		default:
			batch = append(batch, i)
			size += i.size
		}
		w.queue = w.queue[1:]
	}
	if len(batch) == 0 {
		w.queue, w.works = nil, false
		w.idle.Broadcast()
	}
	return batch
}

func (w *writer) putBack(batch []item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(batch, w.queue...)
}

func (w *writer) settleAll(batch []item, first int64, err error) {
	outcome := "written"
	if err != nil {
		outcome = "failed"
	}
	w.publisher.metrics.records.WithLabelValues(outcome).Add(float64(len(batch)))
	for i, item := range batch {
		item.call.settle(item.index, first+int64(i), err)
	}
}

// write writes a batch and returns the offset of its first record. It asks again, with the same numbers, until a
// leader has answered or the time of all its records is over: then nobody knows whether it was written, and the next
// batch has a new identity. With the same numbers a leader would take it for this one, and acknowledge what it never wrote.
func (w *writer) write(batch []item) (first int64, err error) {
	deadline := batch[0].deadline
	for _, i := range batch {
		if i.deadline.After(deadline) {
			deadline = i.deadline
		}
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	sent := false // an attempt may have been written
	err = retry(ctx, mayWrite, func() error {
		if err := w.identify(ctx); err != nil {
			return err
		}
		var code sarama.KError
		first, code, err = w.send(ctx, batch)
		if err == nil {
			err = w.judge(code, sent)
		}
		sent = sent || errors.Is(err, errNoAnswer) || mayBeWritten(code)
		return err
	})
	if err != nil {
		if sent || !errors.Is(err, errSplit) {
			w.identity = identity{}
		}
		return -1, err
	}
	w.identity.sequence = nextSequence(w.identity.sequence, len(batch))
	return first, nil
}

// mayWrite reports whether another attempt may succeed.
func mayWrite(err error) bool { return mayPass(err) && !errors.Is(err, errFinal) }

// nextSequence returns the number of the record that follows n ones; they wrap round.
func nextSequence(sequence int32, n int) int32 {
	return int32((int64(sequence) + int64(n)) % (1 << 31))
}

// newBatch returns items as they are sent. Each attempt has its own, since one that was abandoned may still read it.
func newBatch(items []item, who identity, codec sarama.CompressionCodec) *sarama.RecordBatch {
	batch := &sarama.RecordBatch{
		Version: 2, Codec: codec, CompressionLevel: sarama.CompressionLevelDefault,
		ProducerID: who.producer, ProducerEpoch: who.epoch, FirstSequence: who.sequence,
		FirstTimestamp: items[0].record.Timestamp, MaxTimestamp: items[0].record.Timestamp,
		LastOffsetDelta: int32(len(items) - 1),
	}
	for i, item := range items {
		r := &item.record
		if r.Timestamp.After(batch.MaxTimestamp) {
			batch.MaxTimestamp = r.Timestamp
		}
		record := &sarama.Record{
			Key: r.Key, Value: r.Value,
			OffsetDelta: int64(i), TimestampDelta: r.Timestamp.Sub(batch.FirstTimestamp),
		}
		for _, h := range r.Headers {
			record.Headers = append(record.Headers, &sarama.RecordHeader{Key: []byte(h.Name), Value: h.Value})
		}
		batch.Records = append(batch.Records, record)
	}
	return batch
}

// identify asks a broker for an identity, unless there is one.
func (w *writer) identify(ctx context.Context) error {
	if w.identity.known {
		return nil
	}
	c := w.publisher.client
	var failures []error
	for _, addr := range c.candidates() {
		attempt, cancel := context.WithTimeout(ctx, lookupPatience)
		response, err := exchange(attempt, c, lookups, addr, func(b *sarama.Broker) (*sarama.InitProducerIDResponse, error) {
			return b.InitProducerID(&sarama.InitProducerIDRequest{Version: 4, ProducerID: -1, ProducerEpoch: -1})
		})
		cancel()
		if err == nil && response.Err != sarama.ErrNoError {
			err = response.Err
		}
		if err == nil {
			w.identity = identity{known: true, producer: response.ProducerID, epoch: response.ProducerEpoch}
			return nil
		}
		if errors.Is(err, sarama.ErrClusterAuthorizationFailed) {
			return &stream.Error{Kind: stream.Forbidden, Detail: "Kafka doesn't let this gateway write", Err: err}
		}
		failures = append(failures, err)
	}
	return unavailable(fmt.Errorf("ask for a producer id: %w", errors.Join(failures...)))
}

var (
	errSplit = errors.New("a record of the batch was refused, and none was written") // alone, the others may be taken
	errFinal = errors.New("asking again can't help")
)

// send sends items to the partition's leader, once, and returns what that answers.
func (w *writer) send(ctx context.Context, items []item) (first int64, code sarama.KError, err error) {
	p := w.publisher
	addr, err := w.leader(ctx)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeAttempt)
	defer cancel()
	who := w.identity // it may change while an abandoned attempt still reads it
	response, err := exchange(ctx, p.client, writes, addr, func(b *sarama.Broker) (*sarama.ProduceResponse, error) {
		request := &sarama.ProduceRequest{Version: 8, RequiredAcks: sarama.WaitForAll, Timeout: int32(writeAttempt / time.Millisecond)}
		request.AddBatch(w.topic, w.partition, newBatch(items, who, p.codec))
		return b.Produce(request)
	})
	if err != nil {
		p.forget(w.topic)
		return 0, 0, unavailable(fmt.Errorf("write to %s/%d: %w", w.topic, w.partition, err))
	}
	block := response.GetBlock(w.topic, w.partition)
	if block == nil {
		return 0, 0, unavailable(fmt.Errorf("write to %s/%d: %w", w.topic, w.partition, errNoAnswer))
	}
	return block.Offset, block.Err, nil
}

// leader returns the address of the partition's leader.
func (w *writer) leader(ctx context.Context) (string, error) {
	p := w.publisher
	md, err := p.topic(ctx, w.topic)
	if err != nil {
		return "", err
	}
	if md.id != w.id {
		gone := errors.Join(errFinal, &stream.RecreatedError{Topic: w.topic, Now: md.id})
		return "", &stream.Error{Kind: stream.Unavailable, Detail: "the topic " + w.topic + " was created again meanwhile", Err: gone}
	}
	leader := int32(-1)
	if int(w.partition) < len(md.partitions) {
		leader = md.partitions[w.partition].leader
	}
	addr, err := p.client.address(leader)
	if err != nil {
		p.forget(w.topic)
		return "", unavailable(fmt.Errorf("write to %s/%d: %w", w.topic, w.partition, sarama.ErrLeaderNotAvailable))
	}
	return addr, nil
}

// mayBeWritten reports whether a broker that answers so may have written the batch all the same.
func mayBeWritten(code sarama.KError) bool {
	switch code {
	case sarama.ErrRequestTimedOut, sarama.ErrNotEnoughReplicasAfterAppend, sarama.ErrNetworkException, sarama.ErrUnknown,
		sarama.ErrNotLeaderForPartition, sarama.ErrKafkaStorageError: // it was the leader until it waited for the replicas
		return true
	}
	return false
}

// judge returns what a broker's answer to a batch means. sent says that an earlier attempt may have been written.
func (w *writer) judge(code sarama.KError, sent bool) error {
	cause := fmt.Errorf("write to %s/%d: %w", w.topic, w.partition, code)
	switch code {
	case sarama.ErrNoError:
		return nil
	case sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge:
		return &stream.Error{Kind: stream.TooLarge, Detail: "the record is larger than the topic " + w.topic + " takes", Err: errors.Join(errSplit, cause)}
	case sarama.ErrInvalidRecord, sarama.ErrInvalidTimestamp, sarama.ErrPolicyViolation:
		return &stream.Error{Kind: stream.BadRequest, Detail: "the topic " + w.topic + " doesn't take such a record: " + code.Error(), Err: errors.Join(errSplit, cause)}
	case sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed:
		return &stream.Error{Kind: stream.Forbidden, Detail: "Kafka doesn't let this gateway write to the topic " + w.topic, Err: cause}
	case sarama.ErrDuplicateSequenceNumber:
		return &stream.Error{Kind: stream.Internal, Detail: "the records were written, but it isn't known where", Err: cause}
	case sarama.ErrOutOfOrderSequenceNumber, sarama.ErrUnknownProducerID, sarama.ErrInvalidProducerEpoch, sarama.ErrInvalidProducerIDMapping:
		// The broker lost track of us: its log was deleted or truncated. What was surely not written yet goes under a new identity.
		w.identity = identity{}
		if sent {
			return unavailable(errors.Join(errFinal, cause))
		}
	case sarama.ErrNotLeaderForPartition, sarama.ErrLeaderNotAvailable, sarama.ErrUnknownTopicOrPartition, sarama.ErrFencedLeaderEpoch, sarama.ErrKafkaStorageError:
		w.publisher.forget(w.topic)
	}
	return unavailable(cause)
}
