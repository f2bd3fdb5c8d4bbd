package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
)

// isolation is what reads see of transactions.
func (c *Client) isolation() sarama.IsolationLevel {
	if c.cfg.Isolation == readUncommitted {
		return sarama.ReadUncommitted
	}
	return sarama.ReadCommitted
}

// offsets looks up where every partition that md has stands at a place, under the configured isolation: Latest is the
// last stable offset where transactions are respected. In a partition without a message at or after a time it is
// Latest. Each leader is asked once, for all its partitions.
//
// A leader that is missing, moves or is away is waited for as long as ctx lasts; then the error is of kind
// Unavailable. Before, only NotFound ends it, or a [stream.RecreatedError] when the topic isn't md's any more.
func (c *Client) offsets(ctx context.Context, topic string, md topicMetadata, at stream.At) ([]int64, error) {
	if err := topicError(topic, md.err); err != nil {
		return nil, err
	}
	found := make(map[int32]int64, len(md.partitions))
	missing := everyPartition(md)
	patience := lookupPatience
	round := 0
	err := retry(ctx, mayPass, func() error {
		if round++; round > 1 {
			fresh, err := c.sameTopic(ctx, topic, md.id)
			if err != nil {
				return err
			}
			md = fresh
		}
		attempt, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		patience = min(2*patience, c.cfg.RequestTimeout)
		q := offsetQuery{topic, md, at.Kafka(), c.isolation()}
		err := c.askLeaders(attempt, q, missing, found)
		missing = slices.DeleteFunc(missing, func(p int32) bool { _, ok := found[p]; return ok })
		return err
	})
	if err != nil {
		return nil, err
	}
	offsets := make([]int64, len(found))
	for p, offset := range found {
		offsets[p] = offset
	}
	return offsets, nil
}

func everyPartition(md topicMetadata) []int32 {
	all := make([]int32, len(md.partitions))
	for i := range all {
		all[i] = int32(i)
	}
	return all
}

// knownOffsets looks up what offsets does, waiting for no leader: a partition that can't be asked now has -1.
func (c *Client) knownOffsets(ctx context.Context, topic string, md topicMetadata, at stream.At) []int64 {
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	found := map[int32]int64{}
	q := offsetQuery{topic, md, at.Kafka(), c.isolation()}
	_ = c.askLeaders(ctx, q, everyPartition(md), found) // what couldn't be asked is missing in found
	offsets := make([]int64, len(md.partitions))
	for i := range offsets {
		offset, ok := found[int32(i)]
		if !ok {
			offset = -1
		}
		offsets[i] = offset
	}
	return offsets
}

// lookupPatience bounds the first attempt to ask the leaders; each further one has twice as long.
const lookupPatience = 2 * time.Second

// mayPass reports whether an error is one that time may heal.
func mayPass(err error) bool {
	e, ok := errors.AsType[*stream.Error](err)
	return ok && e.Kind == stream.Unavailable && !errors.Is(err, errClosed)
}

// sameTopic asks for a topic's metadata anew. It is an error if the topic is gone, or has another id.
func (c *Client) sameTopic(ctx context.Context, topic string, id stream.Incarnation) (topicMetadata, error) {
	md, err := c.metadata(ctx, topic)
	if err != nil {
		return topicMetadata{}, err
	}
	t := md.topics[topic]
	if err := topicError(topic, t.err); err != nil {
		return topicMetadata{}, err
	}
	if t.id != id {
		return topicMetadata{}, &stream.RecreatedError{Topic: topic, Now: t.id}
	}
	return t, nil
}

// confirm has every leader of a topic say that it is the one that md names. Metadata may come from a broker that lags, and
// a leader that lags would answer for the topic that had the name before. The error is of kind Unavailable.
func (c *Client) confirm(ctx context.Context, topic string, md topicMetadata) error {
	asked := map[int32]bool{}
	for i, p := range md.partitions {
		if asked[p.leader] {
			continue
		}
		asked[p.leader] = true
		addr, err := c.address(p.leader)
		if err != nil {
			return unavailable(fmt.Errorf("partition %d of %s: %w", i, topic, sarama.ErrLeaderNotAvailable))
		}
		attempt, cancel := context.WithTimeout(ctx, lookupPatience)
		answer, err := c.askMetadata(attempt, addr, []string{topic})
		cancel()
		if err != nil {
			return unavailable(fmt.Errorf("ask %s about topic %s: %w", addr, topic, err))
		}
		if said := answer.topics[topic]; said.err != sarama.ErrNoError || !sameID(said.id, md.id) {
			return unavailable(fmt.Errorf("topic %s: its leader %s knows another one", topic, addr))
		}
	}
	return nil
}

// offsetQuery is what a ListOffsets request asks for each partition.
type offsetQuery struct {
	topic     string
	md        topicMetadata
	millis    int64
	isolation sarama.IsolationLevel
}

// askLeaders asks the leaders of the partitions, all at once, and puts what they answer into found. The error is the
// first of any partition that got none.
func (c *Client) askLeaders(ctx context.Context, q offsetQuery, partitions []int32, found map[int32]int64) error {
	type answer struct {
		offsets map[int32]int64
		err     error
	}
	var failure error
	byLeader := map[int32][]int32{}
	for _, p := range partitions {
		if int(p) >= len(q.md.partitions) || q.md.partitions[p].leader < 0 {
			failure = q.partitionError(p, sarama.ErrLeaderNotAvailable)
			continue
		}
		leader := q.md.partitions[p].leader
		byLeader[leader] = append(byLeader[leader], p)
	}
	answers := make(chan answer, len(byLeader))
	for leader, led := range byLeader {
		if !c.start(func() {
			offsets, err := c.askLeader(ctx, leader, q, led)
			answers <- answer{offsets, err}
		}) {
			return unavailable(errClosed)
		}
	}
	for range byLeader {
		a := <-answers
		for p, offset := range a.offsets {
			found[p] = offset
		}
		if failure == nil {
			failure = a.err
		}
	}
	return failure
}

// askLeader asks one broker for the offsets of partitions that it leads. It may return some and an error for the rest.
func (c *Client) askLeader(ctx context.Context, leader int32, q offsetQuery, partitions []int32) (map[int32]int64, error) {
	addr, err := c.address(leader)
	if err != nil {
		return nil, unavailable(fmt.Errorf("look up offsets of %s at broker %d: %w", q.topic, leader, err))
	}
	response, err := exchange(ctx, c, lookups, addr, func(b *sarama.Broker) (*sarama.OffsetResponse, error) {
		request := sarama.NewOffsetRequest(protocol)
		request.IsolationLevel = q.isolation
		for _, p := range partitions {
			request.AddBlock(q.topic, p, q.millis, 1)
		}
		return b.GetAvailableOffsets(request)
	})
	if err != nil {
		return nil, unavailable(fmt.Errorf("look up offsets of %s: %w", q.topic, err))
	}
	offsets := map[int32]int64{}
	var beyond []int32 // no message there
	for _, p := range partitions {
		block := response.GetBlock(q.topic, p)
		switch {
		case block == nil:
			err = q.partitionError(p, sarama.ErrUnknown)
		case block.Err != sarama.ErrNoError:
			err = q.partitionError(p, block.Err)
		case block.Offset < 0 && q.millis >= 0:
			beyond = append(beyond, p)
		default:
			offsets[p] = block.Offset
		}
	}
	if err != nil || len(beyond) == 0 {
		return offsets, err
	}
	q.millis = sarama.OffsetNewest
	ends, err := c.askLeader(ctx, leader, q, beyond)
	for p, offset := range ends {
		offsets[p] = offset
	}
	return offsets, err
}

// partitionError returns what a partition's error code means here. One that says the topic isn't there may come
// from a broker that lags, or that was the leader: the metadata decides.
func (q offsetQuery) partitionError(partition int32, code sarama.KError) error {
	if code == sarama.ErrTopicAuthorizationFailed {
		return topicError(q.topic, code)
	}
	return &stream.Error{
		Kind:   stream.Unavailable,
		Detail: fmt.Sprintf("partition %d of %s can't be read now", partition, q.topic),
		Err:    code,
	}
}
