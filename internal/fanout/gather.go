package fanout

import (
	"slices"
	"time"
)

// wakeLocked wakes who is in step in a channel that something has come for, unless they were woken less than h.gather
// ago: then what comes until that has passed leaves in one write.
func (h *Hub) wakeLocked(ch *channel, now time.Time) {
	if ch.waits {
		return
	}
	wait := h.gather - now.Sub(ch.wokenAt)
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
		if wait := h.gather - now.Sub(ch.wokenAt); wait > moment {
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
