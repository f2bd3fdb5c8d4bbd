// Command streamgw streams Kafka topics to browsers and mobile apps over HTTP. It reads each topic once and fans it out
// from memory; a client that comes back, to any replica, misses nothing and gets nothing twice.
//
// This package wires the others together and owns no logic of theirs: one file a subcommand, config.go for what they can be
// told, serve.go for what starts and stops in which order.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build (-ldflags -X main.version=…); see versionText for builds that don't.
var version string

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	ctx := untilSignalled(context.Background(), signals, os.Exit)
	os.Exit(program{os.Stdin, os.Stdout, os.Stderr, os.Environ()}.run(ctx, os.Args[1:]))
}

// untilSignalled returns a context that ends with the first signal. The second one doesn't wait for anything.
func untilSignalled(parent context.Context, signals <-chan os.Signal, exit func(code int)) context.Context {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		<-signals
		cancel()
		<-signals
		exit(exitFailure)
	}()
	return ctx
}

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2 // the command line itself is wrong
)

// program is what a run of streamgw has of the outside world.
type program struct {
	in       io.Reader
	out, err io.Writer
	env      []string
}

// usageError is a command line that can't be run.
type usageError struct{ error }

func (p program) run(ctx context.Context, args []string) (code int) {
	root := p.command()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(p.err, "streamgw: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(p.err, "Try '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailure
}

func (p program) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "streamgw",
		Short: "Kafka topics as Server-Sent Events and WebSockets",
		Long: `streamgw streams Kafka topics to browsers and apps over HTTP. It reads each topic once,
however many clients there are, and a client that comes back misses nothing.

Start with a broker of its own and sample events, no configuration needed:

  streamgw dev

or on your Kafka:

  streamgw serve --kafka-brokers kafka:9092 --auth-mode none`,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(p.devCommand(), p.serveCommand(), p.publishCommand(), p.tailCommand(), p.checkCommand(), p.tokenCommand(), p.benchCommand(), p.versionCommand())
	return root
}

// unknownCommand refuses what stands where a command should.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return usageError{fmt.Errorf("unknown command %q; did you mean %s?", args[0], nearest(args[0], names))}
}

// arguments makes a check of arguments whose complaint is one about usage.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}
