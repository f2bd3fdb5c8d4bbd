// Package bench loads an endpoint of Server-Sent Events or WebSockets from outside and measures it: events go in at one
// end, by Kafka or HTTP, and come out at many connections. Every event carries a [Mark], by which each connection
// checks that it got every event once and in order; a run with a loss, a repetition or a change of order has failed.
//
// Promises: nothing is allocated, formatted or timed per delivery, so that a client costs little beside what it
// measures. Latency is from just before an event is handed to its publisher until the read that returned it. Clients
// and processes are Linux's (epoll, /proc); elsewhere a run ends with [ErrUnsupported].
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// ErrUnsupported says that this system isn't Linux.
var ErrUnsupported = errors.New("bench needs Linux: its clients are epoll's and its figures of processes /proc's")

// Transport is how events reach the clients.
type Transport string

// The transports.
const (
	SSE       Transport = "sse"
	WebSocket Transport = "ws"
)

// Event is what a [Publisher] writes. Value may be used again once Publish has returned.
type Event struct {
	Key   []byte // nil: none
	Value []byte
}

// Publisher writes events to where the endpoint reads them.
type Publisher interface {
	// Lanes is how many sequences of events are written side by side, each in its own order.
	Lanes() int

	// Publish writes events of a lane, in order, and returns once they are acknowledged. Lanes call it side by side,
	// each once at a time.
	Publish(ctx context.Context, lane int, events []Event) error
}

// How a steady load's events come.
const (
	EvenArrivals   = "even"   // at even times
	RandomArrivals = "random" // as from many publishers that know nothing of each other: a Poisson process
)

// Config says what is measured and with what load. Its defaults are those of the command line.
type Config struct {
	Transport Transport
	URLs      []string // base URLs of servers; connections go to each in turn
	Topic     string

	// Path is what is asked for on the servers, with {topic}, {key} and {position} for what it says. Empty: streamgw's
	// own, whose values come through unchanged, byte for byte, which is then checked too.
	Path        string
	Headers     []string // of the clients' requests, as "Name: value", with the same placeholders
	Subprotocol string   // of WebSocket; empty: streamgw.v1, "-": none
	Send        []string // WebSocket messages that a client begins with, with the same placeholders

	// Ready is what a client must have got before it counts as open. Empty: what streamgw begins a stream with, or
	// nothing beyond the response's head where Path is set. "-": nothing.
	Ready string

	Conns       int
	First       int      // of them, for a steady load: they come before the others, see [Usage.KBPerConn]; 0: none
	ConnectRate float64  // connections a second; 0: as fast as they can be made
	Local       []string // addresses to connect from, in turn; empty: one, or as many as that many connections need
	Readers     int      // threads that read; 0: 1

	Publisher Publisher
	Rate      float64       // events a second in all; 0: as fast as they are acknowledged
	Arrivals  string        // EvenArrivals, which "" is too, or RandomArrivals
	Linger    time.Duration // how long an event waits for others of its lane to be handed over with, as in a producer with linger.ms
	Size      int           // bytes of an event's value; 0: 256
	Batch     int           // events handed over together at most; 0: 500
	KeyPrefix string        // of keyed runs; empty: K
	Keyed     bool          // each connection has a key of its own
	Seed      uint64        // of the padding

	Warmup   time.Duration // events before those that count
	Duration time.Duration // while events count
	Drain    time.Duration // how long nothing may arrive before what is missing counts as lost; 0: 10 s

	Processes  []Process // whose CPU and memory are measured; the first is the server's
	MetricsURL string    // where the server shows its Prometheus metrics; empty: nowhere
	Progress   io.Writer // gets a line a second; nil: none

	run   uint32        // an earlier one that this one goes on with; 0: none
	later int           // connections beside Conns
	rest  time.Duration // without events, before memory is looked at to be compared; 0: 3 s
}

// Process is a process by a name.
type Process struct {
	Name string
	PID  int
}

// Behind says how clients come back.
type Behind struct {
	Events int // that each of them lacks

	// Save is a file to leave the positions in, for a later run: this one publishes and ends. From is such a file: this
	// one only comes back. Whoever runs both may restart the server between them. At most one of both is set.
	Save, From string
	Cold       bool // the caller says that the server has been restarted
}

// streamgw's own paths, and what its streams begin with.
const (
	ssePath  = "/v1/events?topic={topic}"
	wsPath   = "/v1/ws?topic={topic}"
	sseReady = "id: "
	wsReady  = `"type":"subscribed"`
)

// defaultDuration is how long events count where nothing else is said.
const defaultDuration = 10 * time.Second

// withDefaults returns cfg with its defaults filled in.
func (cfg Config) withDefaults() Config {
	setDefault(&cfg.Transport, SSE)
	setDefault(&cfg.Readers, 1)
	setDefault(&cfg.Size, 256)
	setDefault(&cfg.Batch, 500)
	setDefault(&cfg.KeyPrefix, "K")
	setDefault(&cfg.Drain, 10*time.Second)
	setDefault(&cfg.rest, 3*time.Second)
	setDefault(&cfg.Duration, defaultDuration)
	setDefault(&cfg.Subprotocol, "streamgw.v1")
	if cfg.foreign() {
		setDefault(&cfg.Ready, "-")
	}
	if cfg.Transport == WebSocket {
		setDefault(&cfg.Path, wsPath)
		setDefault(&cfg.Ready, wsReady)
	} else {
		setDefault(&cfg.Path, ssePath)
		setDefault(&cfg.Ready, sseReady)
	}
	return cfg
}

// foreign reports whether the server isn't known to be a streamgw.
func (cfg Config) foreign() bool {
	return cfg.Path != "" && !strings.HasPrefix(cfg.Path, ssePath) && !strings.HasPrefix(cfg.Path, wsPath)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Check returns an error that names the flag at fault, if any is. A run does the same.
func (cfg Config) Check() error { return cfg.withDefaults().validate() }

// validate returns an error that names the flag at fault. Its receiver has its defaults.
func (cfg Config) validate() error {
	if len(cfg.URLs) == 0 {
		return errors.New("--url: say where the server is, such as http://127.0.0.1:8080")
	}
	for _, raw := range cfg.URLs {
		u, err := url.Parse(raw)
		if err == nil && (u.Scheme == "https" || u.Scheme == "wss") {
			return fmt.Errorf("--url: %s is encrypted, which bench doesn't speak; measure the server behind what ends TLS", raw)
		}
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "ws" {
			return fmt.Errorf("--url: %q isn't a server's address, such as http://127.0.0.1:8080", raw)
		}
	}
	switch {
	case cfg.Conns < 1:
		return fmt.Errorf("--conns: %d isn't a number of connections", cfg.Conns)
	case cfg.Conns > maxStreams:
		return fmt.Errorf("--conns: %d is more than %d", cfg.Conns, maxStreams)
	case cfg.First < 0 || cfg.First >= cfg.Conns:
		return fmt.Errorf("--first: %d isn't a number of connections below the %d of --conns", cfg.First, cfg.Conns)
	case cfg.Rate < 0:
		return fmt.Errorf("--rate: %v is negative", cfg.Rate)
	case cfg.Linger < 0:
		return fmt.Errorf("--linger: %v is negative", cfg.Linger)
	case cfg.Linger > 0 && cfg.Rate == 0:
		return errors.New("--linger: without a rate every event is due at once, and none can wait for others")
	case cfg.ConnectRate < 0:
		return fmt.Errorf("--connect-rate: %v is negative", cfg.ConnectRate)
	case cfg.Size < MinSize || cfg.Size > maxSize:
		return fmt.Errorf("--size: %d isn't between %d and %d", cfg.Size, MinSize, maxSize)
	case cfg.Readers < 1 || cfg.Readers > 64:
		return fmt.Errorf("--readers: %d isn't between 1 and 64", cfg.Readers)
	case cfg.Duration <= 0 || cfg.Warmup < 0:
		return errors.New("--duration and --warmup: they can't be negative")
	case cfg.Path[0] != '/':
		return fmt.Errorf("--path: %q doesn't begin with /", cfg.Path)
	}
	for _, h := range cfg.Headers {
		if name, _, ok := strings.Cut(h, ":"); !ok || name == "" || strings.ContainsAny(h, "\r\n") {
			return fmt.Errorf("--header: %q isn't 'Name: value'", h)
		}
	}
	return nil
}
