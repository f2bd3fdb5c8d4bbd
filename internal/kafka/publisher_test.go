package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var _ stream.Publisher = (*Publisher)(nil)

func newPublisher(t *testing.T, c *Client, cfg PublisherConfig) *Publisher {
	t.Helper()
	p := must[*Publisher](t)(c.Publisher(cfg))
	t.Cleanup(func() { p.Close() })
	return p
}

// consume reads n records of a topic with other software than what wrote them, by partition.
func consume(t *testing.T, topic string, n int, brokers []string) map[int32][]*kgo.Record {
	t.Helper()
	client := must[*kgo.Client](t)(kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())))
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	records := map[int32][]*kgo.Record{}
	for got := 0; got < n; {
		fetches := client.PollFetches(ctx)
		check(t, fetches.Err())
		for _, r := range fetches.Records() {
			records[r.Partition] = append(records[r.Partition], r)
			got++
		}
	}
	return records
}

func partition(n int32) *int32 { return &n }

func TestWhatIsPublishedIsReadAsItWas(t *testing.T) {
	for _, compression := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			k, topic := onCluster(t, 1)
			p := newPublisher(t, k.client(t), PublisherConfig{Compression: compression})
			at := time.UnixMilli(1_700_000_000_123)
			records := []stream.Record{
				{Topic: topic, Key: []byte("k"), Value: []byte("v"), Timestamp: at, Headers: []stream.Header{{Name: "a", Value: []byte("1")}, {Name: "a"}, {Name: "b", Value: []byte{}}}},
				{Topic: topic, Key: nil, Value: []byte{}, Timestamp: at.Add(-time.Hour)},
				{Topic: topic, Key: []byte{}, Value: nil, Timestamp: at.Add(time.Hour)},
				{Topic: topic, Value: bytes.Repeat([]byte("long "), 10_000)},
			}
			receipts := must[[]stream.Receipt](t)(p.Publish(t.Context(), records))
			got := consume(t, topic, len(records), k.brokers)[0]
			for i, r := range records {
				if want := (stream.Receipt{Topic: topic, Offset: int64(i)}); receipts[i] != want {
					t.Errorf("receipt %d is %+v, want %+v", i, receipts[i], want)
				}
				if !bytes.Equal(got[i].Key, r.Key) || (got[i].Key == nil) != (r.Key == nil) || !bytes.Equal(got[i].Value, r.Value) || (got[i].Value == nil) != (r.Value == nil) {
					t.Errorf("record %d came back as %q: %.20q", i, got[i].Key, got[i].Value)
				}
				if want := r.Timestamp; !want.IsZero() && !got[i].Timestamp.Equal(want) {
					t.Errorf("record %d is of %v, want %v", i, got[i].Timestamp, want)
				}
			}
			if now := time.Since(got[3].Timestamp); now < 0 || now > time.Minute {
				t.Errorf("a record without a time is of %v", got[3].Timestamp)
			}
			if h := got[0].Headers; len(h) != 3 || string(h[0].Value) != "1" || h[1].Value != nil || h[2].Value == nil {
				t.Errorf("headers are %q", h)
			}
		})
	}
}

func TestKeysGoWhereOtherClientsPutThem(t *testing.T) {
	const partitions = 7
	k, topic := onCluster(t, partitions)
	p := newPublisher(t, k.client(t), PublisherConfig{})
	java := kgo.StickyKeyPartitioner(nil).ForTopic(topic)
	var records []stream.Record
	for i := range 100 {
		records = append(records, stream.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", i)})
	}
	records = append(records, stream.Record{Topic: topic, Key: []byte{}}, stream.Record{Topic: topic, Key: []byte("ключ")})
	for i, receipt := range must[[]stream.Receipt](t)(p.Publish(t.Context(), records)) {
		if want := java.Partition(&kgo.Record{Key: records[i].Key}, partitions); int(receipt.Partition) != want {
			t.Errorf("key %q went to partition %d, others put it in %d", records[i].Key, receipt.Partition, want)
		}
	}
}

func TestRecordsGoToThePartitionTheyName(t *testing.T) {
	k, topic := onCluster(t, 3)
	p := newPublisher(t, k.client(t), PublisherConfig{})
	receipts := must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{
		{Topic: topic, Partition: partition(2), Key: []byte("a")}, {Topic: topic, Partition: partition(0)}, {Topic: topic, Partition: partition(2)},
	}))
	want := []stream.Receipt{{Topic: topic, Partition: 2}, {Topic: topic}, {Topic: topic, Partition: 2, Offset: 1}}
	if !slices.Equal(receipts, want) {
		t.Errorf("receipts are %+v, want %+v", receipts, want)
	}
	for _, n := range []int32{3, -1} {
		_, err := p.Publish(t.Context(), []stream.Record{{Topic: topic, Partition: partition(n)}})
		wantKind(t, err, stream.BadRequest)
	}
}

func TestRecordsWithoutAKeyOfOneCallStayTogether(t *testing.T) {
	k, topic := onCluster(t, 5)
	p := newPublisher(t, k.client(t), PublisherConfig{})
	seen := map[int32]bool{}
	for range 40 {
		receipts := must[[]stream.Receipt](t)(p.Publish(t.Context(), make3(topic)))
		if receipts[0].Partition != receipts[1].Partition || receipts[2].Offset != receipts[0].Offset+2 {
			t.Fatalf("receipts are %+v", receipts)
		}
		seen[receipts[0].Partition] = true
	}
	if len(seen) < 2 {
		t.Error("40 calls went to one partition")
	}
}

func make3(topic string) []stream.Record {
	return []stream.Record{{Topic: topic, Value: []byte("0")}, {Topic: topic, Value: []byte("1")}, {Topic: topic, Value: []byte("2")}}
}

func TestARecordThatIsTooLargeIsRefusedAndOthersAreNot(t *testing.T) {
	k, topic := onCluster(t, 1, "max.message.bytes", "100000")
	p := newPublisher(t, k.client(t), PublisherConfig{})
	noise := make([]byte, 150_000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	_, err := p.Publish(t.Context(), []stream.Record{{Topic: topic, Value: noise}})
	wantKind(t, err, stream.TooLarge)

	_, err = p.Publish(t.Context(), []stream.Record{{Topic: topic, Value: []byte("small")}, {Topic: topic, Value: noise}})
	wantKind(t, err, stream.TooLarge)

	// Together they are more than the topic takes; one by one they aren't.
	half := noise[:60_000]
	receipts := must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: topic, Value: half}, {Topic: topic, Value: half}}))
	if receipts[1].Offset != receipts[0].Offset+1 {
		t.Errorf("receipts are %+v", receipts)
	}
}

func TestARecordThatATopicDoesNotTakeIsABadRequest(t *testing.T) {
	k, topic := onCluster(t, 1, "cleanup.policy", "compact")
	if k.broker != nil { // which takes it
		k.broker.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidRecord})
	}
	p := newPublisher(t, k.client(t), PublisherConfig{})
	_, err := p.Publish(t.Context(), []stream.Record{{Topic: topic, Value: []byte("a compacted topic wants a key")}})
	wantKind(t, err, stream.BadRequest)
	must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: topic, Key: []byte("k")}}))
}

func TestNothingIsWrittenWhenOneTopicDoesNotExist(t *testing.T) {
	k, topic := onCluster(t, 1)
	c := k.client(t)
	p := newPublisher(t, c, PublisherConfig{})
	_, err := p.Publish(t.Context(), []stream.Record{{Topic: topic}, {Topic: topic + ".missing"}})
	wantKind(t, err, stream.NotFound)
	if found := must[stream.Topic](t)(c.Topics().Lookup(t.Context(), topic)); found.End[0] != 0 {
		t.Errorf("%d records were written", found.End[0])
	}
	_, err = p.Publish(t.Context(), []stream.Record{{Topic: "__consumer_offsets"}})
	wantKind(t, err, stream.NotFound)
}

func TestManyPublishersAtOnceKeepTheirOrder(t *testing.T) {
	const callers, calls = 20, 50
	k, topic := onCluster(t, 3)
	p := newPublisher(t, k.client(t), PublisherConfig{Compression: "lz4"})
	var work sync.WaitGroup
	for caller := range callers {
		work.Go(func() {
			for n := range calls {
				if _, err := p.Publish(t.Context(), []stream.Record{{Topic: topic, Key: fmt.Appendf(nil, "%d", caller), Value: fmt.Appendf(nil, "%d", n)}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	wantEachOnceInOrder(t, consume(t, topic, callers*calls, k.brokers), callers, calls)
}

// wantEachOnceInOrder checks that the values 0, 1, 2, … of every key are there once each, in order.
func wantEachOnceInOrder(t *testing.T, records map[int32][]*kgo.Record, keys, values int) {
	t.Helper()
	next := map[string]int{}
	for _, part := range records {
		for _, r := range part {
			if want := fmt.Sprint(next[string(r.Key)]); string(r.Value) != want {
				t.Fatalf("key %s goes on with %s, want %s", r.Key, r.Value, want)
			}
			next[string(r.Key)]++
		}
	}
	for key, n := range next {
		if n != values {
			t.Errorf("key %s has %d values, want %d", key, n, values)
		}
	}
	if len(next) != keys {
		t.Errorf("%d keys, want %d", len(next), keys)
	}
}

func TestEachRecordIsWrittenOnceWhileBrokersComeAndGo(t *testing.T) {
	const callers, calls = 6, 60
	b := embedded(t, devbroker.Config{Brokers: 3, Topics: []devbroker.Topic{{Name: "orders", Partitions: 3}}})
	c := newClient(t, Config{Brokers: b.Addrs()})
	p := newPublisher(t, c, PublisherConfig{Timeout: 30 * time.Second})
	written := make(chan struct{}, callers*calls)
	var work sync.WaitGroup
	for caller := range callers {
		work.Go(func() {
			for n := range calls {
				if _, err := p.Publish(t.Context(), []stream.Record{{Topic: "orders", Key: fmt.Appendf(nil, "%d", caller), Value: fmt.Appendf(nil, "%d", n)}}); err != nil {
					t.Error(err)
				}
				written <- struct{}{}
			}
		})
	}
	for n := range callers * calls {
		<-written
		switch n % 40 {
		case 10: // answers get lost
			b.Down(n / 40 % 3)
			check(t, b.Up())
		case 20:
			b.Cluster().ShufflePartitionLeaders()
		case 30:
			failures := connectFailures(t, c)
			b.Down()
			waitFor(t, func() bool { return connectFailures(t, c) > failures+3 })
			check(t, b.Up())
		}
	}
	work.Wait()
	wantEachOnceInOrder(t, consume(t, "orders", callers*calls, b.Addrs()), callers, calls)
}

func connectFailures(t *testing.T, c *Client) float64 {
	t.Helper()
	var m dto.Metric
	check(t, c.metrics.connectFailures.Write(&m))
	return m.GetCounter().GetValue()
}

func TestABatchWhoseAnswerWasLostIsNotWrittenTwice(t *testing.T) {
	b := embedded(t, devbroker.Config{Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}}})
	p := newPublisher(t, newClient(t, Config{Brokers: b.Addrs()}), PublisherConfig{})
	for _, lost := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.NotEnoughReplicas} {
		fault := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: lost, Count: 2})
		must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: "orders", Value: []byte(lost.Message)}}))
		if fault.Hits() != 2 {
			t.Errorf("%v was answered %d times", lost, fault.Hits())
		}
	}
	receipts := must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: "orders", Value: []byte("last")}}))
	if receipts[0].Offset != 4 {
		t.Errorf("the fifth record has offset %d, want 4", receipts[0].Offset)
	}
}

func TestAWriterThatTheBrokersForgotGoesOn(t *testing.T) {
	b := embedded(t, devbroker.Config{Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}}})
	p := newPublisher(t, newClient(t, Config{Brokers: b.Addrs()}), PublisherConfig{})
	for _, forgot := range []*kerr.Error{kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerEpoch} {
		must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: "orders"}}))
		b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: forgot})
		must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: "orders"}}))
	}
	receipts := must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: "orders"}}))
	if receipts[0].Offset != 6 {
		t.Errorf("the seventh record has offset %d, want 6", receipts[0].Offset)
	}
}

func TestATopicThatWasCreatedAgainIsWrittenTo(t *testing.T) {
	k, topic := onCluster(t, 2)
	p := newPublisher(t, k.client(t), PublisherConfig{})
	for range 3 {
		for i := range 3 {
			receipts := must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: topic, Partition: partition(1)}}))
			if receipts[0].Offset != int64(i) {
				t.Errorf("record %d has offset %d", i, receipts[0].Offset)
			}
		}
		check(t, k.DeleteTopic(t.Context(), topic))
		_, err := p.Publish(t.Context(), []stream.Record{{Topic: topic}})
		wantKind(t, err, stream.NotFound)
		check(t, k.CreateTopic(t.Context(), devbroker.Topic{Name: topic, Partitions: 2}))
	}
}

func TestPublishingFailsInTimeWhenTheBrokersAreAway(t *testing.T) {
	b := embedded(t, devbroker.Config{Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}}})
	c := newClient(t, Config{Brokers: b.Addrs()})
	p := newPublisher(t, c, PublisherConfig{Timeout: 300 * time.Millisecond})
	one := []stream.Record{{Topic: "orders", Value: []byte("v")}}
	must[[]stream.Receipt](t)(p.Publish(t.Context(), one))
	b.Down()
	start := time.Now()
	_, err := p.Publish(t.Context(), one)
	wantKind(t, err, stream.Unavailable)
	within(t, start, 2*time.Second)

	never := newPublisher(t, newClient(t, Config{Brokers: []string{silent(t)}}), PublisherConfig{Timeout: 300 * time.Millisecond})
	_, err = never.Publish(t.Context(), one)
	wantKind(t, err, stream.Unavailable)
	within(t, start, 4*time.Second)

	check(t, b.Up())
	must[[]stream.Receipt](t)(p.Publish(t.Context(), one))
}

func TestACallerThatLeavesIsNotWaitedFor(t *testing.T) {
	b := embedded(t, devbroker.Config{Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}}})
	p := newPublisher(t, newClient(t, Config{Brokers: b.Addrs()}), PublisherConfig{Timeout: time.Second})
	must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: "orders"}}))
	b.Down()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := p.Publish(ctx, []stream.Record{{Topic: "orders"}})
	wantKind(t, err, stream.Unavailable)
	within(t, start, 500*time.Millisecond)
}

func TestWhatWaitsIsBounded(t *testing.T) {
	b := embedded(t, devbroker.Config{Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}}})
	p := newPublisher(t, newClient(t, Config{Brokers: b.Addrs()}), PublisherConfig{MaxPending: 1000})
	large := []stream.Record{{Topic: "orders", Value: make([]byte, 5000)}}
	must[[]stream.Receipt](t)(p.Publish(t.Context(), large)) // there is always room for one
	b.Down()
	waits := make(chan error, 1)
	go func() {
		_, err := p.Publish(context.Background(), large)
		waits <- err
	}()
	pending := func() int64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.pending
	}
	waitFor(t, func() bool { return pending() > 0 })
	_, err := p.Publish(t.Context(), []stream.Record{{Topic: "orders"}})
	wantKind(t, err, stream.Overloaded)
	check(t, b.Up())
	check(t, <-waits)
	waitFor(t, func() bool { return pending() == 0 })
}

func TestOneTopicWithoutALeaderDoesNotHoldUpOthers(t *testing.T) {
	b := embedded(t, devbroker.Config{Brokers: 2, Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}, {Name: "users", Partitions: 1}}})
	check(t, b.MoveLeader("orders", 0, 0))
	check(t, b.MoveLeader("users", 0, 1))
	p := newPublisher(t, newClient(t, Config{Brokers: b.Addrs()}), PublisherConfig{Timeout: 2 * time.Second})
	b.Down(0)
	var stuck sync.WaitGroup
	for range 300 {
		stuck.Go(func() {
			_, err := p.Publish(context.Background(), []stream.Record{{Topic: "orders"}})
			if e, ok := errors.AsType[*stream.Error](err); !ok || e.Kind != stream.Unavailable {
				t.Errorf("the error is %v", err)
			}
		})
	}
	start := time.Now()
	for range 20 {
		must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: "users"}}))
	}
	within(t, start, time.Second)
	stuck.Wait()
}

func TestClosingWritesWhatWaits(t *testing.T) {
	k, topic := onCluster(t, 1)
	c := k.client(t)
	p := must[*Publisher](t)(c.Publisher(PublisherConfig{}))
	must[[]stream.Receipt](t)(p.Publish(t.Context(), []stream.Record{{Topic: topic}}))
	waits := make(chan error, 1)
	go func() {
		_, err := p.Publish(context.Background(), []stream.Record{{Topic: topic}})
		waits <- err
	}()
	check(t, p.Close())
	if err := <-waits; err != nil { // it came after Close
		wantKind(t, err, stream.Unavailable)
	}
	_, err := p.Publish(t.Context(), []stream.Record{{Topic: topic}})
	wantKind(t, err, stream.Unavailable)
}

func TestAPublishersSettingsAreChecked(t *testing.T) {
	c := newClient(t, Config{Brokers: []string{"k"}})
	for want, cfg := range map[string]PublisherConfig{
		"kafka.publish.compression": {Compression: "brotli"},
		"kafka.publish.timeout":     {Timeout: -1},
		"kafka.publish.maxPending":  {MaxPending: -1},
	} {
		_, err := c.Publisher(cfg)
		if wantKind(t, err, stream.BadRequest); !strings.HasPrefix(fmt.Sprint(err), want+": ") {
			t.Errorf("%q doesn't name %s", err, want)
		}
	}
}
