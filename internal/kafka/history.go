package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
)

// History reads what lies behind, over connections of its own: the live reader's long poll never delays it. It is
// bounded: in connections, and each read in memory. It implements [stream.History].
type History struct {
	client      *Client
	connections *historyConnections
	turn        atomic.Uint32 // so that not always the same partition comes first

	mu     sync.Mutex // guards what follows
	topics map[string]topicMetadata
}

const (
	historyPatience = 10 * time.Second // for Kafka to answer a read
	historyTopics   = 4096             // whose leaders are remembered
	historyBytes    = 1 << 20          // of an answer, when the request names no bound
	leastFetch      = 64 << 10         // less isn't worth a request
	mostFetch       = 64 << 20
	leastSilences   = 5                      // answers without a record or an error before it is believed that there is none
	patientFetch    = 500 * time.Millisecond // what a leader has for each of them: tiered storage takes its time
)

// NewHistory returns a History of the client's cluster. It connects when it first reads.
func NewHistory(c *Client) *History {
	return &History{client: c, connections: newHistoryConnections(c), topics: map[string]topicMetadata{}}
}

// Close ends the idle connections. Reads under way end theirs when they are done.
func (h *History) Close() error {
	h.connections.close()
	return nil
}

// Read implements [stream.History]. What Kafka can't answer now is asked again for some seconds; then the error is of
// kind Unavailable.
func (h *History) Read(ctx context.Context, req stream.HistoryRequest) ([]stream.PartBatch, error) {
	if !stream.ValidTopic(req.Topic) || stream.InternalTopic(req.Topic) {
		return nil, noTopic(req.Topic)
	}
	if len(req.Ranges) == 0 {
		return nil, nil
	}
	if req.MaxBytes <= 0 {
		req.MaxBytes = historyBytes
	}
	limited, cancel := context.WithTimeout(ctx, historyPatience)
	defer cancel()
	read := historyRead{History: h, req: req, turn: int(h.turn.Add(1)), silences: map[int32]int{}}
	var parts []stream.PartBatch
	err := retry(limited, mayPass, func() (err error) {
		parts, err = read.attempt(limited)
		return err
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return parts, err
}

// Offsets implements [stream.History].
func (h *History) Offsets(ctx context.Context, topic string, at stream.At) (stream.TopicPosition, error) {
	position := stream.TopicPosition{Topic: topic}
	if !stream.ValidTopic(topic) || stream.InternalTopic(topic) {
		return position, noTopic(topic)
	}
	limited, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	err := retry(limited, mayPassOrRecreated, func() error {
		md, err := h.client.readableTopic(limited, topic)
		if err != nil {
			return err
		}
		if err := h.client.confirm(limited, topic, md); err != nil {
			return err
		}
		position.Incarnation = md.id
		position.Next, err = h.client.offsets(limited, topic, md, at)
		return err
	})
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return position, err
}

// leaders returns what is known of a topic, if nothing is after asking.
func (h *History) leaders(ctx context.Context, topic string) (topicMetadata, error) {
	h.mu.Lock()
	md, ok := h.topics[topic]
	h.mu.Unlock()
	if ok {
		return md, nil
	}
	md, err := h.client.readableTopic(ctx, topic)
	if err == nil {
		h.learn(topic, md)
	}
	return md, err
}

func (h *History) learn(topic string, md topicMetadata) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.topics) >= historyTopics {
		clear(h.topics)
	}
	h.topics[topic] = md
}

func (h *History) forget(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.topics, topic)
}

// historyRead is one call of Read.
type historyRead struct {
	*History
	req      stream.HistoryRequest
	turn     int
	alone    bool          // ask for one range at a time: together none has moved
	damaged  bool          // ask for one batch at a time: there is one that can't be read
	silences map[int32]int // by partition: answers to a request of it alone that had nothing at all
}

// answer is what one leader said.
type answer struct {
	blocks map[int32]*sarama.FetchResponseBlock
	gaps   map[int32]*stream.Gap
	err    error
}

// attempt asks the leaders once, for all ranges together, or when that has brought nothing for one after the other until
// one has moved. Its error is of kind Unavailable when another attempt may do.
func (h *historyRead) attempt(ctx context.Context) ([]stream.PartBatch, error) {
	md, err := h.leaders(ctx, h.req.Topic)
	if err != nil {
		return nil, err
	}
	if !h.alone {
		parts, err := h.askLeaders(ctx, md, h.req.Ranges)
		h.damaged = unreadable(err)
		h.alone = h.damaged || err == nil && len(parts) == 0
		if !h.alone {
			return parts, err
		}
	}
	first := h.req.Ranges[0]
	failure := error(stream.Errorf(stream.Unavailable, "Kafka has nothing of %s from offset %d of partition %d on", h.req.Topic, first.From, first.Partition))
	for _, r := range h.req.Ranges {
		for silences := -1; silences < h.silences[r.Partition]; { // as long as there is one more
			silences = h.silences[r.Partition]
			parts, err := h.askLeaders(ctx, md, []stream.Range{r})
			if final(err) || len(parts) > 0 {
				return parts, err
			}
			if err != nil {
				failure = err
			}
		}
	}
	return nil, failure
}

// askLeaders asks the leaders of ranges, all at once. What some have said counts though others have failed.
func (h *historyRead) askLeaders(ctx context.Context, md topicMetadata, ranges []stream.Range) ([]stream.PartBatch, error) {
	byLeader := map[int32][]stream.Range{}
	for _, r := range ranges {
		leader := int32(-1)
		if r.Partition >= 0 && int(r.Partition) < len(md.partitions) {
			leader = md.partitions[r.Partition].leader
		}
		byLeader[leader] = append(byLeader[leader], r)
	}
	answers := make(chan answer, len(byLeader))
	share := min(max(h.req.MaxBytes/2/int64(len(byLeader)), leastFetch), mostFetch)
	if h.damaged {
		share = 1
	}
	for leader, led := range byLeader {
		if leader < 0 {
			answers <- answer{err: stream.Errorf(stream.Unavailable, "partition %d of %s can't be read now", led[0].Partition, h.req.Topic)}
		} else if !h.client.start(func() { answers <- h.ask(ctx, leader, md, led, int32(share)) }) {
			answers <- answer{err: unavailable(errClosed)}
		}
	}
	all := answer{blocks: map[int32]*sarama.FetchResponseBlock{}, gaps: map[int32]*stream.Gap{}}
	for range byLeader {
		a := <-answers
		maps.Copy(all.blocks, a.blocks)
		maps.Copy(all.gaps, a.gaps)
		if all.err == nil || final(a.err) {
			all.err = a.err
		}
	}
	if all.err != nil {
		h.forget(h.req.Topic)
	}
	if final(all.err) {
		return nil, all.err
	}
	if parts := h.parts(ranges, all.blocks, all.gaps); len(parts) > 0 {
		return parts, nil
	}
	return nil, all.err
}

// final reports whether an error ends a read whatever else was answered.
func final(err error) bool {
	return err != nil && !mayPass(err)
}

// parts puts together what of the answers fits into the request's bound. Ranges of which nothing is known are left out.
func (h *historyRead) parts(ranges []stream.Range, blocks map[int32]*sarama.FetchResponseBlock, gaps map[int32]*stream.Gap) []stream.PartBatch {
	var parts []stream.PartBatch
	var records recordReader
	var held int64
	for i := range ranges {
		r := ranges[(i+h.turn)%len(ranges)]
		part := stream.PartBatch{Partition: r.Partition, Next: r.From}
		block := blocks[r.Partition]
		switch gap := gaps[r.Partition]; {
		case gap != nil:
			part.Gap, part.Next = gap, min(gap.To, r.To)
		case block == nil:
			continue
		case r.From < r.To:
			page := records.read(block, h.req.Topic, r.Partition, span{r.From, r.To, h.req.MaxBytes - held, held == 0})
			part.Messages, part.Next = page.messages, page.next
			held += page.bytes
			if part.Next == r.From && !h.silent(block, r) {
				continue
			}
			if part.Next == r.From {
				part.Next = r.To
			}
		}
		parts = append(parts, part)
	}
	return parts
}

// silent reports whether there is nothing in a range, though no answer has ever said so: the leader was asked for it
// alone, again and again, and had no record and no error, while records beyond it can be read.
func (h *historyRead) silent(block *sarama.FetchResponseBlock, r stream.Range) bool {
	end := block.HighWaterMarkOffset
	if h.client.isolation() == sarama.ReadCommitted {
		end = block.LastStableOffset
	}
	if !h.alone || end < r.To || len(block.RecordsSet) > 0 || block.Partial {
		return false
	}
	h.silences[r.Partition]++
	return h.silences[r.Partition] >= leastSilences
}

// ask reads ranges from the broker that leads them, and has it say afterwards that the topic is still the one asked
// for: then all that it answered was of that one.
func (h *historyRead) ask(ctx context.Context, leader int32, md topicMetadata, ranges []stream.Range, share int32) (a answer) {
	a.blocks, a.gaps = map[int32]*sarama.FetchResponseBlock{}, map[int32]*stream.Gap{}
	err := h.connections.use(ctx, leader, func(b *sarama.Broker) error {
		clear(a.blocks)
		clear(a.gaps)
		probe := func(r stream.Range) bool { return r.From >= r.To }
		var failure error
		for _, probes := range []bool{false, true} {
			limits := fetchLimits{bytes: share, partition: share}
			if h.alone {
				limits.wait = patientFetch
			}
			if probes {
				limits.wait = 0
				limits.partition = 1 // only whether the offset is refused matters
			}
			led := slices.DeleteFunc(slices.Clone(ranges), func(r stream.Range) bool { return probe(r) != probes })
			if err := h.fetch(ctx, b, md, led, limits, &a); err != nil {
				if _, refused := errors.AsType[sarama.KError](err); !refused {
					return err
				}
				failure = err
			}
		}
		if err := h.verify(ctx, b); err != nil {
			return err
		}
		a.err = failure
		return nil
	})
	if err != nil {
		return answer{err: h.means(err)}
	}
	a.err = h.means(a.err)
	return a
}

// fetch asks for ranges in one request and adds what comes to a. An error code of a partition is returned in the end.
func (h *historyRead) fetch(ctx context.Context, b *sarama.Broker, md topicMetadata, ranges []stream.Range, limits fetchLimits, a *answer) error {
	if len(ranges) == 0 {
		return nil
	}
	places := make([]place, len(ranges))
	for i, r := range ranges {
		places[i] = place{h.req.Topic, r.Partition, r.From, md.partitions[r.Partition].leaderEpoch}
	}
	h.client.metrics.historyRequests.Inc()
	response, err := h.client.fetch(ctx, b, places, limits)
	if err != nil {
		return err
	}
	var failure error
	for _, r := range ranges {
		block := response.GetBlock(h.req.Topic, r.Partition)
		switch {
		case block == nil: // no room for it
		case block.Err == sarama.ErrOffsetOutOfRange:
			if err := h.outOfRange(ctx, b, r, a); err != nil {
				return err
			}
		case block.Err != sarama.ErrNoError:
			failure = fmt.Errorf("partition %d: %w", r.Partition, block.Err)
		default:
			a.blocks[r.Partition] = block
		}
	}
	return failure
}

// outOfRange adds the gap at a range's beginning, if there is one.
func (h *historyRead) outOfRange(ctx context.Context, b *sarama.Broker, r stream.Range, a *answer) error {
	begin, readable, end, err := h.client.bounds(ctx, b, h.req.Topic, r.Partition)
	if err != nil {
		return fmt.Errorf("partition %d: %w", r.Partition, err)
	}
	if gap := gapAt(h.req.Topic, r.Partition, r.From, begin, readable, end); gap != nil {
		a.gaps[r.Partition] = gap
	}
	return nil
}

// verify asks the broker, on the connection that was read from, what the topic is now.
func (h *historyRead) verify(ctx context.Context, b *sarama.Broker) error {
	known, err := h.client.identify(ctx, b, []string{h.req.Topic})
	if err != nil {
		return err
	}
	md, ok := known[h.req.Topic]
	switch {
	case !ok:
		return sarama.ErrUnknown
	case md.err != sarama.ErrNoError:
		return md.err
	case !sameID(md.id, h.req.Incarnation):
		return &stream.RecreatedError{Topic: h.req.Topic, Now: md.id}
	}
	h.learn(h.req.Topic, md)
	return nil
}

// means turns what went wrong with a leader into an error that says whether to ask again. That a leader knows no such
// topic may be because it no longer leads, or doesn't lead yet: the metadata of all decides.
func (h *historyRead) means(err error) error {
	if err == nil || isRecreated(err) {
		return err
	}
	return &stream.Error{Kind: stream.Unavailable, Detail: fmt.Sprintf("Kafka can't serve the topic %s now", h.req.Topic), Err: err}
}

func isRecreated(err error) bool {
	_, ok := errors.AsType[*stream.RecreatedError](err)
	return ok
}
