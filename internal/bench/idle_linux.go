package bench

import (
	"context"
	"time"
)

// silence is a source without events.
type silence struct{}

func (silence) steadily(context.Context, float64, time.Duration) error { return nil }
func (silence) published() []uint32                                    { return nil }
func (silence) total() int64                                           { return 0 }
func (silence) maxLate() time.Duration                                 { return 0 }

// Memory stands still when it has moved less than a part of it for a while.
const (
	stillFor  = 10 * time.Second
	stillPart = 200
)

// Idle measures what connections cost that nothing is sent to: at once, and when memory stands still, or after settle.
func Idle(ctx context.Context, cfg Config, settle time.Duration) (*Result, error) {
	cfg.Keyed, cfg.Rate = false, 0
	return begin(ctx, "idle", cfg, func(ctx context.Context, s *session) error {
		s.source = silence{}
		if err := s.connect(ctx, s.audience(0)); err != nil {
			return err
		}
		idle := new(Idled)
		s.result.Idle = idle
		if err := sleep(ctx, quiet); err != nil {
			return err
		}
		first, err := s.count()
		if err != nil {
			return err
		}
		if err := s.watched.still(ctx, settle); err != nil {
			return err
		}
		last, err := s.count()
		if err != nil {
			return err
		}
		s.between(first, last)
		s.result.Published, s.result.Deliveries = nil, nil
		if err := s.conclude(); err != nil {
			return err
		}
		s.result.Latency, s.result.Published, s.result.Deliveries = nil, nil, nil
		s.result.Seconds = last.at.Sub(first.at).Seconds()
		if len(s.result.Processes) > 0 {
			idle.take(&s.result.Processes[0], float64(s.result.Connect.Opened), s.result.Seconds)
		}
		return nil
	})
}

// take fills in what the server's figures mean for a connection.
func (i *Idled) take(p *Usage, conns, seconds float64) {
	kb := func(after, before int64) float64 { return float64(after-before) / 1024 / conns }
	i.KBPerConn, i.AnonKBPerConn = kb(p.Connected.RSS, p.Before.RSS), kb(p.Connected.Anonymous, p.Before.Anonymous)
	i.SettledKBPerConn, i.SettledAnonKB = kb(p.End.RSS, p.Before.RSS), kb(p.End.Anonymous, p.Before.Anonymous)
	i.SettledAfter, i.IdleCores = seconds, p.Cores
	i.IdleMicrosPerConn = p.Cores * 1e6 / conns
}

// still waits until the first process's memory stands still, or for so long.
func (w *watched) still(ctx context.Context, atMost time.Duration) error {
	end := time.Now().Add(atMost)
	var since time.Time
	var stood int64
	for time.Now().Before(end) {
		if len(w.all) > 0 {
			rss, err := rssOf(w.all[0].PID)
			if err != nil {
				return err
			}
			if moved := max(rss-stood, stood-rss); since.IsZero() || moved > stood/stillPart {
				since, stood = time.Now(), rss
			} else if time.Since(since) >= stillFor {
				return nil
			}
		}
		if err := sleep(ctx, min(sampleEvery, time.Until(end))); err != nil {
			return err
		}
	}
	return nil
}
