package telemetry_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/telemetry"
)

func TestLoggerWritesFromItsLevelUp(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg  telemetry.LogConfig
		want []string
	}{
		"default":     {telemetry.LogConfig{}, []string{"info", "warn"}},
		"debug":       {telemetry.LogConfig{Level: "debug"}, []string{"debug", "info", "warn"}},
		"upper case":  {telemetry.LogConfig{Level: "WARN"}, []string{"warn"}},
		"json named":  {telemetry.LogConfig{Format: "json"}, []string{"info", "warn"}},
		"only errors": {telemetry.LogConfig{Level: "error"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log, err := telemetry.NewLogger(&out, tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			log.Debug("debug")
			log.Info("info")
			log.Warn("warn")
			var got []string
			for d := json.NewDecoder(&out); d.More(); {
				var line struct{ Msg string }
				if err := d.Decode(&line); err != nil {
					t.Fatal(err)
				}
				got = append(got, line.Msg)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("logged %v, want %v", got, tt.want)
			}
		})
	}
}

func TestTextLoggerWritesLinesForPeople(t *testing.T) {
	var out bytes.Buffer
	log, err := telemetry.NewLogger(&out, telemetry.LogConfig{Format: "text"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello", "topic", "orders")
	if !strings.Contains(out.String(), "msg=hello topic=orders") {
		t.Errorf("logged %q", out.String())
	}
}

func TestLoggerRefusesUnknownSettings(t *testing.T) {
	for _, cfg := range []telemetry.LogConfig{{Level: "loud"}, {Format: "xml"}} {
		if _, err := telemetry.NewLogger(&bytes.Buffer{}, cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}

func TestRegistryTellsOfProcessAndRuntime(t *testing.T) {
	families, err := telemetry.NewRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "go_build_info"} {
		if !slices.Contains(names, name) {
			t.Errorf("no metric %s", name)
		}
	}
}
