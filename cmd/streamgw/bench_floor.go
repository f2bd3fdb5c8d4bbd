package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/goodgo/streamgw/internal/bench"
	"github.com/spf13/cobra"
)

func (p program) benchFloor() *cobra.Command {
	b := &benching{program: p}
	cmd := b.command("floor", "This machine's own limit: ready frames, plainly written", `
A process of its own writes frames that are ready to as many connections, one write(2) each for
every --batch events, and does nothing else. No server that writes events one by one can deliver more per
CPU-second; one that gathers events into fewer writes can, and --batch 10 shows how much.`,
		func(ctx context.Context) (*bench.Result, error) {
			self, err := os.Executable()
			if err != nil {
				return nil, fmt.Errorf("find this program, for the writing process: %w", err)
			}
			writer := exec.CommandContext(ctx, self, "bench", floorWriter)
			writer.Env, writer.Stderr = p.env, p.err
			return bench.Floor(ctx, b.load, b.batch, writer)
		})
	b.load.URLs = []string{"http://127.0.0.1"} // the writer's, which says on what port
	b.loadFlags(cmd.Flags())
	cmd.Flags().IntVar(&b.batch, "batch", 1, "events in a write")
	return cmd
}

const floorWriter = "floor-writer"

// benchFloorWriter is the writing process of 'bench floor'.
func benchFloorWriter(in io.Reader, out io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:    floorWriter,
		Hidden: true,
		Args:   arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ended := make(chan error, 1)
			go func() { ended <- bench.WriteFloor(in, out) }() // a signal ends it with the process
			select {
			case err := <-ended:
				return err
			case <-cmd.Context().Done():
				return errors.New("interrupted")
			}
		},
	}
}
