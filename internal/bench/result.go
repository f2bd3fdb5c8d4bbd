package bench

import (
	"fmt"
	"strings"
	"time"
)

// Result is what a run has measured. What doesn't belong to its kind is left out.
type Result struct {
	Mode      string    `json:"mode"`
	Transport Transport `json:"transport"`
	Time      time.Time `json:"time"`
	Conns     int       `json:"conns"`
	First     int       `json:"first,omitempty"` // of them, that came before the others
	Rate      float64   `json:"rate"`            // asked for
	Size      int       `json:"size"`
	Batch     int       `json:"batch,omitempty"` // floor: events in a write
	Seconds   float64   `json:"seconds"`         // that count

	Connect    Connect     `json:"connect"`
	Published  *Published  `json:"published,omitempty"`
	Deliveries *Deliveries `json:"deliveries,omitempty"`
	Exactness  Exactness   `json:"exactness"`
	Latency    *Latency    `json:"latencyMs,omitempty"`
	Processes  []Usage     `json:"processes,omitempty"`
	Client     ClientUsage `json:"client"`
	Idle       *Idled      `json:"idle,omitempty"`
	Resume     *Resumed    `json:"resume,omitempty"`
	Storm      *Storm      `json:"storm,omitempty"`

	Metrics           map[string]float64 `json:"metrics,omitempty"` // what counters of the server grew by
	RatioTo           string             `json:"ratioTo,omitempty"`
	Ratio             float64            `json:"ratio,omitempty"`             // of deliveries per CPU-second to those of the floor
	FloorPerCPUSecond float64            `json:"floorPerCPUSecond,omitempty"` // the floor's

	Faults   []string `json:"faults,omitempty"`   // some of what was wrong, in detail
	Notes    []string `json:"notes,omitempty"`    // what to know when reading the figures
	Problems []string `json:"problems,omitempty"` // why the run doesn't count; none: it does
}

// Connect is how connections came to be.
type Connect struct {
	Opened       int      `json:"opened"`
	Failed       int      `json:"failed"`
	Seconds      float64  `json:"seconds"`
	ServerMicros float64  `json:"serverMicrosEach,omitempty"` // CPU of the first process
	Reasons      []string `json:"reasons,omitempty"`
}

// Published is what was handed over to be delivered, warm-up included.
type Published struct {
	Events    int64   `json:"events"`
	PerSecond float64 `json:"perSecond"` // while events counted
	MaxLateMs float64 `json:"maxLateMs"` // the longest that an event waited for the acknowledgement of others before it
}

// Deliveries are events times connections.
type Deliveries struct {
	Expected     uint64  `json:"expected"` // warm-up included, as is Received
	Received     uint64  `json:"received"`
	Counted      uint64  `json:"counted"` // received while events counted
	PerSecond    float64 `json:"perSecond"`
	PerCPUSecond float64 `json:"perCPUSecond,omitempty"` // of the first process
}

// Usage is what a process took while events counted.
type Usage struct {
	Name              string  `json:"name"`
	PID               int     `json:"pid"`
	CPUSeconds        float64 `json:"cpuSeconds"`
	Cores             float64 `json:"cores"`
	MicrosPerEvent    float64 `json:"microsPerEvent,omitempty"`
	MicrosPerDelivery float64 `json:"microsPerDelivery,omitempty"`
	Before            Memory  `json:"before"`    // any connection, or, where some come first, after they got events
	Connected         Memory  `json:"connected"` // all open, no event yet
	End               Memory  `json:"end"`
	// KBPerConn is what resident memory grew by for each connection after the first ones, from when those had got events
	// to the end, both after three seconds without any: what serving anybody at all takes isn't in it.
	KBPerConn float64 `json:"kbPerConn,omitempty"`
	PeakRSS   int64   `json:"peakRss"`
}

// ClientUsage is what the measuring itself took, and all other programs, while events counted: where the machine's CPUs are
// taken up by others, or whole, latencies say little about the server.
type ClientUsage struct {
	CPUSeconds   float64 `json:"cpuSeconds"`
	OthersCPU    float64 `json:"othersCpuSeconds"` // of programs that are neither measured nor measuring
	MachineCores float64 `json:"machineCores"`     // that were busy
}

// Idled is what connections cost that nothing is sent to.
type Idled struct {
	KBPerConn         float64 `json:"kbPerConn"` // resident, right after all are open
	SettledKBPerConn  float64 `json:"settledKBPerConn"`
	AnonKBPerConn     float64 `json:"anonymousKBPerConn"` // the same without mapped files
	SettledAnonKB     float64 `json:"settledAnonymousKBPerConn"`
	SettledAfter      float64 `json:"settledAfterSeconds"`
	IdleCores         float64 `json:"idleCores"` // the server's CPU meanwhile
	IdleMicrosPerConn float64 `json:"idleMicrosPerConnSecond"`
}

// Resumed is how clients caught up that came back all at once.
type Resumed struct {
	Behind     int     `json:"behind"`
	Seconds    float64 `json:"seconds"`   // from the first connect until the last client had everything
	EachMs     Latency `json:"clientsMs"` // from a client's connect until it had everything
	CPUSeconds float64 `json:"cpuSeconds,omitempty"`
	Cold       bool    `json:"cold,omitempty"`
	Completed  int64   `json:"completed"`
}

// Storm is how a crowd that came back all at once did, and those who stayed.
type Storm struct {
	Conns      int     `json:"conns"`
	Behind     int     `json:"behind"`
	Seconds    float64 `json:"seconds"` // from the first connect until the last one was up to date
	EachMs     Latency `json:"clientsMs"`
	Completed  int64   `json:"completed"`
	CPUSeconds float64 `json:"cpuSeconds,omitempty"` // of the first process, those who stayed included
	Before     Latency `json:"liveBeforeMs"`         // of those who stayed
	During     Latency `json:"liveDuringMs"`
}

// problem notes why the run doesn't count.
func (r *Result) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// remark notes what makes figures say less than they seem to.
func (r *Result) remark(cpus int) {
	if p := r.Published; p != nil && r.Rate > 0 && p.PerSecond > 0 && p.PerSecond < 0.95*r.Rate {
		r.Notes = append(r.Notes, fmt.Sprintf("only %.0f of %.0f events a second were published: the load was lighter than asked for", p.PerSecond, r.Rate))
	}
	if r.Client.MachineCores > 0.95*float64(cpus) {
		r.Notes = append(r.Notes, fmt.Sprintf("all %d CPUs of the machine were busy: latencies are those of a queue for them", cpus))
	}
}

// judge notes what was not as it must be.
func (r *Result) judge(wanted int) {
	if r.Connect.Opened < wanted {
		why := ""
		if len(r.Connect.Reasons) > 0 {
			why = ": " + strings.Join(r.Connect.Reasons, "; ")
		}
		r.problem("only %d of %d connections came to be open%s", r.Connect.Opened, wanted, why)
	}
	e := r.Exactness
	for _, bad := range []struct {
		n    uint64
		what string
	}{
		{e.Lost, "deliveries were lost"},
		{e.Duplicated, "deliveries were repeated"},
		{e.Reordered, "deliveries came out of order"},
		{e.Foreign, "deliveries were of another's stream"},
		{e.Damaged, "values or frames were damaged"},
		{e.Ended, "connections were ended by the server"},
	} {
		if bad.n > 0 {
			r.problem("%d %s", bad.n, bad.what)
		}
	}
}

// Err returns why the run doesn't count, or nil.
func (r *Result) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("this run doesn't count: %s", strings.Join(r.Problems, "; "))
}
