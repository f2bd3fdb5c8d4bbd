package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Returning measures a storm: clients that come back within a second, each a number of events behind, and what those notice
// who are up to date meanwhile.
func Returning(ctx context.Context, cfg Config, conns, behind int) (*Result, error) {
	switch {
	case behind < 1:
		return nil, fmt.Errorf("--behind: %d isn't a number of events", behind)
	case conns < 1:
		return nil, fmt.Errorf("--storm-conns: %d isn't a number of connections", conns)
	case cfg.Rate <= 0:
		return nil, errors.New("--rate: a storm needs one")
	}
	cfg.Keyed, cfg.later = false, conns
	// So many events are published before the storm as the clients are behind.
	setDefault(&cfg.Duration, defaultDuration)
	if float64(behind) > cfg.Rate*cfg.Duration.Seconds() {
		cfg.Duration = time.Duration(float64(behind) / cfg.Rate * float64(time.Second))
	}
	return begin(ctx, "storm", cfg, func(ctx context.Context, s *session) error {
		load, err := newLoad(s.cfg, s.run)
		if err != nil {
			return err
		}
		s.source = load
		all := s.audience(load.streams)
		before := s.cfg.Rate * (s.cfg.Warmup + s.cfg.Duration).Seconds()
		noter := &tap{
			transport: s.cfg.Transport, run: textOf(s.run), next: make([]uint32, load.streams), stop: uint64(max(1, before-float64(behind))),
		}
		all[0].tap = noter
		if err := s.connect(ctx, all); err != nil {
			return err
		}
		if err := sleep(ctx, quiet); err != nil {
			return err
		}
		made := make(chan error, 1)
		go func() { made <- load.steadily(ctx, s.cfg.Rate, forever) }()
		err = s.storm(ctx, load, noter, conns, behind)
		load.halt.Store(true)
		if err := errors.Join(err, <-made); err != nil {
			return err
		}
		return s.afterStorm(ctx, conns)
	})
}

// forever is longer than any run.
const forever = 1000 * time.Hour

// storm measures those who are up to date, has the others come back and waits until they are up to date too.
func (s *session) storm(ctx context.Context, load *load, noter *tap, conns, behind int) error {
	start := time.Now().Add(s.cfg.Warmup)
	end := start.Add(s.cfg.Duration)
	s.crowd.observe([periods]period{{nanoseconds(start), nanoseconds(end)}, {nanoseconds(end), endless}})
	first, err := s.countAt(ctx, start)
	if err != nil {
		return err
	}
	last, err := s.countAt(ctx, end)
	if err != nil {
		return err
	}
	s.between(first, last)
	grown, err := s.counting(ctx)
	if err != nil {
		return err
	}
	position, next, events := noter.at()
	if position == "" || events == 0 {
		return errors.New("the server's events have no id: there is nothing to come back to")
	}
	goal := load.published()
	result := &Storm{Conns: conns, Behind: int(past{all: goal}.total() - past{all: next}.total())}
	s.result.Storm = result
	began, err := s.watched.usage()
	if err != nil {
		return err
	}
	if err := s.reopen(ctx, s.returning(conns, []noted{{position, next}}, goal), float64(conns)); err != nil {
		return err
	}
	ended, err := s.watched.usage()
	if err != nil {
		return err
	}
	if len(ended.each) > 0 {
		result.CPUSeconds = (ended.each[0] - began.each[0]).Seconds()
	}
	result.Seconds, result.Completed = s.crowd.sinceLastCompletion(began.at), s.crowd.completed.Load()
	if err := grown(); err != nil {
		return err
	}
	// What was published during the storm is told apart from what was before; a short one gets a second at least.
	return sleep(ctx, time.Second-ended.at.Sub(began.at))
}

func (s *session) afterStorm(ctx context.Context, conns int) error {
	if err := s.drain(ctx); err != nil {
		return err
	}
	if err := s.conclude(); err != nil {
		return err
	}
	r := s.result.Storm
	r.Before, r.During, r.EachMs = s.sum.latency[live][0].summary(), s.sum.latency[live][1].summary(), s.sum.done.summary()
	if r.Completed < int64(conns) {
		s.result.problem("only %d of %d returning clients came to be up to date", r.Completed, conns)
	}
	return nil
}
