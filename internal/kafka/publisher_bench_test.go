package kafka

import (
	"sync/atomic"
	"testing"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
)

// BenchmarkPublish writes records of 256 bytes one a call, from 64 callers at once.
func BenchmarkPublish(b *testing.B) {
	broker, err := devbroker.Start(devbroker.Config{Topics: []devbroker.Topic{{Name: "orders", Partitions: 3}}})
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	c, err := New(Config{Brokers: broker.Addrs()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p, err := c.Publisher(PublisherConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	value := make([]byte, 256)
	var next atomic.Int32
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			partition := next.Add(1) % 3
			if _, err := p.Publish(b.Context(), []stream.Record{{Topic: "orders", Partition: &partition, Value: value}}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkLookup finds a topic of 3 partitions, its begin and its end.
func BenchmarkLookup(b *testing.B) {
	broker, err := devbroker.Start(devbroker.Config{Topics: []devbroker.Topic{{Name: "orders", Partitions: 3}}})
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	c, err := New(Config{Brokers: broker.Addrs()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	topics := c.Topics()
	for b.Loop() {
		if _, err := topics.Lookup(b.Context(), "orders"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
}
