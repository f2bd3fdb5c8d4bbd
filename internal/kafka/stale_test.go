package kafka

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream/streamtest"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestOneAnswerOfABrokerThatLagsStopsNothing: it names a topic from before the one that is read.
func TestOneAnswerOfABrokerThatLagsStopsNothing(t *testing.T) {
	b := newReaderBench(t, devbroker.Config{Brokers: 1})
	topic := b.topic(1)
	stale := must[*metadata](t)(b.client.metadata(t.Context(), topic)).topics[topic]
	check(t, b.cluster.DeleteTopic(t.Context(), topic))
	check(t, b.cluster.CreateTopic(t.Context(), topic, 1, nil))
	f := b.follow(topic)
	b.produce(streamtest.Records(topic, 0, 0, 1)...)
	f.AwaitMessages(1)
	b.reader.mu.Lock()
	for rd := range b.reader.readings {
		b.reader.applyLocked(rd, stale, time.Now())
	}
	b.reader.mu.Unlock()
	b.produce(streamtest.Records(topic, 0, 1, 5)...)
	f.AwaitMessages(5)
	if s := f.Seen(); len(s.Starts) != 1 || len(s.Gaps) != 0 {
		t.Errorf("starts %+v and gaps %+v", s.Starts, s.Gaps)
	}
}

// TestHistoryOfALeaderThatTakesItsTime: answers without a wait are empty, as from a remote store that hasn't delivered.
func TestHistoryOfALeaderThatTakesItsTime(t *testing.T) {
	bench, history, req := historyBench(t, devbroker.Config{Brokers: 1}, 1)
	req.Ranges = req.Ranges[:1]
	var requests atomic.Int64
	silent := func(r *kmsg.FetchRequest, n int64) bool { return r.MaxWaitMillis == 0 || n <= 4 }
	emptyFetches(bench.broker, silent, req.Ranges[0].To, &requests)
	parts, err := history.Read(t.Context(), req)
	if err != nil || len(parts) != 1 || len(parts[0].Messages) == 0 || parts[0].Messages[0].Offset != req.Ranges[0].From {
		t.Errorf("after %d requests: %+v, %v", requests.Load(), parts, err)
	}
}

// emptyFetches answers fetches that are to be silent with no record and no error, as if the log ended at end.
func emptyFetches(b *devbroker.Broker, silent func(req *kmsg.FetchRequest, n int64) bool, end int64, count *atomic.Int64) {
	b.Cluster().ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		req := r.(*kmsg.FetchRequest)
		b.Cluster().KeepControl()
		n := count.Add(1)
		if !silent(req, n) {
			return nil, nil, false
		}
		res := req.ResponseKind().(*kmsg.FetchResponse)
		for _, t := range req.Topics {
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewFetchResponseTopicPartition()
				rp.Partition, rp.HighWatermark, rp.LastStableOffset, rp.LogStartOffset = p.Partition, end, end, 0
				rp.RecordBatches = []byte{}
				rt.Partitions = append(rt.Partitions, rp)
			}
			res.Topics = append(res.Topics, rt)
		}
		return res, nil, true
	})
}
