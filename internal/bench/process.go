package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Memory is what a process holds, in bytes. What the kernel holds for its sockets is in none of it.
type Memory struct {
	RSS       int64 `json:"rss"`
	PSS       int64 `json:"pss"`
	Anonymous int64 `json:"anonymous"`
}

// ParseProcess reads NAME=PID or PID.
func ParseProcess(text string) (p Process, err error) {
	name, number, named := strings.Cut(text, "=")
	if !named {
		name, number = "server", text
	}
	p.Name = name
	if p.PID, err = strconv.Atoi(number); err != nil || p.PID < 1 || name == "" {
		return p, fmt.Errorf("--pid: %q is neither PID nor NAME=PID", text)
	}
	if _, err := cpuOf(p.PID); err != nil {
		return p, fmt.Errorf("--pid: %w", err)
	}
	return p, nil
}

// usage is CPU time at one moment: of each process, of this one and of the whole machine.
type usage struct {
	at      time.Time
	each    []time.Duration
	own     time.Duration
	machine time.Duration
}

// watched are the processes that a run measures.
type watched struct {
	all []Process

	mu   sync.Mutex // guards what follows
	peak []int64    // the most resident memory that was seen
}

func watch(all []Process) *watched { return &watched{all: all, peak: make([]int64, len(all))} }

func (w *watched) usage() (u usage, err error) {
	u.at = time.Now()
	for _, p := range w.all {
		cpu, err := cpuOf(p.PID)
		if err != nil {
			return u, fmt.Errorf("--pid: %s: %w", p.Name, err)
		}
		u.each = append(u.each, cpu)
	}
	if u.own, err = cpuOf(os.Getpid()); err != nil {
		return u, err
	}
	u.machine, err = machineCPU()
	return u, err
}

// memory returns what each process holds now.
func (w *watched) memory() (all []Memory, err error) {
	for _, p := range w.all {
		m, err := memoryOf(p.PID)
		if err != nil {
			return nil, fmt.Errorf("--pid: %s: %w", p.Name, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// sampleEvery is how often memory is looked at for its peak.
const sampleEvery = 200 * time.Millisecond

// sample looks for the peak of memory until ctx ends.
func (w *watched) sample(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		for i, p := range w.all {
			if rss, err := rssOf(p.PID); err == nil {
				w.mu.Lock()
				w.peak[i] = max(w.peak[i], rss)
				w.mu.Unlock()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *watched) peaks() []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]int64(nil), w.peak...)
}
