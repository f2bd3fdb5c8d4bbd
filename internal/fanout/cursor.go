package fanout

import (
	"github.com/goodgo/streamgw/internal/stream"
)

// cursor is where a subscription stands in one topic. It is in one of two states.
//
// In step, it has what the hub had at a place in its order, no more and no less: seq is that place, and ids and frames
// are the hub's. Nothing else is kept.
//
// On its own, it stands at a vector that the hub need not have had: own. Where that lies before the window, history
// brings it up to the window's beginning, a stretch of a partition at a time. Then it walks the window, skips what it has, and falls
// in step where both cover the same messages.
//
// Its fields are guarded by its subscription's lock; listed, ch.inStep and h.unsynced, where it is listed, by the hub's.
type cursor struct {
	hub *Hub
	ch  *channel

	synced  bool
	placed  bool   // on its own, with a place in the window
	probed  bool   // Kafka has confirmed that what is beyond the hub's end isn't beyond its own
	counted bool   // the metric of replays has counted it since it was last in step
	begins  bool   // on its own, as it began, and not in step since
	among   bool   // what it took of history last was a run that others have too
	listed  int32  // its index in ch.inStep; -1: it isn't there
	epoch   int    // of the hub, when last looked at
	seq     uint64 // the next entry to look at; when on its own, only if placed
	id      string // in step: the topic's part of the position

	behind []stream.Range // on its own and not placed: what lies between it and the window, as it was when last looked at
	want   *want          // the read of history that it waits for

	own     stream.TopicPosition
	floor   *stream.TopicPosition // on its own: nothing before it is given out; nil: all is. The cursor's alone
	settled uint64                // on its own and placed: from here on it lacks every entry
	telling int32                 // the partition whose gap is told next, where the topic was created again
	sub     *Subscription
}

func (c *cursor) wake() { c.sub.waker.Wake() }

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
	case c.want != nil:
		return c.hear(b)
	case len(c.behind) > 0:
		return c.stepPast(b), nil
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
	in, had := c.epoch == h.epoch, len(b.Items)+b.Run.Count
	if in {
		again, in = c.takeLocked(b)
		if h.gather > 0 && c.ch.samples(c) && len(b.Items)+b.Run.Count > had {
			c.ch.tookAt.Store(int64(h.hubs.clock(h.hubs.now())))
		}
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
			if e := w.at(c.seq); e.gap == nil && c.takesRuns() && c.takeRunLocked(b) {
				return false, true // a batch has one run
			} else if e.gap == nil && !c.wants(b, e) {
				c.seq, c.id = c.seq+1, e.id
				continue
			}
			c.takeEntryLocked(b, c.seq)
		}
	}
	c.seq, c.id = w.end(), h.head
	return false, true
}

// wants reports whether an entry's message is for the cursor, and counts the look at it.
func (c *cursor) wants(b *Batch, e *entry) bool {
	b.budget -= c.ch.cost
	return e.matches(c.ch.filter)
}

// takesRuns reports whether what comes next for a cursor in step can be written as it stands in the hub's log.
func (c *cursor) takesRuns() bool {
	return c.sub.format >= 0 && len(c.sub.cursors) == 1 && c.ch.filter.All()
}

// takeRunLocked makes b a run of the log, and moves behind it. A batch that has items already is left as it is, and ends.
// It reports whether that can be: not where c stands inside a block.
func (c *cursor) takeRunLocked(b *Batch) bool {
	h, s := c.hub, c.hub.window.segmentOf(c.seq)
	l := h.log(s, c.sub.format)
	piece, ok := l.piece(int(c.seq - s.first))
	if !ok {
		return false
	}
	if len(b.Items) == 0 {
		b.Run = h.runFrom(l, piece, c.seq, b.budget, c.id)
		c.seq += uint64(b.Run.Count)
		if c.id = b.Run.last().id; c.seq == h.window.end() {
			c.id = h.head
			return true
		}
	}
	b.budget = 0 // there is more
	return true
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
		item.Frame = c.hub.frame(seq, c.sub.format)
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
	c.own, c.floor, c.begins = stream.TopicPosition{}, nil, false
	c.listLocked()
}

// listLocked enters the cursor where the hub looks for whom to wake.
func (c *cursor) listLocked() {
	if c.synced {
		delete(c.hub.unsynced, c)
		c.ch.enter(c)
	} else {
		c.ch.leave(c)
		c.hub.unsynced[c] = struct{}{}
	}
}
