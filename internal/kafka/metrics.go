package kafka

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	gometrics "github.com/rcrowley/go-metrics"
)

// clientMetrics counts what the connections do.
type clientMetrics struct {
	connections     prometheus.Gauge
	connectFailures prometheus.Counter
	historyRequests prometheus.Counter
}

func newClientMetrics(reg prometheus.Registerer) *clientMetrics {
	auto := promauto.With(reg) // registers nothing if reg is nil
	return &clientMetrics{
		connections: auto.NewGauge(prometheus.GaugeOpts{
			Name: "streamgw_kafka_connections", Help: "Open connections to brokers.",
		}),
		connectFailures: auto.NewCounter(prometheus.CounterOpts{
			Name: "streamgw_kafka_connect_failures_total", Help: "Connections to brokers that couldn't be made.",
		}),
		historyRequests: auto.NewCounter(prometheus.CounterOpts{
			Name: "streamgw_history_requests_total", Help: "Fetch requests of reads of history: one to each broker that leads one of a read's partitions, if nothing is in the way.",
		}),
	}
}

// noMetrics keeps nothing. sarama measures every request in histograms and meters of its own otherwise, which nobody
// here reads, and which hold a goroutine for good.
type noMetrics struct{}

func (noMetrics) GetOrRegister(_ string, metric any) any {
	switch metric := metric.(type) {
	case func() gometrics.Meter:
		return gometrics.NilMeter{}
	case func() gometrics.Histogram:
		return gometrics.NilHistogram{}
	case func() gometrics.Counter:
		return gometrics.NilCounter{}
	case func() gometrics.Timer:
		return gometrics.NilTimer{}
	case func() gometrics.Gauge:
		return gometrics.NilGauge{}
	default:
		return metric
	}
}

func (noMetrics) Each(func(string, any))            {}
func (noMetrics) Get(string) any                    { return nil }
func (noMetrics) GetAll() map[string]map[string]any { return nil }
func (noMetrics) Register(string, any) error        { return nil }
func (noMetrics) RunHealthchecks()                  {}
func (noMetrics) Unregister(string)                 {}
func (noMetrics) UnregisterAll()                    {}
