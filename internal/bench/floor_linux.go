package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync/atomic"
	"time"
)

// floorOrder is what the measuring process tells the writing one, a line of JSON each.
type floorOrder struct {
	Run   uint32        `json:"run"`
	Rate  float64       `json:"rate"`
	Long  time.Duration `json:"long"`
	Size  int           `json:"size"`
	Batch int           `json:"batch"`
	Seed  uint64        `json:"seed"`
}

// floorReport is what the writing process says: first where it listens, then how many events it has written.
type floorReport struct {
	Listen string `json:"listen,omitempty"`
	Events int64  `json:"events,omitempty"`
	LateNS int64  `json:"lateNs,omitempty"`
}

// Floor measures this machine's own limit: a process of its own writes ready frames to as many connections, one write(2)
// each for every batch of events, and does nothing else. writer is the command of that process, which runs [WriteFloor].
func Floor(ctx context.Context, cfg Config, batch int, writer *exec.Cmd) (result *Result, err error) {
	if batch < 1 || batch > 10_000 {
		return nil, fmt.Errorf("--batch: %d isn't between 1 and 10000", batch)
	}
	if cfg.Rate <= 0 {
		return nil, errors.New("--rate: the floor needs one")
	}
	cfg.URLs, cfg.Path, cfg.Transport, cfg.Keyed = []string{"http://127.0.0.1"}, "", SSE, false
	if err := cfg.withDefaults().validate(); err != nil {
		return nil, err
	}
	if err := enoughFiles(cfg.Conns); err != nil {
		return nil, err
	}
	child, err := startWriter(writer)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, child.stop()) }()
	cfg.URLs = []string{"http://" + child.listen}
	cfg.Processes = []Process{{Name: "writer", PID: writer.Process.Pid}}
	return begin(ctx, "floor", cfg, func(ctx context.Context, s *session) error {
		s.result.Batch = batch
		child.order = floorOrder{Run: s.run, Size: s.cfg.Size, Batch: batch, Seed: s.cfg.Seed}
		s.source = child
		if err := s.connect(ctx, s.audience(1)); err != nil {
			return err
		}
		child.seen = func() int64 { return s.crowd.received.Load() / s.crowd.opened.Load() }
		return s.deliver(ctx)
	})
}

// floorWriter is the writing process, as the measuring one sees it. It is a source.
type floorWriter struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	listen string
	order  floorOrder
	events atomic.Int64 // that it has written, once it has written all
	late   atomic.Int64
	seen   func() int64 // events that have come through, meanwhile
}

func startWriter(cmd *exec.Cmd) (*floorWriter, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the floor's writer: %w", err)
	}
	w := &floorWriter{cmd: cmd, in: in, out: bufio.NewScanner(out)}
	var hello floorReport
	if err := w.hear(&hello); err != nil {
		return nil, errors.Join(err, w.stop())
	}
	w.listen = hello.Listen
	return w, nil
}

func (w *floorWriter) hear(report *floorReport) error {
	if !w.out.Scan() {
		return errors.Join(errors.New("the floor's writer ended early"), w.out.Err())
	}
	if err := json.Unmarshal(w.out.Bytes(), report); err != nil {
		return fmt.Errorf("the floor's writer: %w", err)
	}
	return nil
}

// stop ends the process and waits for it.
func (w *floorWriter) stop() error {
	_ = w.in.Close() // its sign to end
	if err := w.cmd.Wait(); err != nil {
		return fmt.Errorf("the floor's writer: %w", err)
	}
	return nil
}

func (w *floorWriter) steadily(_ context.Context, rate float64, long time.Duration) error {
	order := w.order
	order.Rate, order.Long = rate, long
	if err := json.NewEncoder(w.in).Encode(order); err != nil {
		return fmt.Errorf("the floor's writer: %w", err)
	}
	var said floorReport
	if err := w.hear(&said); err != nil {
		return err
	}
	w.late.Store(said.LateNS)
	w.events.Store(said.Events)
	return nil
}

func (w *floorWriter) published() []uint32 { return []uint32{uint32(w.events.Load())} }

func (w *floorWriter) total() int64 {
	if n := w.events.Load(); n > 0 {
		return n
	}
	return w.seen()
}

func (w *floorWriter) maxLate() time.Duration { return time.Duration(w.late.Load()) }
