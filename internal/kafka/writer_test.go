package kafka

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// refusal answers a write with an error code.
func refusal(req *kmsg.ProduceRequest, code int16) kmsg.Response {
	res := req.ResponseKind().(*kmsg.ProduceResponse)
	topic := kmsg.NewProduceResponseTopic()
	topic.Topic = req.Topics[0].Topic
	partition := kmsg.NewProduceResponseTopicPartition()
	partition.ErrorCode = code
	topic.Partitions = append(topic.Partitions, partition)
	res.Topics = append(res.Topics, topic)
	return res
}

// TestARecordIsNotAcknowledgedAsAnotherOne has a leader append a batch, and then say or let believe that it didn't, until
// the batch's time is over. The next batch must not pass for that one.
func TestARecordIsNotAcknowledgedAsAnotherOne(t *testing.T) {
	for name, answer := range map[string]func(req *kmsg.ProduceRequest, first bool) (kmsg.Response, error){
		"it lost the lead while it waited for replicas": func(req *kmsg.ProduceRequest, _ bool) (kmsg.Response, error) {
			return refusal(req, kerr.NotLeaderForPartition.Code), nil
		},
		"its connection was cut, and there is no leader": func(req *kmsg.ProduceRequest, first bool) (kmsg.Response, error) {
			if first {
				return nil, context.Canceled // closes the connection
			}
			return refusal(req, kerr.LeaderNotAvailable.Code), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := embedded(t, devbroker.Config{Brokers: 1, Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}}})
			behind := must[*kgo.Client](t)(kgo.NewClient(kgo.SeedBrokers(b.Addrs()...), kgo.MaxVersions(kversion.V2_4_0())))
			defer behind.Close()
			p := newPublisher(t, newClient(t, Config{Brokers: b.Addrs()}), PublisherConfig{Timeout: 1500 * time.Millisecond})
			publish := func(value string) ([]stream.Receipt, error) {
				return p.Publish(t.Context(), []stream.Record{{Topic: "orders", Value: []byte(value)}})
			}
			must[[]stream.Receipt](t)(publish("zero"))
			const mark = 7 // the timeout of what the broker is to append
			var appended, healthy atomic.Bool
			b.Cluster().ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
				req := r.(*kmsg.ProduceRequest)
				b.Cluster().KeepControl()
				if req.TimeoutMillis == mark || healthy.Load() {
					return nil, nil, false
				}
				first := appended.CompareAndSwap(false, true)
				if first {
					same := *req
					same.TimeoutMillis = mark
					b.Cluster().SleepControl(func() { must[kmsg.Response](t)(behind.Broker(0).Request(context.Background(), &same)) })
				}
				res, err := answer(req, first)
				return res, err, true
			})
			if receipts, err := publish("first"); err == nil {
				t.Fatalf("first was acknowledged: %+v", receipts)
			}
			healthy.Store(true)
			receipts := must[[]stream.Receipt](t)(publish("second"))
			for _, r := range consume(t, "orders", 3, b.Addrs())[0] {
				if r.Offset == receipts[0].Offset && string(r.Value) != "second" {
					t.Errorf("second was acknowledged at offset %d, where %q is", r.Offset, r.Value)
				}
			}
		})
	}
}

func TestABadRecordCostsOthersNothing(t *testing.T) {
	b := embedded(t, devbroker.Config{Brokers: 1, Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}}})
	p := newPublisher(t, newClient(t, Config{Brokers: b.Addrs()}), PublisherConfig{})
	b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidRecord, Count: -1, When: func(r kmsg.Request) bool {
		return bytes.Contains(r.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records, []byte("bad"))
	}})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			value := "good"
			if i == 25 {
				value = "bad"
			}
			_, err := p.Publish(t.Context(), []stream.Record{{Topic: "orders", Key: []byte("k"), Value: []byte(value)}})
			if (err != nil) != (value == "bad") {
				t.Errorf("a %s record: %v", value, err)
			}
		})
	}
	wg.Wait()
}

func TestABatchThatIsTooLargeIsSplitInFewRequests(t *testing.T) {
	b := embedded(t, devbroker.Config{Brokers: 1, Topics: []devbroker.Topic{{Name: "orders", Partitions: 1, Configs: map[string]string{"max.message.bytes": "20000"}}}})
	p := newPublisher(t, newClient(t, Config{Brokers: b.Addrs()}), PublisherConfig{})
	var requests atomic.Int64
	b.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster().KeepControl()
		requests.Add(1)
		return nil, nil, false
	})
	records := make([]stream.Record, 1000)
	for i := range records {
		records[i] = stream.Record{Topic: "orders", Value: make([]byte, 450)}
	}
	if _, err := p.Publish(t.Context(), records); err != nil || requests.Load() > 200 {
		t.Errorf("%d requests for 1,000 records of which 40 fit in one: %v", requests.Load(), err)
	}
}
