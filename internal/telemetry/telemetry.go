// Package telemetry makes what the other packages are handed to tell of themselves: a logger and a metric registry.
// Nobody else configures them, and nothing here is global. It imports no sibling.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// LogConfig is how the log is written. Its zero value writes JSON from level info up.
type LogConfig struct {
	Level  string // debug, info, warn or error; default info
	Format string // json, or text for people; default json
}

// NewLogger returns a logger that writes to w, or an error that names the setting at fault.
func NewLogger(w io.Writer, cfg LogConfig) (*slog.Logger, error) {
	level := slog.LevelInfo
	if cfg.Level != "" {
		if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
			return nil, fmt.Errorf("log.level is %q; it is one of debug, info, warn, error", cfg.Level)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch cfg.Format {
	case "", "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	default:
		return nil, fmt.Errorf("log.format is %q; it is json or text", cfg.Format)
	}
}

// NewRegistry returns a registry that already tells of the process and of Go's runtime.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	return registry
}
