package kafka

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/goodgo/streamgw/internal/stream/streamtest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// historyBench is a readerBench with a topic of so many partitions, each of 100 messages in 10 batches.
func historyBench(t *testing.T, cfg devbroker.Config, partitions int) (*readerBench, *History, stream.HistoryRequest) {
	t.Helper()
	b := newReaderBench(t, cfg)
	history := NewHistory(b.client)
	t.Cleanup(func() { history.Close() })
	topic := b.topic(partitions)
	for p := range int32(partitions) {
		for i := range 10 {
			b.produce(streamtest.Records(topic, p, 10*i, 10*i+10)...)
		}
	}
	at := must[stream.TopicPosition](t)(history.Offsets(t.Context(), topic, stream.Latest))
	req := stream.HistoryRequest{Topic: topic, Incarnation: at.Incarnation, MaxBytes: 8 << 10}
	for p, next := range at.Next {
		req.Ranges = append(req.Ranges, stream.Range{Partition: int32(p), To: next})
	}
	return b, history, req
}

// wantHistory fails the test unless a request brings so many messages without a hole.
func wantHistory(t *testing.T, history *History, req stream.HistoryRequest, want int) {
	t.Helper()
	req.Ranges = slices.Clone(req.Ranges)
	if n, err := collectHistory(t.Context(), history, req); n != want || err != nil {
		t.Fatalf("%d messages and %v, want %d", n, err, want)
	}
}

func TestHistoryFollowsLeaders(t *testing.T) {
	b, history, req := historyBench(t, devbroker.Config{Brokers: 3}, 6)
	for i := range 6 {
		wantHistory(t, history, req, 600)
		check(t, b.broker.MoveLeader(req.Topic, i, (b.broker.Leader(req.Topic, i)+1)%3))
	}
	wantHistory(t, history, req, 600)
}

// One fetch goes to each broker, however many of the ranges it leads, and the metric counts it.
func TestHistoryAsksEachBrokerOnce(t *testing.T) {
	b, _, req := historyBench(t, devbroker.Config{Brokers: 3}, 12)
	for p := range req.Ranges {
		check(t, b.broker.MoveLeader(req.Topic, p, p%3))
	}
	registry := prometheus.NewRegistry()
	history := NewHistory(newClient(t, Config{Brokers: b.broker.Addrs(), Metrics: registry}))
	t.Cleanup(func() { history.Close() })
	req.MaxBytes = 8 << 20
	parts, err := history.Read(t.Context(), req)
	if err != nil || len(parts) != 12 {
		t.Fatalf("%d parts and %v, want one of each of 12 ranges", len(parts), err)
	}
	if n := gather(t, registry)["streamgw_history_requests_total"]; !slices.Equal(n, []float64{3}) {
		t.Errorf("%v fetch requests for 12 partitions of 3 brokers, want one to each", n)
	}
}

func TestHistorySurvivesErrors(t *testing.T) {
	b, history, req := historyBench(t, devbroker.Config{Brokers: 2}, 4)
	for _, err := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownTopicOrPartition, kerr.OffsetOutOfRange, kerr.KafkaStorageError,
	} {
		b.broker.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: req.Topic, Partitions: []int32{1}, Err: err, Count: 3})
		wantHistory(t, history, req, 400)
	}
}

func TestHistorySurvivesABrokerThatWasAway(t *testing.T) {
	b, history, req := historyBench(t, devbroker.Config{Brokers: 2}, 4)
	wantHistory(t, history, req, 400)
	b.broker.Down()
	check(t, b.broker.Up()) // its connections are gone
	wantHistory(t, history, req, 400)
	b.broker.Down(1)
	back := time.AfterFunc(time.Second, func() { b.broker.Up(1) })
	defer back.Stop()
	wantHistory(t, history, req, 400)
}

func TestHistoryIsUnavailableWhileBrokersAreAway(t *testing.T) {
	b, history, req := historyBench(t, devbroker.Config{}, 1)
	b.broker.Down()
	begun := time.Now()
	_, err := history.Read(t.Context(), req)
	if e, ok := errors.AsType[*stream.Error](err); !ok || e.Kind != stream.Unavailable {
		t.Errorf("read: got %v, want an error of kind Unavailable", err)
	}
	_, err = history.Offsets(t.Context(), req.Topic, stream.Latest)
	if e, ok := errors.AsType[*stream.Error](err); !ok || e.Kind != stream.Unavailable {
		t.Errorf("offsets: got %v, want an error of kind Unavailable", err)
	}
	if took := time.Since(begun); took > historyPatience+startPatience+time.Second {
		t.Errorf("both took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = history.Read(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// A damaged batch is an error of its partition; the other ones, and what lies before it, are read.
func TestHistoryWithADamagedBatch(t *testing.T) {
	b, history, req := historyBench(t, devbroker.Config{}, 3)
	var damaged, seen atomic.Bool
	damaged.Store(true)
	b.damage(req.Topic, 1, 50, &damaged, &seen)
	req.Ranges[1].To = 50
	wantHistory(t, history, req, 250)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	req.Ranges = []stream.Range{{Partition: 1, From: 50, To: 100}}
	if parts, err := history.Read(ctx, req); err == nil {
		t.Errorf("read the damaged batch: %+v", parts)
	}
	damaged.Store(false)
	wantHistory(t, history, req, 50)
	if !seen.Load() {
		t.Error("nothing damaged was answered")
	}
}

// However many read, there are no more than a few connections to a broker, and none once nobody reads.
func TestHistoryBoundsItsConnections(t *testing.T) {
	_, history, req := historyBench(t, devbroker.Config{Brokers: 2}, 4)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	for range 60 {
		go func() {
			again := req
			again.Ranges = slices.Clone(req.Ranges)
			_, err := collectHistory(ctx, history, again)
			done <- err
		}()
	}
	for range 60 {
		check(t, <-done)
	}
	idle := func() (n int) {
		for _, p := range history.connections.pools {
			n += len(p.idle)
		}
		return n
	}
	if n := idle(); n == 0 || n > 2*historyConnectionsEach {
		t.Errorf("%d idle connections, want some, and %d at most", n, 2*historyConnectionsEach)
	}
	history.connections.dropIdle()
	if n := idle(); n != 0 {
		t.Errorf("%d connections are left when idle ones are dropped", n)
	}
	wantHistory(t, history, req, 400)
}
