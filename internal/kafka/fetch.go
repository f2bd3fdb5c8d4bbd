package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
	gometrics "github.com/rcrowley/go-metrics"
)

// maxBatch bounds what a compressed batch may hold, so that a small one can't take all memory. Such a batch isn't read,
// and what follows it in its partition isn't either.
const maxBatch = 256 << 20

// setSarama sets what sarama keeps for the whole process only. When it works out how long a fetch request is, it counts
// it in a registry of the process, whatever registry it was given, for each topic, with a goroutine that never ends.
var setSarama = sync.OnceFunc(func() {
	gometrics.UseNilMetrics = true
	sarama.MaxDecompressedBatchSize = maxBatch
})

// place is where to fetch a partition from.
type place struct {
	topic     string
	partition int32
	offset    int64
	epoch     int32 // of the leader as metadata had it, so that another one refuses (KIP-320); -1: any
}

// fetchLimits bounds the answer to a fetch. A broker exceeds the bytes for the first batch that it has.
type fetchLimits struct {
	wait      time.Duration // how long the broker may wait until it has enough
	enough    int32         // bytes for which it doesn't wait; 0: any
	bytes     int32         // of the answer
	partition int32         // of each partition in it
}

// fetchRequest returns a request for no partition yet, and without a session.
func (c *Client) fetchRequest(limits fetchLimits) *sarama.FetchRequest {
	return &sarama.FetchRequest{
		Version:      11, // the last with topic names but for 12, which adds nothing that sarama shows
		MaxWaitTime:  int32(limits.wait.Round(time.Millisecond).Milliseconds()),
		MinBytes:     max(1, limits.enough),
		MaxBytes:     limits.bytes,
		Isolation:    c.isolation(),
		SessionEpoch: -1, // no session (KIP-227)
	}
}

// fetch asks a broker for what several partitions have from their places on, in one request without a session. Whether
// the answer has room for all of them is random: sarama writes a request's partitions in the order of a map.
func (c *Client) fetch(ctx context.Context, b *sarama.Broker, places []place, limits fetchLimits) (*sarama.FetchResponse, error) {
	request := c.fetchRequest(limits)
	for _, p := range places {
		request.AddBlock(p.topic, p.partition, p.offset, limits.partition, p.epoch)
	}
	return c.fetchAside(ctx, b, request)
}

// fetchAside makes a request, and returns when ctx ends whatever sarama waits for.
func (c *Client) fetchAside(ctx context.Context, b *sarama.Broker, request *sarama.FetchRequest) (*sarama.FetchResponse, error) {
	var damage error // of the answer, after which the connection is as good as before
	response, err := aside(ctx, c, b, func(b *sarama.Broker) (*sarama.FetchResponse, error) {
		response, err := b.Fetch(request)
		if unreadable(err) {
			damage, err = err, nil
		}
		return response, err
	})
	if err == nil {
		err = damage
	}
	return fetched(b, response, err)
}

// fetched returns the outcome of a fetch with its error, also one that the answer as a whole has.
func fetched(b *sarama.Broker, response *sarama.FetchResponse, err error) (*sarama.FetchResponse, error) {
	if err == nil && response.ErrorCode != 0 {
		err = sarama.KError(response.ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch from %s: %w", b.Addr(), err)
	}
	return response, nil
}

// unreadable reports whether a fetch failed because of what the answer held, not because of the connection: another
// request, without the partition at fault, may do.
func unreadable(err error) bool {
	var decoding sarama.PacketDecodingError
	return errors.As(err, &decoding) || errors.Is(err, sarama.ErrInsufficientData) || errors.Is(err, sarama.ErrDecompressedBatchTooLarge)
}

// identify asks a broker over a connection of its own what the topics are that it serves now. A fetch on the same
// connection just before, or just after, was of these or met an error: a broker's own word doesn't lag behind its log.
func (c *Client) identify(ctx context.Context, b *sarama.Broker, topics []string) (map[string]topicMetadata, error) {
	response, err := aside(ctx, c, b, func(b *sarama.Broker) (*sarama.MetadataResponse, error) {
		return b.GetMetadata(metadataRequest(topics))
	})
	if err != nil {
		return nil, fmt.Errorf("ask %s about topics: %w", b.Addr(), err)
	}
	known := make(map[string]topicMetadata, len(topics))
	for _, t := range response.Topics {
		known[t.Name] = newTopicMetadata(t)
	}
	return known, nil
}

// bounds asks a broker over a connection of its own where the log of a partition begins and ends, and where reading
// it ends under the configured isolation.
func (c *Client) bounds(ctx context.Context, b *sarama.Broker, topic string, partition int32) (begin, readable, end int64, err error) {
	ask := func(millis int64, isolation sarama.IsolationLevel) (int64, error) {
		response, err := aside(ctx, c, b, func(b *sarama.Broker) (*sarama.OffsetResponse, error) {
			request := sarama.NewOffsetRequest(protocol)
			request.IsolationLevel = isolation
			request.AddBlock(topic, partition, millis, 1)
			return b.GetAvailableOffsets(request)
		})
		if err != nil {
			return 0, err
		}
		block := response.GetBlock(topic, partition)
		if block == nil {
			return 0, sarama.ErrUnknown
		}
		if block.Err != sarama.ErrNoError {
			return 0, block.Err
		}
		return block.Offset, nil
	}
	if begin, err = ask(sarama.OffsetOldest, sarama.ReadUncommitted); err != nil {
		return
	}
	if readable, err = ask(sarama.OffsetNewest, c.isolation()); err != nil {
		return
	}
	end, err = ask(sarama.OffsetNewest, sarama.ReadUncommitted)
	return
}

// gapAt returns what lies between an offset that a partition's leader refused and where reading can go on, given the
// bounds of its log; nil if the offset lies within them after all.
func gapAt(topic string, partition int32, offset, begin, readable, end int64) *stream.Gap {
	gap := stream.Gap{Topic: topic, Partition: partition, From: offset}
	switch {
	case offset < begin:
		gap.To, gap.Reason = begin, stream.GapRetention
	case offset > end:
		gap.To, gap.Reason = readable, stream.GapTruncated
	default:
		return nil
	}
	return &gap
}

// sameID reports whether two ids may be one topic's. A broker without ids doesn't tell.
func sameID(a, b stream.Incarnation) bool {
	return a == b || a == stream.Incarnation{} || b == stream.Incarnation{}
}
