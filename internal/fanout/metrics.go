package fanout

import "github.com/prometheus/client_golang/prometheus"

// metrics counts what hubs do.
type metrics struct {
	subscriptions prometheus.Gauge
	replaysWindow prometheus.Counter
	replaysKafka  prometheus.Counter
	historyReads  prometheus.Counter
	gaps          prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, h *Hubs) *metrics {
	replays := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "streamgw_replays_total",
		Help: "Subscriptions that were brought up from behind, by where the messages came from.",
	}, []string{"source"})
	m := &metrics{
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "streamgw_subscriptions", Help: "Subscriptions that are open.",
		}),
		replaysWindow: replays.WithLabelValues("window"),
		replaysKafka:  replays.WithLabelValues("kafka"),
		historyReads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "streamgw_history_reads_total", Help: "Reads of history. Whoever needs the same stretch of a topic shares them.",
		}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "streamgw_gaps_total", Help: "Gaps told to subscribers: messages that could no longer be had.",
		}),
	}
	if reg == nil {
		return m
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	reg.MustRegister(m.subscriptions, replays, m.historyReads, m.gaps,
		gauge("streamgw_memory_bytes", "What windows, frames, history and pending writes hold of limits.memory.",
			func() float64 { return float64(h.memory.used.Load()) }),
		gauge("streamgw_memory_limit_bytes", "limits.memory.", func() float64 { return float64(h.memory.limit) }),
		gauge("streamgw_history_waiting", "Subscriptions in line for a read of history.",
			func() float64 { _, _, waiting := h.archive.size(); return float64(waiting) }),
		gauge("streamgw_history_bytes", "What was lately read of history and is held for those who need it, of limits.memory.",
			func() float64 { _, bytes, _ := h.archive.size(); return float64(bytes) }),
		gauge("streamgw_hubs", "Topics with a hub.", func() float64 { return float64(len(h.list())) }),
	)
	return m
}
