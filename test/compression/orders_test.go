//go:build integration

package compression

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
	"github.com/twmb/franz-go/pkg/kgo"
)

// orders writes events as a shop would: their orderId counts from 0.
type orders struct {
	t      *testing.T
	client *kgo.Client
	topic  string
	size   int
	rng    *rand.Rand
	sent   int64
}

func newOrders(t *testing.T, kafka *harness.Kafka, topic string, size int) *orders {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(kafka.Bootstrap, ",")...), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &orders{t, client, topic, size, rand.New(rand.NewPCG(1, 2)), 0}
}

// send writes events at a rate for a while, and waits until they are acknowledged.
func (o *orders) send(perSecond int, during time.Duration) {
	o.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	first, began := o.sent, time.Now()
	for total := int64(float64(perSecond) * during.Seconds()); o.sent-first < total; {
		<-tick.C
		for due := int64(float64(perSecond) * time.Since(began).Seconds()); o.sent-first < min(due, total); o.sent++ {
			o.client.Produce(context.Background(), &kgo.Record{Topic: o.topic, Value: o.next()}, func(_ *kgo.Record, err error) {
				if err != nil {
					o.t.Error(err)
				}
			})
		}
	}
	if err := o.client.Flush(context.Background()); err != nil {
		o.t.Fatal(err)
	}
}

var words = strings.Fields("delivered pending warehouse customer standard express priority gift paper invoice credit " +
	"reserved shipped street avenue north south blue green large small cotton steel battery charger adapter notebook pencil " +
	"coffee organic dark roast returned partial refund approved declined")

// next returns an envelope of about the size: mostly numbers and ids where it is small, mostly text where it is large.
func (o *orders) next() []byte {
	n := o.rng.IntN
	word := func() string { return words[n(len(words))] }
	b := fmt.Appendf(nil, `{"eventId":"0190%04x-%04x-7%03x-%04x-%012x","eventType":"order.placed.v1","eventVersion":1,"timestamp":%q,"source":"order-service","data":{"orderId":%d,"total":%d.%02d`,
		n(1<<16), n(1<<16), n(1<<12), n(1<<16), o.rng.Int64N(1<<48), time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), o.sent, n(500), n(100))
	if o.size > 300 {
		b = append(b, `,"items":[`...)
		for len(b) < o.size-150 {
			b = fmt.Appendf(b, `{"sku":"%c%c-%05d","name":"%s %s %s","quantity":%d,"price":%d.%02d},`, 'A'+n(26), 'A'+n(26), n(100_000), word(), word(), word(), 1+n(9), n(90), n(100))
		}
		b[len(b)-1] = ']'
	}
	b = append(b, `,"note":"`...)
	for len(b) < o.size-10 {
		b = append(append(b, word()...), ' ')
	}
	return append(b, `"}}`...)
}
