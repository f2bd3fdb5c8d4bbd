package main

import (
	"context"
	"errors"
	"time"

	"github.com/goodgo/streamgw/internal/bench"
	"github.com/spf13/cobra"
)

func (p program) benchIdle() *cobra.Command {
	b := &benching{program: p}
	cmd := b.command("idle", "What connections cost that nothing is sent to", `
It opens the connections and measures the memory and CPU of --pid: at once, and when memory stands
still for 10 s, or after --settle. Measure a server that has just been started: one that was in use
before has memory to spare for them.`, func(ctx context.Context) (*bench.Result, error) {
		return bench.Idle(ctx, b.load, b.settle)
	})
	b.transportFlag(cmd.Flags())
	b.clientFlags(cmd.Flags())
	cmd.Flags().DurationVar(&b.settle, "settle", time.Minute, "how long memory may take to stand still")
	return cmd
}

func (p program) benchResume() *cobra.Command {
	b := &benching{program: p}
	var behind bench.Behind
	cmd := b.command("resume", "Clients that come back all at once", `
A few clients note their position, --behind events are published, and then --conns clients come
back to that position. The result is how long it takes until the last of them has everything.

For a server that is restarted in between, in two steps:

  streamgw bench resume --save left.json --behind 1000
  … restart the server …
  streamgw bench resume --from left.json --cold --conns 1000`, func(ctx context.Context) (*bench.Result, error) {
		return bench.Comeback(ctx, b.load, behind)
	})
	b.check = func() error {
		if behind.Cold && behind.From == "" {
			return errors.New("--cold goes with --from: restart the server between --save and --from")
		}
		return nil
	}
	f := cmd.Flags()
	b.transportFlag(f)
	b.clientFlags(f)
	b.publisherFlags(f)
	setFlag(f, "connect-rate", "0")
	f.IntVar(&behind.Events, "behind", 1000, "events that each client lacks")
	f.StringVar(&behind.Save, "save", "", "file to leave the positions in, and end there")
	f.StringVar(&behind.From, "from", "", "file that an earlier run left: come back to what it says")
	f.BoolVar(&behind.Cold, "cold", false, "note that the server has been restarted since --save")
	return cmd
}

func (p program) benchStorm() *cobra.Command {
	b := &benching{program: p}
	cmd := b.command("storm", "A crowd that comes back within a second, and those who stayed", `
--conns clients are up to date while events go on at --rate. --storm-conns more come back within a
second, --behind events behind. The result is how long that takes, and the latency of those who stayed,
before and during.`, func(ctx context.Context) (*bench.Result, error) {
		return bench.Returning(ctx, b.load, b.stormConns, b.behind)
	})
	b.transportFlag(cmd.Flags())
	b.clientFlags(cmd.Flags())
	b.loadFlags(cmd.Flags())
	b.publisherFlags(cmd.Flags())
	cmd.Flags().IntVar(&b.stormConns, "storm-conns", 1000, "clients that come back")
	cmd.Flags().IntVar(&b.behind, "behind", 1000, "events that each of them lacks")
	return cmd
}
