//go:build integration

// Package exactness shows that clients which reconnect to any replica lose nothing and get nothing twice, while
// gateways and brokers die.
package exactness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

const (
	partitions = 6
	perSecond  = 500
	during     = time.Minute
	perKind    = 200 // clients of each transport
)

func TestEveryClientGetsEveryNumberOnceWhileGatewaysAndBrokersDie(t *testing.T) {
	cluster := harness.StartCluster(t)
	topic := cluster.NewTopic(partitions)
	options := harness.GatewayOptions{Brokers: cluster.Bootstrap, Config: harness.SmallWindows}
	a, b := harness.StartGateway(t, "gateway-a", options), harness.StartGateway(t, "gateway-b", options)
	sampler := harness.Sample(t, a, b)

	crowd := harness.StartCrowd(t, clients(topic, a.URL, b.URL)...)
	crowd.WaitStanding(2 * time.Minute)
	producer := cluster.NewProducer(topic)
	started := time.Now()
	written := make(chan struct{})
	go func() {
		defer close(written)
		producer.SendAt(t.Context(), partitions, perSecond, during)
	}()
	at := func(after time.Duration) {
		t.Helper()
		wait(t.Context(), time.Until(started.Add(after)))
		crowd.Check()
	}

	at(8 * time.Second)
	a.Kill()
	at(12 * time.Second)
	a.Restart()
	at(20 * time.Second)
	moved := cluster.MoveLeaders(topic)
	at(25 * time.Second)
	cluster.StopBroker(2)
	at(35 * time.Second)
	cluster.StartBrokers(2)
	at(48 * time.Second)
	moved += cluster.MoveLeaders(topic)
	at(during)
	<-written
	producer.Flush()
	cluster.CheckLog(topic, producer.Sent())
	crowd.WaitCount(producer.Sent(), 3*time.Minute)

	// What was sent again after the last number would go unseen without a number after it.
	producer.SendAll(5, 0, 1, 2, 3, 4, 5)
	crowd.WaitCount(producer.Sent(), time.Minute)
	report(t, crowd, sampler, producer.Sent(), moved)
}

// clients return resuming clients of both gateways. Half begin at the topic's end, which is its start too, as nothing
// is written before all of them have a position.
func clients(topic string, gateways ...string) (all []*harness.Client) {
	for i := range 2 * perKind {
		from := []string{"from=earliest", "from=latest"}[i/2%2]
		c := &harness.Client{
			Name:      fmt.Sprintf("client %d (%s, %s)", i, harness.Transports()[i%2], from),
			Transport: harness.Transports()[i%2],
			Targets:   gateways,
			Query:     harness.Topics([]string{topic}, from),
			Ledger:    harness.NewLedger(),
			Rand:      rand.New(rand.NewPCG(42, uint64(i))),
		}
		c.Cut = func(r *rand.Rand) *harness.Cut {
			if c.Position() == "" {
				return nil // cut before it knows where it stands, a client of the end may begin anew at a later end
			}
			return cut(r)
		}
		all = append(all, c)
	}
	return all
}

// cut says when a client cuts its connection: some before the first event, most after seconds, at 75 to 150 KB a
// second. It stays away for moments mostly, and now and then for longer than the windows reach back.
func cut(r *rand.Rand) *harness.Cut {
	c := &harness.Cut{After: r.Int64N(1 << 20), Away: time.Duration(r.IntN(1000)) * time.Millisecond}
	if r.IntN(10) == 0 {
		c.After = r.Int64N(1500)
	}
	if r.IntN(4) == 0 {
		c.Away = 4*time.Second + time.Duration(r.IntN(6000))*time.Millisecond
	}
	return c
}

func report(t *testing.T, crowd *harness.Crowd, sampler *harness.Sampler, sent int64, moved int) {
	t.Helper()
	tally := crowd.Tally()
	window := sampler.Sum("streamgw_replays_total", `source="window"`)
	kafka := sampler.Sum("streamgw_replays_total", `source="kafka"`)
	t.Logf("%d events to %d clients: %d deliveries, each number once and in order", sent, len(crowd.Clients), crowd.Deliveries())
	t.Logf("%d connections; %d resumed, %d cut by the client, %d broken by a gateway's end, %d ended before the first event, %d refused",
		tally.Connected, tally.Resumed, tally.Cuts, tally.Broken, tally.Bare, tally.Refused)
	t.Logf("replays: %.0f from memory, %.0f from Kafka; %d changes of leaders", window, kafka, moved)
	for what, n := range map[string]float64{
		"client that cut its connection and resumed":   float64(tally.Cuts),
		"connection that a killed gateway broke":       float64(tally.Broken),
		"connection that ended before its first event": float64(tally.Bare),
		"resumed connection":                           float64(tally.Resumed),
		"replay from memory":                           window,
		"replay from Kafka":                            kafka,
		"change of a leader":                           float64(moved),
	} {
		if n == 0 {
			t.Errorf("there was no %s: the test showed less than it is for", what)
		}
	}
	if want := int64(2*perKind) * int64(during.Seconds()) * perSecond; crowd.Deliveries() < want {
		t.Errorf("%d deliveries were checked, %d were to be", crowd.Deliveries(), want)
	}
}

// wait lets the scenario reach its next event.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
