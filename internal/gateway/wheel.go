package gateway

import (
	"slices"
	"time"
)

// A wheel has slotsAHeartbeat slots for a heartbeat, and room for twice that: no connection is due later.
const (
	slotsAHeartbeat = 32
	slots           = 2 * slotsAHeartbeat
)

// wheel holds connections by when they are due, to the thirty-second part of a heartbeat: no timer for each, and the cost
// of a turn is that of those that are due. Between a time and its turn it isn't kept up to date: who has become due later
// is looked at, and put back.
type wheel struct {
	width time.Duration // of a slot
	slots [slots][]*taken
	at    int       // the slot that is due next
	next  time.Time // when that is; means nothing while the wheel is empty
	n     int       // connections
}

func newWheel(heartbeat time.Duration) wheel {
	return wheel{width: max(heartbeat/slotsAHeartbeat, time.Millisecond)}
}

// add puts a connection where it is due.
func (w *wheel) add(c *taken, due, now time.Time) {
	if w.n == 0 {
		w.next = now.Add(w.width)
	}
	w.n++
	w.put(c, due)
}

func (w *wheel) put(c *taken, due time.Time) {
	ahead := min(max(int((due.Sub(w.next)+w.width/2)/w.width), 0), slots-1)
	i := (w.at + ahead) % slots
	w.slots[i] = append(w.slots[i], c)
}

// hasten puts a connection that the wheel has where it is due by now. It looks for it everywhere: that is rare.
func (w *wheel) hasten(c *taken, due time.Time) {
	for i, slot := range w.slots {
		if at := slices.Index(slot, c); at >= 0 {
			w.slots[i] = slices.Delete(slot, at, at+1)
			w.put(c, due)
			return
		}
	}
}

// turn calls do for each connection that is due by now. do returns when it is due next, or that it has ended.
func (w *wheel) turn(now time.Time, do func(c *taken) (next time.Time, stays bool)) {
	for w.n > 0 && !w.next.After(now) {
		at, due := w.at, w.slots[w.at]
		w.slots[at] = nil
		w.at = (w.at + 1) % slots
		w.next = w.next.Add(w.width)
		for _, c := range due {
			if next, stays := do(c); stays {
				w.put(c, next)
			} else {
				w.n--
			}
		}
		if clear(due); w.slots[at] == nil {
			w.slots[at] = due[:0]
		}
	}
}

// each calls do for each connection, in no order. do adds none.
func (w *wheel) each(do func(c *taken)) {
	for _, slot := range w.slots {
		for _, c := range slot {
			do(c)
		}
	}
}
