package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"
)

// thousands writes a figure with as many digits as matter.
func thousands(v float64) string {
	switch {
	case v >= 10e6:
		return fmt.Sprintf("%.1f M", v/1e6)
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 10e3:
		return fmt.Sprintf("%.0fk", v/1e3)
	case v >= 1e3:
		return fmt.Sprintf("%.1fk", v/1e3)
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// WriteTable writes a result for people.
func (r *Result) WriteTable(to io.Writer) error {
	w := tabwriter.NewWriter(to, 14, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }

	row("run", "%s over %s, %d connections%s", r.Mode, r.Transport, r.Conns, r.loadText())
	row("connections", "%d open%s, %d failed%s", r.Connect.Opened, optional(" in %.2f s", r.Connect.Seconds), r.Connect.Failed,
		optional(", server CPU %.1f µs each", r.Connect.ServerMicros))
	if p := r.Published; p != nil && p.Events > 0 {
		row("published", "%s events%s", thousands(float64(p.Events)), optionalText(p.PerSecond > 0, fmt.Sprintf(", %s/s, at most %.1f ms late", thousands(p.PerSecond), p.MaxLateMs)))
	}
	if d := r.Deliveries; d != nil && d.Expected > 0 {
		row("deliveries", "%d of %d%s%s", d.Received, d.Expected, optionalText(d.PerSecond > 0, "; "+thousands(d.PerSecond)+"/s"),
			optionalText(d.PerCPUSecond > 0, ", "+thousands(d.PerCPUSecond)+" per CPU-second"))
	}
	if l := r.Latency; l != nil && l.Count > 0 {
		row("latency ms", "%s", l)
	}
	if i := r.Idle; i != nil {
		row("idle", "%.1f KB a connection (%.1f anonymous); %.1f (%.1f) after %.0f s; CPU %.3f of a core, %.2f µs a connection and second",
			i.KBPerConn, i.AnonKBPerConn, i.SettledKBPerConn, i.SettledAnonKB, i.SettledAfter, i.IdleCores, i.IdleMicrosPerConn)
	}
	if s := r.Resume; s != nil {
		row("resume", "%d clients, each %d events behind, had everything after %.3f s%s", s.Completed, s.Behind, s.Seconds, optional(", server CPU %.2f s", s.CPUSeconds))
		row("each client ms", "%s", &s.EachMs)
	}
	if s := r.Storm; s != nil {
		row("storm", "%d of %d clients, each %d events behind, were up to date after %.3f s%s", s.Completed, s.Conns, s.Behind, s.Seconds,
			optional(", server CPU %.2f s", s.CPUSeconds))
		row("each client ms", "%s", &s.EachMs)
		row("live before ms", "%s", &s.Before)
		row("live during ms", "%s", &s.During)
	}
	for _, p := range r.Processes {
		row(p.Name, "CPU %.2f s (%.2f cores)%s%s; resident MB %s before, %s connected, %s at the end, %s peak%s", p.CPUSeconds, p.Cores,
			optional(", %.1f µs an event", p.MicrosPerEvent), optional(", %.2f µs a delivery", p.MicrosPerDelivery),
			mb(p.Before.RSS), mb(p.Connected.RSS), mb(p.End.RSS), mb(p.PeakRSS), optional("; %.1f KB a connection after the first", p.KBPerConn))
	}
	if r.Client.MachineCores > 0 {
		row("machine", "%.2f cores busy; this client took %.2f CPU-s, programs that aren't measured %.2f", r.Client.MachineCores, r.Client.CPUSeconds, r.Client.OthersCPU)
	}
	for _, name := range sortedKeys(r.Metrics) {
		row("counter", "%s +%.0f", name, r.Metrics[name])
	}
	if r.Ratio > 0 {
		row("ratio", "%.2f of %s's %s deliveries per CPU-second", r.Ratio, r.RatioTo, thousands(r.FloorPerCPUSecond))
	}
	e := r.Exactness
	row("exactness", "%d lost, %d repeated, %d out of order, %d of others, %d damaged, %d ended", e.Lost, e.Duplicated, e.Reordered, e.Foreign, e.Damaged, e.Ended)
	for _, note := range r.Notes {
		row("note", "%s", note)
	}
	for _, fault := range r.Faults {
		row("", "%s", fault)
	}
	return w.Flush()
}

func (l *Latency) String() string {
	return fmt.Sprintf("p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.2f  (mean %.2f)", l.P50, l.P90, l.P99, l.P999, l.Max, l.Mean)
}

// loadText tells of a steady load.
func (r *Result) loadText() string {
	switch r.Mode {
	case "idle", "resume":
		return ""
	}
	rate := "as many events as are acknowledged"
	if r.Rate > 0 {
		rate = thousands(r.Rate) + " events/s"
	}
	return fmt.Sprintf(", %s of %d bytes, %.0f s%s", rate, r.Size, r.Seconds, optionalText(r.Batch > 0, fmt.Sprintf(", %d a write", r.Batch)))
}

func optional(format string, v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

func optionalText(there bool, text string) string {
	if !there {
		return ""
	}
	return text
}

func mb(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }

func sortedKeys(m map[string]float64) []string { return slices.Sorted(maps.Keys(m)) }
