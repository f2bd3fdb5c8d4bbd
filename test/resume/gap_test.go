//go:build integration

package resume

import (
	"cmp"
	"slices"
	"testing"

	"github.com/goodgo/streamgw/test/harness"
)

// wantGaps fails the test unless exactly these gaps were told, in any order of partitions.
func wantGaps(t *testing.T, got []harness.GapData, want ...harness.GapData) {
	t.Helper()
	order := func(a, b harness.GapData) int { return cmp.Compare(a.Partition, b.Partition) }
	got = slices.Clone(got)
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if !slices.Equal(got, want) {
		t.Errorf("told of the gaps\n\t%+v, want\n\t%+v", got, want)
	}
}

func testRetention(t *testing.T, w world) {
	each(t, func(t *testing.T, transport harness.Transport) {
		topic := w.kafka.NewTopic(2)
		producer := w.kafka.NewProducer(topic)
		producer.SendAll(100, 0, 1)
		l := harness.NewLedger()
		r := open(t, transport, w.a, l, "", topic, "from=earliest")
		for l.Next(0, 0) < 20 {
			r.Take(1)
		}
		r.Close()
		w.kafka.DeleteRecords(topic, 0, 60)
		l.Expect(harness.Number{Partition: 0, N: 60})

		cold := open(t, transport, w.b, l, r.Position, topic)
		wantGaps(t, cold.TakeGaps(1), harness.GapData{Topic: topic, Partition: 0, From: 20, To: 60, Reason: "retention"})
		missing := int(100 - l.Next(0, 0) + 100 - l.Next(0, 1))
		again, told := l.Clone(), cold.Position
		cold.Take(missing)
		cold.Close()
		// Cut after it was told, the client isn't told again.
		open(t, transport, w.b, again, told, topic).Take(missing)
	})
}

// recreate replaces a topic by one of the same name and partitions, in which each partition has count events, of series 1.
func recreate(w world, topic string, partitions, count int) {
	w.kafka.DeleteTopic(topic)
	w.kafka.CreateTopic(topic, partitions)
	producer := w.kafka.NewProducer(topic)
	producer.Series = 1
	producer.SendAll(count, 0, 1)
}

// recreated are how long the new topic is beside the 50 events that each partition had.
func recreated() map[string]int { return map[string]int{"shorter": 20, "longer already": 120} }

func wantRecreated(t *testing.T, r *harness.Reader, topic string) {
	t.Helper()
	wantGaps(t, r.TakeGaps(2),
		harness.GapData{Topic: topic, Partition: 0, From: 50, To: 0, Reason: "recreated"},
		harness.GapData{Topic: topic, Partition: 1, From: 50, To: 0, Reason: "recreated"})
}

func testRecreated(t *testing.T, w world) {
	for name, count := range recreated() {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, transport harness.Transport) {
				topic := w.kafka.NewTopic(2)
				w.kafka.NewProducer(topic).SendAll(50, 0, 1)
				l := harness.NewLedger()
				r := open(t, transport, w.a, l, "", topic, "from=earliest")
				r.Take(100)
				r.Close()
				recreate(w, topic, 2, count)
				for name, g := range map[string]*harness.Gateway{"warm": w.a, "cold": w.b} {
					l := harness.NewLedger() // of the new topic: a number of the old one isn't next in it
					l.Expect(harness.Number{Partition: 0, N: 50})
					l.Expect(harness.Number{Partition: 1, N: 50})
					resumed := open(t, transport, g, l, r.Position, topic)
					wantRecreated(t, resumed, topic)
					resumed.Take(2*count - int(l.Count()))
					again := open(t, transport, g, l, resumed.Position, topic)
					if t.Failed() {
						t.Fatalf("on the %s replica", name)
					}
					resumed.Close()
					again.Close()
				}
			})
		})
	}
}

func testRecreatedLive(t *testing.T, w world) {
	for name, count := range recreated() {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, transport harness.Transport) {
				topic := w.kafka.NewTopic(2)
				l := harness.NewLedger()
				live := open(t, transport, w.a, l, "", topic, "from=latest")
				w.kafka.NewProducer(topic).SendAll(50, 0, 1)
				live.Take(100)
				recreate(w, topic, 2, count)
				wantRecreated(t, live, topic)
				live.Take(100 + 2*count - int(l.Count()))
			})
		})
	}
}
