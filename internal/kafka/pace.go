package kafka

import (
	"context"
	"time"
)

// pacer chooses the pause between an answer that had records and the next request, so that under load more comes in one
// answer: a fetch costs the same whatever it brings. While answers with records come rarely, an event each, there is
// nothing to gather: then there is no pause, and the next event finds a request waiting for it.
type pacer struct {
	last  time.Time     // when the last answer with records came
	apart time.Duration // a running mean of the time between them
	timer *time.Timer   // nil before the first pause
}

const (
	rareAnswers  = 4 // of the longest pauses lie between answers that are followed by no pause
	oftenAnswers = 2 // between those that are followed by the longest; what is between has something between
	paceWeight   = 8 // of the mean against one more
)

// pause returns how long to wait after an answer with records that came now. most is the longest pause.
func (p *pacer) pause(now time.Time, most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	rare := rareAnswers * most
	since := now.Sub(p.last)
	p.last = now
	if since >= 2*rare { // it was quiet: what was before doesn't count
		p.apart = 2 * rare
	}
	p.apart += (min(since, 2*rare) - p.apart) / paceWeight
	return min(most, max(0, rare-p.apart)/(rareAnswers-oftenAnswers))
}

// wait waits, or returns the reason when ctx ends before.
func (p *pacer) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	if p.timer == nil {
		p.timer = time.NewTimer(d)
	} else {
		p.timer.Reset(d)
	}
	select {
	case <-p.timer.C:
		return nil
	case <-ctx.Done():
		p.timer.Stop()
		return context.Cause(ctx)
	}
}
