package harness

import (
	"bufio"
	"bytes"
	"context"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Metrics are a gateway's counters and gauges at one moment, by name and labels as /metrics writes them.
type Metrics map[string]float64

// ParseMetrics reads the text format of Prometheus.
func ParseMetrics(text []byte) Metrics {
	m := Metrics{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			m[line[:i]] = v
		}
	}
	return m
}

// Sum adds all series of a name that have these labels, each written as name="value".
func (m Metrics) Sum(name string, labels ...string) (sum float64) {
series:
	for key, v := range m {
		base, rest, _ := strings.Cut(key, "{")
		if base != name {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue series
			}
		}
		sum += v
	}
	return sum
}

// Metrics returns the gateway's metrics now; nil while it doesn't answer.
func (g *Gateway) Metrics() Metrics {
	status, body, err := Get(g.Admin + "/metrics")
	if err != nil || status != 200 {
		return nil
	}
	return ParseMetrics(body)
}

// Sampler keeps the last metrics of every run of some gateways, so that a killed one's counts aren't lost with it.
type Sampler struct {
	mu   sync.Mutex
	runs map[int]Metrics // by process id
}

// Sample reads the metrics of gateways every quarter of a second until the test ends.
func Sample(t testing.TB, gateways ...*Gateway) *Sampler {
	s := &Sampler{runs: map[int]Metrics{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, g := range gateways {
		wg.Go(func() {
			for ctx.Err() == nil {
				s.take(g)
				pause(ctx, 250*time.Millisecond)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

func (s *Sampler) take(g *Gateway) {
	pid := g.PID()
	if m := g.Metrics(); m != nil && pid == g.PID() {
		s.mu.Lock()
		s.runs[pid] = m
		s.mu.Unlock()
	}
}

// Sum adds a counter over all gateways and all their runs so far.
func (s *Sampler) Sum(name string, labels ...string) (sum float64) {
	s.mu.Lock()
	runs := maps.Clone(s.runs)
	s.mu.Unlock()
	for _, m := range runs {
		sum += m.Sum(name, labels...)
	}
	return sum
}
