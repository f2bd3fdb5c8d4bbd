package kafka

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// readerMetrics counts what the live reader does. The series of a topic end with its last reading.
type readerMetrics struct {
	consumed    *prometheus.CounterVec
	lag         *prometheus.GaugeVec
	connections prometheus.Gauge
	requests    prometheus.Counter

	mu    sync.Mutex // guards what follows
	users map[string]*series
}

// series is what metrics hold of a topic.
type series struct {
	users      int
	partitions int32 // that have, or had, a lag
}

func newReaderMetrics(reg prometheus.Registerer) *readerMetrics {
	auto := promauto.With(reg) // registers nothing if reg is nil
	return &readerMetrics{
		consumed: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "streamgw_events_consumed_total", Help: "Messages that the live reader has read.",
		}, []string{"topic"}),
		lag: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "streamgw_consumer_lag", Help: "Offsets between where the live reader stands and the end of the partition.",
		}, []string{"topic", "partition"}),
		connections: auto.NewGauge(prometheus.GaugeOpts{
			Name: "streamgw_fetch_connections", Help: "Connections that the live reader fetches over: one to a broker, and another for a moment when a topic is added.",
		}),
		requests: auto.NewCounter(prometheus.CounterOpts{
			Name: "streamgw_fetch_requests_total", Help: "Fetch requests of the live reader.",
		}),
		users: map[string]*series{},
	}
}

// enter returns the counter of a topic's messages. leave is to be called in the end.
func (m *readerMetrics) enter(topic string) prometheus.Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users[topic] == nil {
		m.users[topic] = &series{}
	}
	m.users[topic].users++
	return m.consumed.WithLabelValues(topic)
}

func (m *readerMetrics) leave(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.users[topic]
	if s.users--; s.users > 0 {
		return
	}
	delete(m.users, topic)
	m.consumed.DeleteLabelValues(topic)
	for p := range s.partitions { // a partial match would look at the series of all topics
		m.lag.DeleteLabelValues(topic, strconv.Itoa(int(p)))
	}
}

// lagOf returns what gives the gauge of each partition of a topic. One that all have left has gauges that nobody sees.
func (m *readerMetrics) lagOf(topic string) func(partition int32) prometheus.Gauge {
	return func(partition int32) prometheus.Gauge {
		m.mu.Lock()
		defer m.mu.Unlock()
		s := m.users[topic]
		if s == nil {
			return prometheus.NewGauge(prometheus.GaugeOpts{})
		}
		s.partitions = max(s.partitions, partition+1)
		return m.lag.WithLabelValues(topic, strconv.Itoa(int(partition)))
	}
}
