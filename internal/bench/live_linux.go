package bench

import "context"

// Live measures a server with clients that are up to date, and, where cfg.Keyed says so, have a key each.
func Live(ctx context.Context, cfg Config) (*Result, error) {
	mode := string(cfg.Transport)
	if cfg.Keyed {
		mode = "keyed"
	}
	return begin(ctx, mode, cfg, func(ctx context.Context, s *session) error {
		l, err := newLoad(s.cfg, s.run)
		if err != nil {
			return err
		}
		s.source = l
		all := s.audience(l.streams)
		if all, err = s.connectFirst(ctx, l, all); err != nil {
			return err
		}
		if err := s.connect(ctx, all); err != nil {
			return err
		}
		grown, err := s.counting(ctx)
		if err != nil {
			return err
		}
		if err := s.deliver(ctx); err != nil {
			return err
		}
		if err := s.compareToFirst(ctx); err != nil {
			return err
		}
		return grown()
	})
}

// connectFirst opens the connections that cfg.First says, has them get events for cfg.Warmup and notes the memory that
// is held then: what serving anybody takes is in it. It returns the connections that are left, which begin after those events.
func (s *session) connectFirst(ctx context.Context, l *load, all []dialing) ([]dialing, error) {
	n := s.cfg.First
	if n == 0 {
		return all, nil
	}
	if err := s.connect(ctx, all[:n]); err != nil {
		return nil, err
	}
	if err := sleep(ctx, quiet); err != nil {
		return nil, err
	}
	if err := l.steadily(ctx, s.cfg.Rate, s.cfg.Warmup); err != nil {
		return nil, err
	}
	if err := s.drain(ctx); err != nil {
		return nil, err
	}
	if err := sleep(ctx, s.cfg.rest); err != nil {
		return nil, err
	}
	before, err := s.watched.memory()
	if err != nil {
		return nil, err
	}
	for i := range before {
		s.result.Processes[i].Before = before[i]
	}
	published := l.published()
	for i := range all[n:] {
		all[n+i].expect.begin(published)
	}
	return all[n:], nil
}

// compareToFirst notes what the connections that came later have made memory grow by.
func (s *session) compareToFirst(ctx context.Context) error {
	if s.cfg.First == 0 {
		return nil
	}
	if err := sleep(ctx, s.cfg.rest); err != nil { // as before they came
		return err
	}
	end, err := s.watched.memory()
	if err != nil {
		return err
	}
	for i := range end {
		p := &s.result.Processes[i]
		p.End = end[i]
		p.KBPerConn = float64(p.End.RSS-p.Before.RSS) / 1024 / float64(s.cfg.Conns-s.cfg.First)
	}
	return nil
}

// audience returns the clients that are there before the first event.
func (s *session) audience(streams int) []dialing {
	requests := map[int][]byte{}
	return s.dial(s.cfg.Conns, func(i int, d *dialing) {
		if s.cfg.Keyed {
			at := place{key: s.cfg.key(i)}
			d.request, d.greeting = s.cfg.request(s.crowd.bases[d.to], at), s.cfg.greeting(at)
			d.expect = sequences{base: uint32(i), next: make([]uint32, 1)}
			return
		}
		if requests[d.to] == nil {
			requests[d.to] = s.cfg.request(s.crowd.bases[d.to], place{})
		}
		d.request, d.greeting = requests[d.to], s.cfg.greeting(place{})
		d.expect = sequences{next: make([]uint32, streams)}
	})
}

// deliver has the events made, waits for the last of them and adds up.
func (s *session) deliver(ctx context.Context) error {
	if err := s.measure(ctx); err != nil {
		return err
	}
	if err := s.drain(ctx); err != nil {
		return err
	}
	return s.conclude()
}
