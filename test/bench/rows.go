package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/goodgo/streamgw/internal/bench"
)

// Names of figures that several rows have: a ratio is of the figure of the same name.
const (
	perCPUSecond = "deliveries a CPU-second"
	p50          = "p50"
	p99          = "p99"
	withBroker   = "deliveries a CPU-second of server and broker"
	perSecond    = "most deliveries a second"
	perEvent     = "CPU an event"
	perConnect   = "CPU a connect"
	idle         = "memory an idle connection"
	settled      = "settled"
	perClient    = "memory of each further client"
	groupsLeft   = "groups left behind"
)

// rows are the lines of the table, in the order in which they are measured.
func rows() []row {
	return []row{
		floor(floorRow, "ready frames, one event a write, to 1,000 sockets, 100 events a second", 1000, 100, 1),
		load{
			name: "sse-1000", what: "1,000 clients × 100 events a second, SSE, gather off",
			mode: "sse", config: gatherOff, conns: 1000, rate: 100, arrivals: bench.RandomArrivals,
		}.row(atLeast(perCPUSecond, floorRow, 0.85), atMost(p99, "ms", 20).scaled()),
		load{
			name: "ws-1000", what: "the same, WebSocket",
			mode: "ws", config: gatherOff, conns: 1000, rate: 100, arrivals: bench.RandomArrivals,
		}.row(atLeast(perCPUSecond, floorRow, 0.85), atMost(p99, "ms", 20).scaled()),
		load{
			name: "sse-1000-gather", what: "1,000 clients × 100 events a second, SSE, gather 10 ms",
			mode: "sse", config: gather, conns: 1000, rate: 100, arrivals: bench.RandomArrivals,
		}.row(atLeast(perCPUSecond, floorRow, 1.25), atMost(p99, "ms", 30)),
		load{
			name: "ws-1000-gather", what: "the same, WebSocket",
			mode: "ws", config: gather, conns: 1000, rate: 100, arrivals: bench.RandomArrivals,
		}.row(atLeast(perCPUSecond, floorRow, 1.25), atMost(p99, "ms", 30)),
		floor("floor-10", "ready frames, ten events a write, to 1,000 sockets, 100 events a second", 1000, 100, 10),
		floor("floor-5000", "ready frames, one event a write, to 5,000 sockets, 20 events a second", 5000, 20, 1),
		load{
			name: "sse-5000", what: "5,000 clients × 20 events a second, SSE, gather off",
			mode: "sse", config: gatherOff, conns: 5000, rate: 20,
		}.row(atLeast(perCPUSecond, "floor-5000", 0.9), shown(p99, "ms")),
		most("most-sse", "1,000 clients, SSE, as many events a second as arrive within a second", "sse"),
		most("most-ws", "the same, WebSocket", "ws"),
		load{
			name: "light", what: "100 clients × 50 events a second, SSE",
			mode: "sse", config: gather, conns: 100, rate: 50,
		}.row(atMost(p50, "ms", 3), atMost(p99, "ms", 5)),
		load{
			name: "keyed-1000", what: "1,000 clients, a key each, 1,000 events a second in all",
			mode: "keyed", config: gather, conns: 1000, rate: 1000,
		}.row(atMost(perEvent, "µs", 50).scaled(), shown(p99, "ms")),
		load{
			name: "keyed-10000", what: "10,000 clients, a key each, 1,000 events a second in all",
			mode: "keyed", config: gather, conns: 10_000, rate: 1000,
		}.row(atMostOf(perEvent, "µs", "keyed-1000", 1.1), shown(p99, "ms")),
		idling("idle-sse", "10,000 connections that get nothing, SSE", "sse", 6, 2),
		idling("idle-ws", "the same, WebSocket", "ws", 7, 5),
		resumeFromWindow(),
		resumeCold(),
		storm(),
		grouper("grouper-kafkajs", "JavaScript", "kafkajs"),
		grouper("grouper", "Go", "sarama"),
		floor("floor-200", "ready frames, one event a write, to 200 sockets, 20 events a second", 200, 20, 1),
		grouped(),
		groupedByMany(),
	}
}

// Configurations of the gateway, in this directory.
const (
	gatherOff = "gather-off.yaml"
	gather    = "gather.yaml"
)

func shown(name, unit string) figure { return figure{name: name, unit: unit, must: bound{none: true}} }

func atMost(name, unit string, most float64) figure {
	return figure{name: name, unit: unit, must: bound{most: most}}
}

func atLeast(name, of string, least float64) figure {
	return figure{name: name, of: of, must: bound{least: least}}
}

func atMostOf(name, unit, of string, most float64) figure {
	return figure{name: name, unit: unit, of: of, must: bound{most: most}}
}

// load is clients that stay, and a steady rate of events.
type load struct {
	name, what  string
	mode        string // of streamgw bench
	config      string
	conns, rate int
	arrivals    string        // how events come; "": evenly
	linger      time.Duration // how long a publisher gathers them
	counted     time.Duration // while events count; 0: ten seconds
}

// Events count for a while, after a while in which caches and the heap find their size.
const (
	counted = 10 * time.Second
	warmup  = 2 * time.Second
)

func (ld load) row(figures ...figure) row {
	return row{name: ld.name, what: ld.what, figures: figures, measure: ld.measure}
}

func (ld load) measure(ctx context.Context, l *lab) (map[string]float64, error) {
	s, err := l.gateway(ctx, ld.config)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	return ld.against(ctx, l, s)
}

// against loads a server that runs.
func (ld load) against(ctx context.Context, l *lab, s *server, more ...string) (map[string]float64, error) {
	topic, err := l.newTopic(ctx)
	if err != nil {
		return nil, err
	}
	r, err := l.bench(ctx, ld.mode, slices.Concat(l.aim(s, topic), l.publishing(), more, []string{
		"--conns", fmt.Sprint(ld.conns), "--rate", fmt.Sprint(ld.rate), "--arrivals", cmp.Or(ld.arrivals, bench.EvenArrivals), "--linger", ld.linger.String(), "--duration", cmp.Or(ld.counted, counted).String(), "--warmup", warmup.String(),
	})...)
	if err != nil {
		return nil, err
	}
	return steady(r), nil
}

// floor is what the machine allows: no gateway, no Kafka.
func floor(name, what string, conns, rate, batch int) row {
	return row{name: name, what: what, figures: []figure{shown(perCPUSecond, ""), shown(p99, "ms")},
		measure: func(ctx context.Context, l *lab) (map[string]float64, error) {
			r, err := l.bench(ctx, "floor", "--conns", fmt.Sprint(conns), "--rate", fmt.Sprint(rate), "--batch", fmt.Sprint(batch),
				"--duration", counted.String(), "--warmup", warmup.String())
			if err != nil {
				return nil, err
			}
			return steady(r), nil
		}}
}

// most looks for the highest rate at which the latency's p99 stays within the bound of its figure, or, where there is
// none, within a second. A rate at which a run isn't exact ends the row: overload is no excuse.
func most(name, what, mode string) row {
	const bounded, within = 250, 1000 // ms
	return row{name: name, what: what,
		figures: []figure{figure{name: perSecond, must: bound{least: 5e6}}.scaled(), atMost(p99, "ms", bounded)},
		measure: func(ctx context.Context, l *lab) (best map[string]float64, err error) {
			try := func(rate int) (bool, error) {
				got, err := load{mode: mode, config: gather, conns: 1000, rate: rate, linger: 5 * time.Millisecond, counted: 6 * time.Second}.measure(ctx, l)
				if err != nil {
					return false, fmt.Errorf("at %d events a second: %w", rate, err)
				}
				keepsUp := got[perSecond] > 0.95*1000*float64(rate)
				if keepsUp && (got[p99] <= bounded || best == nil && got[p99] <= within) {
					best = got
				}
				return keepsUp && got[p99] <= bounded, nil
			}
			if err := climb(try); err != nil {
				return nil, err
			}
			if best == nil {
				return nil, errors.New("p99 passes a second even at the lowest rate")
			}
			return best, nil
		}}
}

// climb tries rates upwards from what must be reached, until one isn't good, or, if that isn't, downwards until one is.
func climb(try func(rate int) (good bool, err error)) error {
	good, err := try(5100) // so that what arrives is five million a second, however it is rounded
	rates, up := []int{3750, 2500, 1000, 500, 250}, good
	if up {
		rates = []int{7500, 10_000, 12_500}
	}
	for _, rate := range rates {
		if err != nil || good != up {
			return err
		}
		good, err = try(rate)
	}
	return err
}
