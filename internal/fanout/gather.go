package fanout

import (
	"slices"
	"time"
)

// wakeLocked wakes who is in step in a channel that something has come for, unless one of them was woken, or took
// something, less than h.gather ago: then what comes until that has passed leaves in one write.
func (h *Hub) wakeLocked(ch *channel, now time.Time) {
	if ch.waits {
		return
	}
	ch.cameAt = now
	wait := ch.due(h.gather).Sub(now)
	if h.gather <= 0 || wait <= 0 {
		ch.wokenAt = now
		ch.wake()
		return
	}
	ch.waits = true
	h.gathering = append(h.gathering, ch)
	if at := now.Add(wait); len(h.gathering) == 1 || at.Before(h.gatherAt) {
		h.wakeGatheredLocked(at, wait)
	}
}

// sampled says of how many cursors of a channel one notes when it takes something: they are served in their order, so that
// the last of a sample is as good as the last of all.
const sampled = 16

// due returns when the cursors are to be woken for what has come.
func (ch *channel) due(gather time.Duration) time.Time {
	last := ch.wokenAt
	if took := time.Unix(0, ch.tookAt.Load()); took.After(last) {
		last = took // the first of them were written to long before the last
	}
	if last.After(ch.cameAt) {
		last = ch.cameAt // nothing waits longer
	}
	return last.Add(gather)
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
	now := h.hubs.now()
	next := h.gather
	h.gathering = slices.DeleteFunc(h.gathering, func(ch *channel) bool {
		if wait := ch.due(h.gather).Sub(now); wait > moment {
			next = min(next, wait)
			return false
		}
		ch.waits, ch.wokenAt = false, now
		ch.wake()
		return true
	})
	if len(h.gathering) > 0 {
		h.wakeGatheredLocked(now.Add(next), next)
	}
}
