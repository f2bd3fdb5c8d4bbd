package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/bench"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// benching is what `streamgw bench` was asked for.
type benching struct {
	program
	config     configFlags
	load       bench.Config
	posting    bench.Posting
	transport  string
	pids       []string
	json       bool
	progress   bool
	ratioTo    string
	settle     time.Duration
	behind     int
	stormConns int
	batch      int
	check      func() error // of what a subcommand was asked for beside; nil: nothing
}

func (p program) benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Load an endpoint of events from outside, and measure it",
		Long: `bench opens many connections to an endpoint of Server-Sent Events or WebSockets, publishes
events through Kafka or HTTP, and measures what comes out: deliveries, latency, and, for
processes that --pid names, CPU and memory. Every connection checks that it gets every event
once and in order. A run with a loss or a duplicate, or with fewer connections than asked
for, ends with exit code 1: it doesn't count.

Latency is from just before an event is handed to its publisher until a client's read
returned it, Kafka included. 'bench floor' measures what this machine can do at all: read other
results as a ratio to it (--ratio-to). The client is on the same machine as a rule and takes CPU as
well: compare CPU per delivery rather than times, in medians of several runs.

It needs Linux.`,
		Example: `  streamgw dev --no-sample &
  streamgw bench sse --topic orders.order.placed --conns 1000 --rate 100 --pid $!

  streamgw bench floor --conns 1000 --rate 100 --json > floor.json
  streamgw bench ws --topic orders.order.placed --brokers kafka:9092 --url http://gateway:8080 \
      --conns 1000 --rate 100 --ratio-to floor.json

  streamgw bench sse --topic t --url http://127.0.0.1:3000 --path '/hub?topic={topic}' \
      --publish-url http://127.0.0.1:3000/hub --publish-body 'topic={topic}&data={event-url}' \
      --publish-header 'Content-Type: application/x-www-form-urlencoded'`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		p.benchLive("sse", "Clients of Server-Sent Events that are all up to date"),
		p.benchLive("ws", "The same over WebSocket"),
		p.benchKeyed(), p.benchIdle(), p.benchResume(), p.benchStorm(), p.benchFloor(), benchFloorWriter(p.in, p.out),
	)
	return cmd
}

func (p program) benchLive(name, short string) *cobra.Command {
	b := &benching{program: p, transport: name}
	cmd := b.command(name, short, "", func(ctx context.Context) (*bench.Result, error) { return bench.Live(ctx, b.load) })
	b.clientFlags(cmd.Flags())
	b.loadFlags(cmd.Flags())
	b.firstFlag(cmd.Flags())
	b.publisherFlags(cmd.Flags())
	return cmd
}

func (p program) benchKeyed() *cobra.Command {
	b := &benching{program: p}
	b.load.Keyed = true
	cmd := b.command("keyed", "Clients with a key of their own each", `
Each connection subscribes to its own key (&key=K0, K1, …), and events take turns over the keys.
Nobody may get another's.`, func(ctx context.Context) (*bench.Result, error) { return bench.Live(ctx, b.load) })
	b.transportFlag(cmd.Flags())
	b.clientFlags(cmd.Flags())
	b.loadFlags(cmd.Flags())
	b.firstFlag(cmd.Flags())
	b.publisherFlags(cmd.Flags())
	return cmd
}

// command makes a subcommand that runs, shows its result and fails if that doesn't count.
func (b *benching) command(name, short, long string, run func(ctx context.Context) (*bench.Result, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Long:  strings.TrimSpace(short + ".\n" + long),
		Args:  arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.run(cmd.Context(), cmd.Flags(), run)
		},
	}
	f := cmd.Flags()
	f.IntVar(&b.load.Conns, "conns", 100, "connections")
	f.IntVar(&b.load.Readers, "readers", 1, "threads that read")
	f.Float64Var(&b.load.ConnectRate, "connect-rate", 2000, "connections a second; 0: as fast as they can be made")
	f.IntVar(&b.load.Size, "size", 256, "bytes of an event's value")
	f.Uint64Var(&b.load.Seed, "seed", 1, "of the values' padding")
	f.DurationVar(&b.load.Drain, "drain", 10*time.Second, "how long nothing may arrive before what is missing counts as lost")
	f.BoolVar(&b.json, "json", false, "print the result as JSON")
	f.BoolVar(&b.progress, "progress", false, "print a line a second to standard error (default on a terminal)")
	return cmd
}

// clientFlags are of what connects to a server that is there already.
func (b *benching) clientFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&b.load.URLs, "url", []string{"http://127.0.0.1:8080"}, "the server; repeat for several, which connections go to in turn")
	f.StringVar(&b.load.Topic, "topic", "orders.order.placed", "topic to publish to and to subscribe to; no one else should write to it")
	f.StringVar(&b.load.Path, "path", "", "what to ask another server for, with {topic} and {key} (default streamgw's own)")
	f.StringArrayVar(&b.load.Headers, "header", nil, "header of the clients' requests as 'Name: value'; repeat for several")
	f.StringVar(&b.load.Subprotocol, "subprotocol", "streamgw.v1", "WebSocket subprotocol; -: none")
	f.StringArrayVar(&b.load.Send, "ws-send", nil, "message that a WebSocket client begins with, with {topic} and {key}; repeat for several")
	f.StringVar(&b.load.Ready, "ready", "", "what a client must have got before it counts as open; -: nothing (default with --path)")
	f.StringSliceVar(&b.load.Local, "local", nil, "addresses to connect from, joined by commas (default: as many of 127.0.0.0/8 as it takes)")
	f.StringVar(&b.load.MetricsURL, "metrics-url", "", "the server's Prometheus metrics, such as http://127.0.0.1:8090/metrics: show what its counters grew by")
	f.StringVar(&b.load.KeyPrefix, "key-prefix", "K", "what keys begin with")
	f.StringSliceVar(&b.pids, "pid", nil, "process to measure, as PID or NAME=PID, joined by commas or repeated; the first is the server's")
	f.StringVar(&b.ratioTo, "ratio-to", "", "file with a result of 'bench floor --json', to compare with")
}

func (b *benching) transportFlag(f *pflag.FlagSet) {
	f.StringVar(&b.transport, "transport", "sse", "sse or ws")
}

// loadFlags are of a steady load.
func (b *benching) loadFlags(f *pflag.FlagSet) {
	f.Float64Var(&b.load.Rate, "rate", 100, "events a second in all; 0: as fast as they are acknowledged")
	f.DurationVar(&b.load.Duration, "duration", 10*time.Second, "while events count")
	f.DurationVar(&b.load.Warmup, "warmup", 2*time.Second, "events before those that count")
}

// firstFlag is of what a connection takes of memory beside what serving anybody does.
func (b *benching) firstFlag(f *pflag.FlagSet) {
	f.IntVar(&b.load.First, "first", 0, "of the connections, how many come before the others and get events for --warmup: memory is compared with what is held then")
}

// publisherFlags are of where events go.
func (b *benching) publisherFlags(f *pflag.FlagSet) {
	b.load.Arrivals = bench.EvenArrivals
	f.Var(choice{&b.load.Arrivals, []string{bench.EvenArrivals, bench.RandomArrivals}}, "arrivals",
		"even: events come at even times, one after the other; random: as from many publishers that know nothing of each other (Poisson)")
	f.DurationVar(&b.load.Linger, "linger", 0, "how long an event waits for others to be published with, as with linger.ms of a producer; latency includes it")
	f.StringVar(&b.posting.URL, "publish-url", "", "publish by POST to this address, instead of Kafka")
	f.StringArrayVar(&b.posting.Headers, "publish-header", nil, "header of these requests as 'Name: value'; repeat for several")
	f.StringVar(&b.posting.Body, "publish-body", "{event}", "their body, with {event}, {event-url} (percent-encoded), {topic} and {key}")
	f.BoolVar(&b.posting.Together, "publish-batch", false, "post what is due together as one JSON array")
	f.IntVar(&b.posting.Conns, "publish-conns", 4, "connections to post over, side by side")
	shown := defaultConfig()
	b.config.add(f, kafkaSettings(&shown.Kafka))
}

func (b *benching) run(ctx context.Context, flags *pflag.FlagSet, run func(ctx context.Context) (*bench.Result, error)) error {
	b.load.Transport = bench.Transport(b.transport)
	if b.transport != "" && b.transport != string(bench.SSE) && b.transport != string(bench.WebSocket) {
		return usageError{fmt.Errorf("--transport: %q is neither sse nor ws", b.transport)}
	}
	if err := b.load.Check(); err != nil {
		return usageError{err}
	}
	if b.check != nil {
		if err := b.check(); err != nil {
			return usageError{err}
		}
	}
	for _, text := range b.pids {
		process, err := bench.ParseProcess(text)
		if err != nil {
			return usageError{err}
		}
		b.load.Processes = append(b.load.Processes, process)
	}
	floor, err := b.floor()
	if err != nil {
		return usageError{err}
	}
	if b.progress || !flags.Changed("progress") && isTerminal(b.err) {
		b.load.Progress = b.err
	}
	closePublisher, err := b.publisher(ctx, flags)
	if err != nil {
		return err
	}
	defer closePublisher()
	// A reader waits in a system call, and the scheduler takes its time to notice.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + b.load.Readers))
	result, err := run(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	var incomparable error // which is no reason to keep the result back
	if floor != nil {
		if err := result.CompareTo(floor, b.ratioTo); err != nil {
			incomparable = fmt.Errorf("--ratio-to: %w", err)
		}
	}
	if err := b.show(result); err != nil {
		return err
	}
	return errors.Join(result.Err(), incomparable)
}

func (b *benching) show(result *bench.Result) error {
	if !b.json {
		return result.WriteTable(b.out)
	}
	raw, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(b.out, "%s\n", raw)
	return err
}

// floor returns the result to compare with, or nil.
func (b *benching) floor() (*bench.Result, error) {
	if b.ratioTo == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(b.ratioTo)
	if err != nil {
		return nil, fmt.Errorf("--ratio-to: %w", err)
	}
	floor, err := bench.ReadFloor(raw, b.ratioTo)
	if err != nil {
		return nil, fmt.Errorf("--ratio-to: %w", err)
	}
	if len(b.pids) == 0 {
		return nil, errors.New("--ratio-to: say with --pid which process is the server")
	}
	return floor, nil
}

// isTerminal reports whether somebody looks at what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// setFlag gives a flag another default.
func setFlag(f *pflag.FlagSet, name, value string) {
	flag := f.Lookup(name)
	_ = flag.Value.Set(value) // one that it takes
	flag.DefValue = value
}
