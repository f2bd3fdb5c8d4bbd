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
		if err := s.connect(ctx, s.audience(l.streams)); err != nil {
			return err
		}
		grown, err := s.counting(ctx)
		if err != nil {
			return err
		}
		if err := s.deliver(ctx); err != nil {
			return err
		}
		return grown()
	})
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
