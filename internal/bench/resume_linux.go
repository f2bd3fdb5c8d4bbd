package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// left is what the file of [Behind] holds.
type left struct {
	Run       uint32    `json:"run"`
	Transport Transport `json:"transport"`
	Topic     string    `json:"topic"`
	Size      int       `json:"size"`
	Behind    int       `json:"behind"`
	Places    []noted   `json:"places"`
	Published []uint32  `json:"published"`
}

// noted is a position, and what follows it of each stream.
type noted struct {
	Position string   `json:"position"`
	Next     []uint32 `json:"next"`
}

// past is a source of events that are all there already.
type past struct {
	silence
	all []uint32
}

func (p past) published() []uint32 { return p.all }

func (p past) total() (n int64) {
	for _, end := range p.all {
		n += int64(end)
	}
	return n
}

// Comeback measures clients that come back all at once, each a number of events behind.
func Comeback(ctx context.Context, cfg Config, behind Behind) (*Result, error) {
	if behind.Events < 1 {
		return nil, fmt.Errorf("--behind: %d isn't a number of events", behind.Events)
	}
	if behind.Save != "" && behind.From != "" {
		return nil, errors.New("--save and --from: the first run saves, the second one comes back")
	}
	cfg.Keyed, cfg.later, cfg.Rate = false, firstGeneration, 0
	var l left
	if behind.From != "" {
		var err error
		if l, err = readLeft(behind.From, &cfg); err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
	}
	return begin(ctx, "resume", cfg, func(ctx context.Context, s *session) error {
		if behind.From != "" {
			s.source = past{all: l.Published}
		} else if err := s.leave(ctx, behind.Events, &l); err != nil {
			return err
		}
		if behind.Save != "" {
			if err := l.write(behind.Save); err != nil {
				return fmt.Errorf("--save: %w", err)
			}
			return s.conclude()
		}
		return s.comeBack(ctx, &l, behind.Cold)
	})
}

// firstGeneration is how many clients note where they are: a few, since all of them note the same.
const firstGeneration = 10

// leave connects the first generation, has it note its positions, and publishes what those lack who come back to them.
func (s *session) leave(ctx context.Context, events int, l *left) error {
	load, err := newLoad(s.cfg, s.run)
	if err != nil {
		return err
	}
	s.source = load
	taps, err := s.connectTapped(ctx, min(s.cfg.Conns, firstGeneration), load.streams)
	if err != nil {
		return err
	}
	if err := sleep(ctx, quiet); err != nil {
		return err
	}
	if err := load.atOnce(ctx, load.streams); err != nil { // a position after an event is what clients come back with
		return err
	}
	if err := s.drain(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, quiet); err != nil { // an id may stand after its event
		return err
	}
	*l = left{Run: s.run, Transport: s.cfg.Transport, Topic: s.cfg.Topic, Size: s.cfg.Size, Behind: events}
	for _, t := range taps {
		n, err := t.noted(load.published())
		if err != nil {
			return err
		}
		l.Places = append(l.Places, n)
	}
	if err := load.atOnce(ctx, events); err != nil {
		return err
	}
	l.Published = load.published()
	return s.drain(ctx)
}

// noted returns where a client is that has everything.
func (t *tap) noted(published []uint32) (noted, error) {
	position, next, _ := t.at()
	switch {
	case !slices.Equal(next, published):
		return noted{}, fmt.Errorf("a client got the events %v and not all of %v: there is nothing to come back to", next, published)
	case position == "":
		return noted{}, errors.New("the server's events have no id: there is nothing to come back to")
	}
	return noted{position, next}, nil
}

// connectTapped opens clients that note their positions.
func (s *session) connectTapped(ctx context.Context, n, streams int) (taps []*tap, err error) {
	all := s.dial(n, func(_ int, d *dialing) {
		t := &tap{transport: s.cfg.Transport, run: textOf(s.run), next: make([]uint32, streams)}
		taps = append(taps, t)
		d.request, d.greeting = s.cfg.request(s.crowd.bases[d.to], place{}), s.cfg.greeting(place{})
		d.expect, d.tap = sequences{next: make([]uint32, streams)}, t
	})
	return taps, s.connect(ctx, all)
}

// returning are clients that come back to places, in turn, and are complete at goal.
func (s *session) returning(n int, places []noted, goal []uint32) []dialing {
	type request struct{ to, place int }
	requests := map[request][]byte{}
	return s.dial(n, func(i int, d *dialing) {
		k := i % len(places)
		at := place{position: places[k].Position}
		which := request{d.to, k}
		if requests[which] == nil {
			requests[which] = s.cfg.request(s.crowd.bases[d.to], at)
		}
		d.request, d.greeting, d.group = requests[which], s.cfg.greeting(at), returning
		d.expect = sequences{next: slices.Clone(places[k].Next), first: places[k].Next}
		d.expect.aim(goal)
	})
}

// comeBack has all clients come back and waits until they have everything.
func (s *session) comeBack(ctx context.Context, l *left, cold bool) error {
	grown, err := s.counting(ctx)
	if err != nil {
		return err
	}
	r := &Resumed{Behind: l.Behind, Cold: cold}
	s.result.Resume = r
	var a, b usage
	if a, err = s.watched.usage(); err != nil {
		return err
	}
	start := time.Now()
	if err := s.reopen(ctx, s.returning(s.cfg.Conns, l.Places, l.Published), s.cfg.ConnectRate); err != nil {
		return err
	}
	if b, err = s.watched.usage(); err != nil {
		return err
	}
	s.take(a, b)
	if len(b.each) > 0 {
		r.CPUSeconds = (b.each[0] - a.each[0]).Seconds()
	}
	if err := grown(); err != nil {
		return err
	}
	r.Completed = s.crowd.completed.Load()
	r.Seconds = s.crowd.sinceLastCompletion(start)
	s.result.Seconds = r.Seconds
	if err := s.conclude(); err != nil {
		return err
	}
	s.result.Latency = nil
	r.EachMs = s.sum.done.summary()
	if r.Completed < int64(s.cfg.Conns) {
		s.result.problem("only %d of %d clients got everything", r.Completed, s.cfg.Conns)
	}
	return nil
}

// reopen has clients come back and returns once they are complete, or nothing comes any more.
func (s *session) reopen(ctx context.Context, all []dialing, rate float64) error {
	s.dialed += len(all)
	want := s.crowd.completed.Load() + int64(len(all))
	s.crowd.start(all, rate)
	_, err := settle(ctx, s.cfg.Drain, func() (int64, bool) {
		done, opened, failed := s.crowd.completed.Load(), s.crowd.opened.Load(), s.crowd.failed.Load()
		// What completes a client may come in the very read that opens it, and is counted first.
		return s.crowd.received.Load() + opened + done, done+failed >= want && opened+failed >= int64(s.dialed)
	})
	opened := int(s.crowd.opened.Load())
	s.result.Connect = Connect{Opened: opened, Failed: s.dialed - opened, Reasons: s.whyFailed()}
	return err
}

func readLeft(name string, cfg *Config) (l left, err error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	if len(l.Places) == 0 || len(l.Published) == 0 {
		return l, fmt.Errorf("%s wasn't left by 'bench resume --save'", name)
	}
	cfg.run, cfg.Transport, cfg.Topic, cfg.Size = l.Run, l.Transport, l.Topic, l.Size
	return l, nil
}

func (l *left) write(name string) error {
	raw, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(raw, '\n'), 0o644)
}
