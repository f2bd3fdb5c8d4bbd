package kafka

import (
	"context"
	"time"
)

// pacer chooses the pause between an answer that had records and the next request, so that under load more comes in one
// answer: a fetch costs the same whatever it brings. While answers with records come rarely, an event each, there is
// nothing to gather: then there is no pause, and the next event finds a request waiting for it.
//
// Under a steady load the pause is the broker's to make: a request that it is to hold for so long. That saves waking up
// here to send it. Such a request brings nothing before its time, so it takes a load that leaves hardly a pause without an
// event.
type pacer struct {
	last  time.Time     // when the last answer with records came
	apart time.Duration // a running mean of the time between them
	each  float64       // a running mean of the messages in them
	timer *time.Timer   // nil before the first pause
}

const (
	rareAnswers  = 4 // of the longest pauses lie between answers that are followed by no pause
	oftenAnswers = 2 // between those that are followed by the longest; what is between has something between
	fullAnswers  = 3 // messages in an answer, from which on the load is steady: of those that know nothing of each other, none comes in a twentieth of the pauses
	paceWeight   = 8 // of the means against one more
)

// pause returns how long to wait after an answer with so many messages that came now, and whether the load is steady. most
// is the longest pause.
func (p *pacer) pause(now time.Time, most time.Duration, messages int) (pause time.Duration, steady bool) {
	if most <= 0 {
		return 0, false
	}
	rare := rareAnswers * most
	since := now.Sub(p.last)
	p.last = now
	if since >= 2*rare { // it was quiet: what was before doesn't count
		p.apart, p.each = 2*rare, 0
	}
	p.apart += (min(since, 2*rare) - p.apart) / paceWeight
	p.each += (float64(min(messages, 2*fullAnswers)) - p.each) / paceWeight
	pause = min(most, max(0, rare-p.apart)/(rareAnswers-oftenAnswers))
	return pause, pause == most && p.each >= fullAnswers && pause >= time.Millisecond // a broker knows nothing shorter
}

// vain notes that nothing came in a pause that the broker made: messages come together, with longer pauses between.
func (p *pacer) vain() { p.each = 0 }

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
