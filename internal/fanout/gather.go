package fanout

import (
	"slices"
	"time"
)

// wakeLocked wakes who is in step in a channel that something has come for, unless one of them was woken, or took
// something, less than h.gather ago: then what comes until that has passed leaves in one write.
func (h *Hub) wakeLocked(ch *channel, at time.Time) {
	if ch.waits {
		return
	}
	now := h.hubs.clock(at)
	ch.cameAt = now
	wait := ch.due(h.gather) - now
	if h.gather <= 0 || wait <= 0 {
		ch.wokenAt = now
		ch.wake()
		return
	}
	ch.waits = true
	h.gathering = append(h.gathering, ch)
	if due := at.Add(wait); len(h.gathering) == 1 || due.Before(h.gatherAt) {
		h.wakeGatheredLocked(due, wait)
	}
}

// samples reports whether a cursor is one of those of whom it is noted when they take something: every sixteenth, and the
// last. They are served in their order, so that the last is what counts, and the others are for a pass that hasn't come so
// far.
func (ch *channel) samples(c *cursor) bool {
	return c.listed%16 == 0 || int(c.listed) == len(ch.inStep)-1
}

// due returns when the cursors are to be woken for what has come.
func (ch *channel) due(gather time.Duration) time.Duration {
	last := max(ch.wokenAt, time.Duration(ch.tookAt.Load())) // the first of them were written to long before the last
	return min(last, ch.cameAt) + gather                     // nothing waits longer
}

// wakeGatheredLocked has the channels that wait be looked at after a time, which ends at an instant.
func (h *Hub) wakeGatheredLocked(at time.Time, wait time.Duration) {
	h.gatherAt = at
	if h.gathered == nil {
		h.gathered = time.AfterFunc(wait, h.wakeGathered)
		return
	}
	h.gathered.Reset(wait)
}

// wakeGathered wakes the channels that have waited for long enough, and those that have in a moment.
func (h *Hub) wakeGathered() {
	const moment = time.Millisecond
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.hubs.now()
	now := h.hubs.clock(at)
	next := h.gather
	h.gathering = slices.DeleteFunc(h.gathering, func(ch *channel) bool {
		if wait := ch.due(h.gather) - now; wait > moment {
			next = min(next, wait)
			return false
		}
		ch.waits, ch.wokenAt = false, now
		ch.wake()
		return true
	})
	if len(h.gathering) > 0 {
		h.wakeGatheredLocked(at.Add(next), next)
	}
}
