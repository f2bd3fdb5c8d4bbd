package fanout

import (
	"container/list"

	"github.com/goodgo/streamgw/internal/stream"
)

// cursor is where a subscription stands in one topic. It is in one of two states.
//
// In step, it has what the hub had at a place in its order, no more and no less: seq is that place, and ids and frames
// are the hub's. Nothing else is kept.
//
// On its own, it stands at a vector that the hub need not have had: own. Where that lies before the window, history
// brings it up to the window's beginning, partition by partition. Then it walks the window, skips what it has, and falls
// in step where both cover the same messages.
//
// Its fields are guarded by its subscription's lock; ch.cursors and h.unsynced, where it is listed, by the hub's.
type cursor struct {
	sub *Subscription
	hub *Hub
	ch  *channel

	synced bool
	epoch  int    // of the hub, when last looked at
	seq    uint64 // the next entry to look at; when on its own, only if placed
	id     string // in step: the topic's part of the position

	own     stream.TopicPosition
	placed  bool
	settled uint64 // on its own and placed: from here on it lacks every entry
	probed  bool   // Kafka has confirmed that what is beyond the hub's end isn't beyond its own
	counted bool   // the metric of replays has counted it since it was last in step

	reading   bool // a read of history is under way
	chunk     []stream.PartBatch
	chunkSize int64         // what chunk holds of memory
	holds     *list.Element // in Hubs.held, while there is a chunk
}

func (c *cursor) wake() { c.sub.wake() }

// part returns the topic's part of the position.
func (c *cursor) part() string {
	if c.synced {
		return c.id
	}
	return c.own.Part()
}

// poll adds what comes next to b until its budget is spent.
func (c *cursor) poll(b *Batch) error {
	for b.budget > 0 {
		again, err := c.step(b)
		if err != nil || !again {
			return err
		}
	}
	return nil
}

// step does one thing of a poll. again says that there is more to do at once.
func (c *cursor) step(b *Batch) (again bool, err error) {
	switch {
	case c.reading:
		return false, nil
	case len(c.chunk) > 0:
		c.takeHistory(b)
		return true, nil
	case c.synced:
		return c.stepInStep(b)
	default:
		return c.stepOwn(b)
	}
}

// stepInStep takes entries that the hub's order has from seq on.
func (c *cursor) stepInStep(b *Batch) (again bool, err error) {
	h := c.hub
	h.mu.RLock()
	if h.err != nil {
		defer h.mu.RUnlock()
		return false, h.err
	}
	in := c.epoch == h.epoch
	if in {
		again, in = c.takeLocked(b)
	}
	h.mu.RUnlock()
	if in {
		return again, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.epoch == h.epoch && c.sub.slow == SlowClose {
		return false, stream.Errorf(stream.TooSlow, "the client fell %d messages behind in topic %s, and out of the window", h.window.end()-c.seq, h.topic)
	}
	return true, c.leaveStepLocked()
}

// takeLocked adds what c lacks of the window to b. in is false when the window no longer holds all of that.
func (c *cursor) takeLocked(b *Batch) (again, in bool) {
	h, w := c.hub, &c.hub.window
	if refs, complete := c.ch.after(c.seq, w.first); complete && !c.ch.filter.All() {
		for _, seq := range refs {
			if b.budget <= 0 {
				return false, true
			}
			c.takeEntryLocked(b, seq)
		}
	} else {
		if c.seq < w.first {
			return false, false
		}
		for n := 0; c.seq < w.end(); n++ {
			if b.budget <= 0 || n == h.hubs.limits.walk {
				return true, true
			}
			if e := w.at(c.seq); e.gap == nil && !e.matches(c.ch.filter) {
				c.seq, c.id = c.seq+1, e.id
				continue
			}
			c.takeEntryLocked(b, c.seq)
		}
	}
	c.seq, c.id = w.end(), h.head
	return false, true
}

// takeEntryLocked adds an entry to b and moves behind it, in step.
func (c *cursor) takeEntryLocked(b *Batch, seq uint64) {
	e := c.hub.window.at(seq)
	c.seq, c.id = seq+1, e.id
	item := Item{ID: c.sub.token(c, e.id)}
	if e.gap != nil {
		item.Gap = e.gap
		c.hub.hubs.metrics.gaps.Inc()
	} else if item.Message = &e.msg; len(c.sub.cursors) == 1 {
		item.Frame = c.hub.frame(e, c.sub.format)
	}
	b.add(item)
}

// leaveStepLocked puts the cursor on its own, where it stood.
func (c *cursor) leaveStepLocked() error {
	p, err := stream.ParsePosition(c.id)
	if err != nil {
		return err // of our own making: it reads
	}
	c.own, _ = p.Topic(c.hub.topic)
	c.synced, c.placed, c.probed, c.counted = false, false, false, false
	c.listLocked()
	return nil
}

// enterStepLocked puts the cursor in step, at seq, where its position's part is id.
func (c *cursor) enterStepLocked(seq uint64, id string) {
	c.synced, c.seq, c.id, c.epoch = true, seq, id, c.hub.epoch
	c.own = stream.TopicPosition{}
	c.listLocked()
}

// listLocked enters the cursor where the hub looks for whom to wake.
func (c *cursor) listLocked() {
	if c.synced {
		delete(c.hub.unsynced, c)
		c.ch.cursors[c] = struct{}{}
	} else {
		delete(c.ch.cursors, c)
		c.hub.unsynced[c] = struct{}{}
	}
}
