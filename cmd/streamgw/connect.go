package main

import (
	"errors"
	"log/slog"
	"strings"

	"github.com/goodgo/streamgw/internal/kafka"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/spf13/pflag"
)

// devBroker is where `streamgw dev` has its broker when it can.
const devBroker = "127.0.0.1:9092"

// configFlags are the flags of a command that reads the configuration.
type configFlags struct {
	file  string
	flags *pflag.FlagSet
}

// add gives a command --config, and a flag for each of rows, which are of a Config with the defaults.
func (f *configFlags) add(flags *pflag.FlagSet, rows []setting) {
	f.flags = flags
	flags.StringVar(&f.file, "config", "", "configuration file (default $"+configEnv+", else none)")
	addFlags(flags, rows)
}

// load returns the configuration that file, environment and flags make, and what is wrong with what they say.
func (f *configFlags) load(p program) (Config, Problems) {
	file := f.file
	if file == "" {
		file = p.variable(configEnv)
	}
	return load(sources{file: file, env: p.env, flags: f.flags})
}

// variable returns an environment variable, or "".
func (p program) variable(name string) string {
	for _, e := range p.env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// warnings is a logger for commands whose output is something else.
func (p program) warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(p.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// newKafka is kafka.New, whose error about settings is told like the other problems of a configuration.
func newKafka(c kafka.Config) (*kafka.Client, error) {
	client, err := kafka.New(c)
	if e, ok := errors.AsType[*stream.Error](err); ok && e.Kind == stream.BadRequest {
		return nil, Problems{e.Error()}
	}
	return client, err
}
