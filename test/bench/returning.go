package main

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/goodgo/streamgw/internal/bench"
)

// settle is how long the memory of idle connections may take to stand still.
const settle = time.Minute

// idling is the memory of connections that get nothing, and what making them cost.
func idling(name, what, transport string, rightAfter, later float64) row {
	return row{name: name, what: what,
		figures: []figure{
			atMost(idle, "KB", rightAfter), atMost(settled, "KB", later), atMost(perConnect, "µs", 70).scaled(),
		},
		measure: onGateway(func(ctx context.Context, l *lab, s *server, topic string) (map[string]float64, error) {
			r, err := l.bench(ctx, "idle", append(l.aim(s, topic), "--transport", transport, "--conns", "10000", "--connect-rate", "0", "--settle", settle.String())...)
			if err != nil {
				return nil, err
			}
			return map[string]float64{idle: r.Idle.KBPerConn, settled: r.Idle.SettledKBPerConn, perConnect: r.Connect.ServerMicros}, nil
		})}
}

// onGateway measures on a gateway and a topic of its own.
func onGateway(measure func(ctx context.Context, l *lab, s *server, topic string) (map[string]float64, error)) func(context.Context, *lab) (map[string]float64, error) {
	return func(ctx context.Context, l *lab) (map[string]float64, error) {
		s, err := l.gateway(ctx, gather)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		topic, err := l.newTopic(ctx)
		if err != nil {
			return nil, err
		}
		return measure(ctx, l, s, topic)
	}
}

// Figures of clients that come back.
const (
	allBack       = "until all have everything"
	cpuInAll      = "CPU in all"
	fetches       = "fetches a partition, at most"
	p99Before     = "p99 of those who stay, before"
	p99During     = "p99 of those who stay, meanwhile"
	behind        = "1000" // events that they lack
	fetchesMetric = "streamgw_history_requests_total"
)

// resumeFromWindow is clients that lack what the gateway still has in memory.
func resumeFromWindow() row {
	return row{name: "resume-window", what: "1,000 clients come back, each 1,000 events behind, from memory",
		figures: []figure{atMost(allBack, "s", 0.3).scaled(), atMost(cpuInAll, "s", 0.2).scaled()},
		measure: onGateway(func(ctx context.Context, l *lab, s *server, topic string) (map[string]float64, error) {
			r, err := l.bench(ctx, "resume", slices.Concat(l.aim(s, topic), l.publishing(), []string{"--conns", "1000", "--behind", behind})...)
			if err != nil {
				return nil, err
			}
			return resumed(r), nil
		})}
}

// resumeCold is clients of a gateway that was restarted meanwhile: all that they lack is in Kafka only.
func resumeCold() row {
	return row{name: "resume-cold", what: "1,000 clients come back, each 1,000 events behind, from Kafka",
		figures: []figure{atMost(allBack, "s", 3).scaled(), shown(cpuInAll, "s"), atMost(fetches, "", 20)},
		measure: onGateway(func(ctx context.Context, l *lab, warm *server, topic string) (map[string]float64, error) {
			saved := filepath.Join(l.dir, topic+".json")
			if _, err := l.bench(ctx, "resume", slices.Concat(l.aim(warm, topic), l.publishing(), []string{"--conns", "1000", "--behind", behind, "--save", saved})...); err != nil {
				return nil, err
			}
			warm.stop()
			cold, err := l.gateway(ctx, gather)
			if err != nil {
				return nil, err
			}
			defer cold.stop()
			r, err := l.bench(ctx, "resume", slices.Concat(l.aim(cold, topic), l.publishing(), []string{"--conns", "1000", "--from", saved, "--cold"})...)
			if err != nil {
				return nil, err
			}
			return resumed(r), nil
		})}
}

// resumed returns the figures of clients that have come back. A fetch may be of all partitions, so that none of them is
// fetched more often than there are fetches.
func resumed(r *bench.Result) map[string]float64 {
	figures := map[string]float64{allBack: r.Resume.Seconds, cpuInAll: r.Resume.CPUSeconds}
	if all, ok := r.Metrics[fetchesMetric]; ok {
		figures[fetches] = all
	}
	return figures
}

// storm is clients that come back within a second, while others stay.
func storm() row {
	return row{name: "storm", what: "5,000 clients come back within a second, each 1,000 events behind, while 100 stay",
		figures: []figure{shown(allBack, "s"), shown(p99Before, "ms"), shown(p99During, "ms")},
		measure: onGateway(func(ctx context.Context, l *lab, s *server, topic string) (map[string]float64, error) {
			r, err := l.bench(ctx, "storm", slices.Concat(l.aim(s, topic), l.publishing(), []string{"--conns", "100", "--storm-conns", "5000", "--behind", behind, "--rate", "100"})...)
			if err != nil {
				return nil, err
			}
			return map[string]float64{allBack: r.Storm.Seconds, p99Before: r.Storm.Before.P99, p99During: r.Storm.During.P99}, nil
		})}
}
