//go:build integration

// Package storm shows that many clients that come back at once, to a gateway that knows nothing yet, cost Kafka a few
// reads.
package storm

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

const (
	clients    = 1000
	partitions = 3
	spread     = 300  // positions that clients stand at
	behind     = 1000 // events that each lacks at least
	mostReads  = 20
)

// place is where a client was cut.
type place struct {
	position string
	ledger   *harness.Ledger
}

func TestAThousandClientsComeBackToARestartedGateway(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(partitions)
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{Brokers: kafka.Bootstrap})
	producer := kafka.NewProducer(topic)
	producer.SendAll((spread+behind)/partitions+1, 0, 1, 2)
	places := walk(t, gateway, topic)

	gateway.Kill()
	gateway.Restart()
	var crowd []*harness.Client
	for i := range clients {
		at := places[i%len(places)]
		crowd = append(crowd, &harness.Client{
			Name: fmt.Sprintf("client %d", i), Transport: harness.Transports()[i%2], Targets: []string{gateway.URL},
			Query:  harness.Topics([]string{topic}, "from="+at.position),
			Ledger: at.ledger.Clone(), Rand: rand.New(rand.NewPCG(11, uint64(i))),
		})
	}
	began := time.Now()
	returned := harness.StartCrowd(t, crowd...)
	returned.WaitCount(producer.Sent(), time.Minute)
	took := time.Since(began)
	metrics := gateway.Metrics()
	reads := metrics.Sum("streamgw_history_reads_total")
	t.Logf("%d clients had all %d to %d events after %v; %.0f reads of history", clients, behind, behind+spread, took.Round(time.Millisecond), reads)
	if reads == 0 || reads > mostReads {
		t.Errorf("%.0f reads of history; %d are enough", reads, mostReads)
	}
	if replays := metrics.Sum("streamgw_replays_total", `source="kafka"`); replays != clients {
		t.Errorf("%.0f clients were brought up from Kafka, of %d", replays, clients)
	}

	producer.SendAll(5, 0, 1, 2) // and all are live
	returned.WaitCount(producer.Sent(), time.Minute)
	returned.Check()
}

// walk reads the first events of a topic and returns the places on the way.
func walk(t *testing.T, g *harness.Gateway, topic string) (places []place) {
	t.Helper()
	ledger := harness.NewLedger()
	r := harness.OpenReader(t, harness.OverSSE, harness.Dial{URL: g.URL, Query: harness.Topics([]string{topic}, "from=earliest")}, ledger)
	defer r.Close()
	for range spread {
		r.Take(1)
		places = append(places, place{r.Position, ledger.Clone()})
	}
	return places
}
