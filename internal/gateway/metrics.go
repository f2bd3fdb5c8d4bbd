package gateway

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the gateway does for its clients.
type metrics struct {
	connections *prometheus.GaugeVec
	opened      *prometheus.CounterVec
	closed      *prometheus.CounterVec
	blocked     prometheus.Gauge
	delivered   *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	limited     *prometheus.CounterVec
	delivery    prometheus.Histogram
	transports  map[string]*transportMetrics
}

// transportMetrics are those of one transport, so that a stream needn't look them up.
type transportMetrics struct {
	name   string
	open   prometheus.Gauge
	opened prometheus.Counter
	closed *prometheus.CounterVec // by reason
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "streamgw_connections", Help: "Streams that are open.",
		}, []string{"transport"}),
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamgw_connections_opened_total", Help: "Streams that were opened.",
		}, []string{"transport"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamgw_connections_closed_total", Help: "Streams that ended, by reason: client, timeout, drain or the name of a problem.",
		}, []string{"transport", "reason"}),
		blocked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "streamgw_connections_blocked", Help: "Streams whose client takes nothing at the moment. Each holds a goroutine and what was begun to be written.",
		}),
		delivered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamgw_events_delivered_total", Help: "Events written to clients.",
		}, []string{"topic", "transport"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamgw_refusals_total", Help: "Requests that were refused, by the name of the problem.",
		}, []string{"problem"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamgw_limited_total", Help: "What a client was refused because it was over a limit, by the limit's setting.",
		}, []string{"limit"}),
		delivery: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "streamgw_delivery_seconds",
			Help:    "From a record's timestamp to its write, once per write for its oldest message. Messages older than their subscription (replays) aren't observed.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
	}
	if registry != nil {
		registry.MustRegister(m.connections, m.opened, m.closed, m.blocked, m.delivered, m.refusals, m.limited, m.delivery)
	}
	m.transports = make(map[string]*transportMetrics)
	for _, name := range []string{"sse", "ndjson", "websocket"} {
		m.transports[name] = &transportMetrics{
			name, m.connections.WithLabelValues(name), m.opened.WithLabelValues(name),
			m.closed.MustCurryWith(prometheus.Labels{"transport": name}),
		}
	}
	return m
}

// name returns the last part of a problem's type.
func (p problem) name() string { return p.Type[strings.LastIndexByte(p.Type, ':')+1:] }

func (m *metrics) refused(p problem) { m.refusals.WithLabelValues(p.name()).Inc() }

// of returns the metrics of a transport.
func (m *metrics) of(transport string) *transportMetrics { return m.transports[transport] }

// begin counts a stream in.
func (t *transportMetrics) begin() {
	t.opened.Inc()
	t.open.Inc()
}

// end counts it out.
func (t *transportMetrics) end(reason string) {
	t.open.Dec()
	t.closed.WithLabelValues(reason).Inc()
}
