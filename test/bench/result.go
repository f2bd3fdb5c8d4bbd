package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/bench"
)

// aim returns the flags that point streamgw bench at a server.
func (l *lab) aim(s *server, topic string) []string {
	flags := []string{"--url", s.url, "--topic", topic, "--pid", "server=" + s.pid(), "--pid", "kafka=" + l.kafkaPID()}
	if s.metrics != "" {
		flags = append(flags, "--metrics-url", s.metrics)
	}
	return flags
}

// publishing returns the flags that have it publish too.
func (l *lab) publishing() []string { return []string{"--brokers", l.brokers} }

// bench runs streamgw bench and keeps what it says. A run that wasn't exact is an error.
func (l *lab) bench(ctx context.Context, mode string, flags ...string) (*bench.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(l.dir, "streamgw"), append([]string{"bench", mode, "--json"}, flags...)...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	failed := cmd.Run()
	if err := l.keep(out.Bytes()); err != nil {
		return nil, err
	}
	r := &bench.Result{}
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, fmt.Errorf("bench %s: %w\n%s", mode, errors.Join(failed, err), complaint.Bytes())
	}
	if r.Seconds > 0 {
		l.others = max(l.others, r.Client.OthersCPU/r.Seconds)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, fmt.Errorf("bench %s: %w: %s", mode, failed, complaint.Bytes())
	}
	return r, nil
}

// keep writes what a run said into the results.
func (l *lab) keep(said []byte) error {
	dir := filepath.Join(l.results, fmt.Sprintf("pass%d", l.pass))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := l.row
	if l.runs++; l.runs > 1 {
		name = fmt.Sprintf("%s-%d", l.row, l.runs)
	}
	return os.WriteFile(filepath.Join(dir, name+".json"), said, 0o644)
}

// steady returns the figures of clients that stay.
func steady(r *bench.Result) map[string]float64 {
	figures := map[string]float64{
		perCPUSecond: r.Deliveries.PerCPUSecond, perSecond: r.Deliveries.PerSecond,
		p50: r.Latency.P50, p99: r.Latency.P99,
	}
	if len(r.Processes) > 0 {
		server := r.Processes[0]
		figures[perEvent] = server.MicrosPerEvent
		cpu := 0.0
		for _, p := range r.Processes {
			cpu += p.CPUSeconds
		}
		figures[withBroker] = float64(r.Deliveries.Counted) / cpu
		figures[perClient] = server.KBPerConn
	}
	return figures
}

// machine says what the table was measured on.
func (l *lab) machine(ctx context.Context, runs int, took time.Duration) string {
	model := "processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, is, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(is)
				break
			}
		}
	}
	memory := ""
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		if kb, err := strconv.Atoi(strings.Fields(string(info))[1]); err == nil {
			memory = fmt.Sprintf(", %d GiB", (kb+1<<19)>>20)
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	version, err := l.output(ctx, "git", "describe", "--tags", "--always", "--dirty")
	if err != nil {
		version = "without a repository"
	}
	return fmt.Sprintf("Machine: %d × %s%s, Linux %s, %s, Kafka 4.1.0 of one broker on the same machine. streamgw %s, %s, %s in %s. Programs beside took %.1f cores at most.",
		runtime.NumCPU(), model, memory, strings.TrimSpace(string(kernel)), runtime.Version(),
		strings.TrimSpace(version), time.Now().UTC().Format(time.DateOnly), passes(runs), took.Round(time.Second), l.others)
}

func passes(n int) string {
	if n == 1 {
		return "one pass"
	}
	return fmt.Sprintf("medians of %d passes", n)
}
