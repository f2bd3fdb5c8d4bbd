package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/goodgo/streamgw/internal/stream/streamtest"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// readerBench is an embedded cluster with a reader on it.
type readerBench struct {
	*testing.T
	broker  *devbroker.Broker
	cluster *contractCluster
	client  *Client
	reader  *Reader
}

func newReaderBench(t *testing.T, cfg devbroker.Config) *readerBench {
	t.Helper()
	return newReaderBenchWith(t, cfg, sessionParts)
}

// newReaderBenchWith has the reader use sessions for so many partitions and more.
func newReaderBenchWith(t *testing.T, cfg devbroker.Config, sessionParts int) *readerBench {
	t.Helper()
	broker := embedded(t, cfg)
	client := newClient(t, Config{Brokers: broker.Addrs(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	reader := NewReader(client)
	reader.sessionParts = sessionParts
	run(t, reader)
	return &readerBench{t, broker, newContractCluster(t, broker.Addrs(), func() {}), client, reader}
}

// eachWay runs a test on a cluster with a reader that fetches without sessions, and with one that uses them.
func eachWay(t *testing.T, cfg devbroker.Config, test func(b *readerBench)) {
	t.Run("without sessions", func(t *testing.T) { test(newReaderBenchWith(t, cfg, math.MaxInt)) })
	t.Run("in sessions", func(t *testing.T) { test(newReaderBenchWith(t, cfg, 1)) })
}

func (b *readerBench) topic(partitions int) string {
	b.Helper()
	topic := freshTopic(b.T)
	check(b.T, b.cluster.CreateTopic(b.Context(), topic, partitions, nil))
	return topic
}

func (b *readerBench) follow(topic string) *streamtest.Follower {
	b.Helper()
	return streamtest.Follow(b.T, b.reader, topic)
}

func (b *readerBench) produce(rs ...stream.Record) []stream.Message {
	b.Helper()
	offsets, err := b.cluster.Produce(b.Context(), "none", rs...)
	check(b.T, err)
	return streamtest.Messages(rs, offsets)
}

// publish writes numbered records to every partition of a topic, one after the other, until it is stopped, and then
// returns all of them in order.
func (b *readerBench) publish(topic string, partitions int) (stop func() []stream.Message) {
	ctx, cancel := context.WithCancel(b.Context())
	var work sync.WaitGroup
	written := make([][]stream.Message, partitions)
	for p := range int32(partitions) {
		work.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				rs := streamtest.Records(topic, p, i, i+1)
				offsets, err := b.cluster.Produce(context.WithoutCancel(ctx), "none", rs...)
				if err != nil {
					b.Errorf("produce: %v", err)
					return
				}
				written[p] = append(written[p], streamtest.Messages(rs, offsets)...)
			}
		})
	}
	b.Cleanup(func() { cancel(); work.Wait() })
	return func() []stream.Message {
		cancel()
		work.Wait()
		return slices.Concat(written...)
	}
}

// wantAll fails the test unless a follower gets just these messages, in the order of each partition, and no gap.
func (b *readerBench) wantAll(f *streamtest.Follower, want []stream.Message) {
	b.Helper()
	got := f.AwaitMessages(len(want))
	slices.SortStableFunc(got, func(a, b stream.Message) int { return int(a.Partition - b.Partition) })
	streamtest.Same(b.T, "all that was written", got, want)
	if s := f.Seen(); len(s.Starts) != 1 || len(s.Gaps) != 0 {
		b.Fatalf("starts %+v and gaps %+v, want one and none", s.Starts, s.Gaps)
	}
}

func TestReaderFollowsLeaders(t *testing.T) {
	eachWay(t, devbroker.Config{Brokers: 3}, testReaderFollowsLeaders)
}

func testReaderFollowsLeaders(b *readerBench) {
	t := b.T
	topic := b.topic(6)
	f := b.follow(topic)
	stop := b.publish(topic, 6)
	for i := range 12 {
		f.AwaitMessages(len(f.Seen().Messages) + 20)
		partition := i % 6
		check(t, b.broker.MoveLeader(topic, partition, (b.broker.Leader(topic, partition)+1)%3))
	}
	b.wantAll(f, stop())
}

func TestReaderSurvivesBrokers(t *testing.T) {
	eachWay(t, devbroker.Config{Brokers: 3}, testReaderSurvivesBrokers)
}

func testReaderSurvivesBrokers(b *readerBench) {
	t := b.T
	topic := b.topic(6)
	f := b.follow(topic)
	stop := b.publish(topic, 6)
	for id := range 3 {
		f.AwaitMessages(len(f.Seen().Messages) + 20)
		b.broker.Down(id)
		f.AwaitMessages(len(f.Seen().Messages) + 20) // from the others
		check(t, b.broker.Up(id))
	}
	f.AwaitMessages(len(f.Seen().Messages) + 20)
	b.broker.Down()
	select {
	case <-f.Done():
		t.Fatal("Read ended because no broker answers")
	case <-time.After(3 * time.Second): // long enough for every kind of retry to have failed
	}
	check(t, b.broker.Up())
	f.AwaitMessages(len(f.Seen().Messages) + 20)
	b.wantAll(f, stop())
}

func TestReaderKeepsReadingOthersWhileOneBrokerIsAway(t *testing.T) {
	b := newReaderBench(t, devbroker.Config{Brokers: 2})
	topic := b.topic(2)
	check(t, b.broker.MoveLeader(topic, 0, 0))
	check(t, b.broker.MoveLeader(topic, 1, 1))
	f := b.follow(topic)
	b.broker.Down(1)
	var slowest time.Duration
	for i := range 50 {
		begun := time.Now()
		b.produce(streamtest.Records(topic, 0, i, i+1)...)
		f.AwaitMessages(i + 1)
		slowest = max(slowest, time.Since(begun))
	}
	if slowest > 2*time.Second {
		t.Errorf("a message of the broker that is there took %v", slowest)
	}
	check(t, b.broker.Up(1))
	b.produce(streamtest.Records(topic, 1, 0, 5)...)
	f.AwaitNext(1, 5)
}

func TestReadOfWhatCannotBeReadIsUnavailableSoon(t *testing.T) {
	for name, unsettle := range map[string]func(b *readerBench, topic string){
		"all brokers away": func(b *readerBench, _ string) { b.broker.Down() },
		"one leader away":  func(b *readerBench, topic string) { b.broker.Down(b.broker.Leader(topic, 1)) },
		"no leader": func(b *readerBench, topic string) {
			b.broker.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topic, Partitions: []int32{1}, Err: kerr.LeaderNotAvailable, Count: -1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newReaderBench(t, devbroker.Config{Brokers: 2})
			topic := b.topic(2)
			unsettle(b, topic)
			begun := time.Now()
			err := b.reader.Read(t.Context(), topic, func(stream.Batch) { t.Error("emit was called") })
			if e, ok := errors.AsType[*stream.Error](err); !ok || e.Kind != stream.Unavailable {
				t.Errorf("got %v, want an error of kind Unavailable", err)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestReaderStartsAfterAPassingFault(t *testing.T) {
	b := newReaderBench(t, devbroker.Config{})
	topic := b.topic(1)
	b.broker.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets, kmsg.Metadata}, Topic: topic, Err: kerr.LeaderNotAvailable, Count: 4})
	f := b.follow(topic)
	b.wantAll(f, b.produce(streamtest.Records(topic, 0, 0, 3)...))
}

// Errors of every kind come in the midst of reading; none may lose or repeat a message.
func TestReaderSurvivesErrors(t *testing.T) {
	eachWay(t, devbroker.Config{Brokers: 3}, testReaderSurvivesErrors)
}

func testReaderSurvivesErrors(b *readerBench) {
	t := b.T
	topic := b.topic(3)
	f := b.follow(topic)
	stop := b.publish(topic, 3)
	for _, err := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.UnknownTopicOrPartition, kerr.UnknownServerError,
		kerr.OffsetOutOfRange, kerr.KafkaStorageError, kerr.ReplicaNotAvailable, kerr.CorruptMessage, kerr.OffsetNotAvailable,
	} {
		fault := b.broker.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Partitions: []int32{1}, Err: err, Count: 3})
		check(t, fault.Wait(t.Context(), 3))
		f.AwaitNext(1, f.Seen().Next[1]+5)
	}
	b.wantAll(f, stop())
}

func TestReaderWithoutTopicIDs(t *testing.T) {
	b := newReaderBench(t, devbroker.Config{Options: []kfake.Opt{kfake.MaxVersions(kversion.V2_6_0())}})
	topic := b.topic(1)
	f := b.follow(topic)
	b.produce(streamtest.Records(topic, 0, 0, 10)...)
	f.AwaitNext(0, 10)
	check(t, b.cluster.DeleteTopic(t.Context(), topic))
	check(t, b.cluster.CreateTopic(t.Context(), topic, 1, nil))
	b.produce(streamtest.Records(topic, 0, 100, 104)...)
	s := f.Await("a gap", func(s *streamtest.Seen) bool { return len(s.Gaps) > 0 })
	if g := s.Gaps[0]; g.From != 10 || g.To > 4 || g.Reason != stream.GapTruncated {
		t.Errorf("gap %+v, want one by truncation from 10 to the end of the log", g)
	}
	after := b.produce(streamtest.Records(topic, 0, 104, 106)...)
	got := f.Await("what came after", func(s *streamtest.Seen) bool { return s.Next[0] == 6 }).Messages
	streamtest.Same(t, "after the gap", got[len(got)-2:], after)
}

// While emit holds the reader up, so that no request of its stands at the broker, the topic becomes another one.
func TestReaderNoticesARecreationThatItSlept(t *testing.T) {
	eachWay(t, devbroker.Config{}, testReaderNoticesARecreationThatItSlept)
}

func testReaderNoticesARecreationThatItSlept(b *readerBench) {
	t := b.T
	topic, other := b.topic(1), b.topic(1)
	f, held := b.follow(topic), b.follow(other)
	b.produce(streamtest.Records(topic, 0, 0, 2)...)
	f.AwaitNext(0, 2)
	resume := held.Pause()
	b.produce(streamtest.Records(other, 0, 0, 1)...)
	held.Await("the pause", func(s *streamtest.Seen) bool { return s.Waiting })
	begun := time.Now()
	check(t, b.cluster.DeleteTopic(t.Context(), topic))
	check(t, b.cluster.CreateTopic(t.Context(), topic, 1, nil))
	want := b.produce(streamtest.Records(topic, 0, 100, 150)...)
	<-time.After(2*stall - time.Since(begun)) // a stall is what tells the reader that it slept
	resume()
	f.Await("the new start", func(s *streamtest.Seen) bool { return len(s.Starts) == 2 })
	streamtest.Same(t, "of the new topic", f.AwaitMessages(len(want)), want)
}

func TestReaderTakesBatchesLargerThanItsShare(t *testing.T) {
	eachWay(t, devbroker.Config{Brokers: 1}, testReaderTakesBatchesLargerThanItsShare)
}

func testReaderTakesBatchesLargerThanItsShare(b *readerBench) {
	t := b.T
	topic := freshTopic(t)
	check(t, b.cluster.CreateTopic(t.Context(), topic, 3, map[string]string{"max.message.bytes": "20000000"}))
	producer := must[*kgo.Client](t)(kgo.NewClient(kgo.SeedBrokers(b.broker.Addrs()...), kgo.ProducerBatchMaxBytes(18<<20), kgo.RecordPartitioner(kgo.ManualPartitioner())))
	defer producer.Close()
	f := b.follow(topic)
	stop := b.publish(topic, 2)
	for i := range int64(5) {
		check(t, producer.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: 2, Value: make([]byte, (3*i+2)<<20)}).FirstErr())
		f.AwaitNext(2, i+1)
	}
	want := stop()
	got := f.AwaitMessages(len(want) + 5)
	for i, size := 0, 2<<20; i < len(got); i++ {
		if m := got[i]; m.Partition == 2 {
			if len(m.Value) != size {
				t.Errorf("a value of %d bytes, want %d", len(m.Value), size)
			}
			size += 3 << 20
		}
	}
}

// A damaged batch stops its own partition, and no other. Once it is whole again, reading goes on.
func TestReaderWithADamagedBatch(t *testing.T) {
	eachWay(t, devbroker.Config{}, testReaderWithADamagedBatch)
}

func testReaderWithADamagedBatch(b *readerBench) {
	t := b.T
	topic := b.topic(4)
	f := b.follow(topic)
	var damaged, refused atomic.Bool
	damaged.Store(true)
	b.damage(topic, 1, 6, &damaged, &refused)
	var want []stream.Message
	for p := range int32(4) {
		for i := range 4 { // four batches
			want = append(want, b.produce(streamtest.Records(topic, p, 3*i, 3*i+3)...)...)
		}
	}
	for _, p := range []int{0, 2, 3} {
		f.AwaitNext(p, 12)
	}
	f.AwaitNext(1, 6) // up to the damaged one
	b.produce(streamtest.Records(topic, 2, 12, 13)...)
	f.AwaitNext(2, 13)
	if s := f.Seen(); s.Next[1] != 6 || !refused.Load() {
		t.Fatalf("next %v, want the second partition to stand before the damaged batch at 6", s.Next)
	}
	damaged.Store(false)
	f.AwaitNext(1, 12)
	got := slices.DeleteFunc(f.Seen().Messages, func(m stream.Message) bool { return m.Partition != 1 })
	streamtest.Same(t, "the damaged partition", got, want[12:24])
}

// damage has fetches of one partition answered with what the broker has, but that the batch at an offset has a bit
// flipped for as long as on is set.
func (b *readerBench) damage(topic string, partition int32, at int64, on, seen *atomic.Bool) {
	back := must[*kgo.Client](b.T)(kgo.NewClient(kgo.SeedBrokers(b.broker.Addrs()...), kgo.MaxVersions(kversion.V2_4_0())))
	b.Cleanup(back.Close)
	b.broker.Cluster().ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		req := r.(*kmsg.FetchRequest)
		if req.MinBytes == 0 || !on.Load() { // its own
			return nil, nil, false
		}
		b.broker.Cluster().KeepControl()
		again := *req
		again.MinBytes, again.MaxWaitMillis = 0, 10
		var answer kmsg.Response
		var err error
		b.broker.Cluster().SleepControl(func() { answer, err = back.Broker(0).Request(context.Background(), &again) })
		if err != nil {
			b.Errorf("the broker behind: %v", err)
			return nil, err, true
		}
		res := answer.(*kmsg.FetchResponse)
		for i := range res.Topics {
			for j := range res.Topics[i].Partitions {
				p := &res.Topics[i].Partitions[j]
				for rest := p.RecordBatches; res.Topics[i].Topic == topic && p.Partition == partition && len(rest) > 61; {
					var batch kmsg.RecordBatch
					if batch.ReadFrom(rest) != nil {
						break
					}
					if batch.FirstOffset == at {
						rest[12+int(batch.Length)-1] ^= 1
						seen.Store(true)
					}
					rest = rest[12+batch.Length:]
				}
			}
		}
		return res, nil, true
	})
}

func TestReadsEndWithTheReader(t *testing.T) {
	broker := embedded(t, devbroker.Config{})
	cluster := newContractCluster(t, broker.Addrs(), func() {})
	check(t, cluster.CreateTopic(t.Context(), "topic", 1, nil))
	reader := NewReader(newClient(t, Config{Brokers: broker.Addrs()}))
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- reader.Run(ctx) }()
	f := streamtest.Follow(t, reader, "topic")
	cancel()
	if err := <-ran; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
	<-f.Done()
	if e, ok := errors.AsType[*stream.Error](f.Stop()); !ok || e.Kind != stream.Unavailable {
		t.Errorf("Read returned %v, want an error of kind Unavailable", e)
	}
	if err := reader.Read(t.Context(), "topic", func(stream.Batch) {}); err == nil {
		t.Error("a Read of a reader that has ended goes on")
	}
}

// However many topics are read, there is one fetching connection to each broker, one request at a time on it, and a
// series of metrics only for what is read.
func TestReaderSharesConnections(t *testing.T) {
	broker := embedded(t, devbroker.Config{Brokers: 2})
	cluster := newContractCluster(t, broker.Addrs(), func() {})
	registry := prometheus.NewRegistry()
	client := newClient(t, Config{Brokers: broker.Addrs(), Metrics: registry})
	reader := runReader(t, client)
	var followers []*streamtest.Follower
	for i := range 20 {
		topic := fmt.Sprint("topic.", i)
		check(t, cluster.CreateTopic(t.Context(), topic, 4, nil))
		f := streamtest.Follow(t, reader, topic)
		_, err := cluster.Produce(t.Context(), "none", streamtest.Records(topic, int32(i%4), 0, 3)...)
		check(t, err)
		f.AwaitMessages(3)
		followers = append(followers, f)
	}
	values := gather(t, registry)
	awaitFetchConnections(t, registry, 2)
	if n := values["streamgw_events_consumed_total"]; !slices.Equal(n, slices.Repeat([]float64{3}, 20)) {
		t.Errorf("events were consumed by topic: %v, want 3 of each of 20", n)
	}
	for _, f := range followers[1:] {
		f.Stop()
	}
	values = gather(t, registry)
	if n := len(values["streamgw_events_consumed_total"]) + len(values["streamgw_consumer_lag"]); n != 1+4 {
		t.Errorf("%d series though one topic of 4 partitions is read", n)
	}
}

// gather returns the values of each metric's series.
func gather(t testing.TB, registry *prometheus.Registry) map[string][]float64 {
	t.Helper()
	values := map[string][]float64{}
	for _, family := range must[[]*dto.MetricFamily](t)(registry.Gather()) {
		for _, m := range family.GetMetric() {
			values[family.GetName()] = append(values[family.GetName()], m.GetCounter().GetValue()+m.GetGauge().GetValue())
		}
	}
	return values
}
