package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// latencies is a histogram of durations from 1 µs to 10 min, to three digits.
type latencies struct{ h *hdrhistogram.Histogram }

func newLatencies() *latencies {
	return &latencies{hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)}
}

// record takes a duration in nanoseconds. What is out of bounds counts as the bound.
func (l *latencies) record(ns int64) {
	us := min(max(ns/1000, 1), int64(10*time.Minute/time.Microsecond))
	_ = l.h.RecordValue(us) // fails only out of bounds
}

func (l *latencies) add(o *latencies) { l.h.Merge(o.h) }

// Latency is a distribution, in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

func (l *latencies) summary() Latency {
	ms := func(q float64) float64 { return float64(l.h.ValueAtQuantile(q)) / 1000 }
	return Latency{
		Count: l.h.TotalCount(), Mean: l.h.Mean() / 1000,
		P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(l.h.Max()) / 1000,
	}
}

// nanoseconds is the time as marks and latencies have it.
func nanoseconds(t time.Time) int64 { return t.UnixNano() }
