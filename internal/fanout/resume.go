package fanout

import (
	"math"
	"slices"

	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// stepOwn brings a cursor that is on its own nearer to the hub: it asks for history, or walks the window.
func (c *cursor) stepOwn(b *Batch) (again bool, err error) {
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return false, h.err
	}
	c.listLocked()
	if !c.followLocked(b) {
		return true, nil
	}
	if c.placed && c.seq < h.window.first {
		c.placed = false // what it was about to walk has left the window
	}
	if !c.placed && !c.placeLocked() {
		return c.want == nil, nil
	}
	return c.walkLocked(b)
}

// followLocked takes over what befell the topic as a whole since the cursor last looked: it was created again, cut
// back, or has grown. It returns false when that is more than fits into b.
func (c *cursor) followLocked(b *Batch) (followed bool) {
	h := c.hub
	if c.own.Incarnation == (stream.Incarnation{}) || h.id == (stream.Incarnation{}) {
		c.own.Incarnation = h.id // brokers without topic ids: nothing to compare
	}
	if c.own.Incarnation != h.id && !c.recreatedLocked(b) {
		return false
	}
	if c.epoch != h.epoch {
		for _, cut := range h.cuts {
			if f := c.floor; f != nil && cut.epoch > c.epoch && int(cut.part) < len(f.Next) {
				f.Next[cut.part] = min(f.Next[cut.part], cut.to) // what comes there now is newer
			}
			if cut.epoch > c.epoch && int(cut.part) < len(c.own.Next) && c.own.Next[cut.part] > cut.to {
				c.lost(b, stream.Gap{Partition: cut.part, From: c.own.Next[cut.part], To: cut.to, Reason: stream.GapTruncated})
			}
		}
		c.epoch, c.placed = h.epoch, false
	}
	for len(c.own.Next) < len(h.window.next) {
		c.own.Next = append(c.own.Next, 0) // a partition that was added: from its start
	}
	return c.rise(b)
}

// rise moves the cursor up to its floor, wherever a client said that it was, and tells what it doesn't get. What belongs to
// another incarnation than the floor's is newer, and so is what takes the place of what is cut back later.
// It returns false when that is more than fits into b.
func (c *cursor) rise(b *Batch) (risen bool) {
	if c.floor == nil || c.floor.Incarnation != c.own.Incarnation {
		return true
	}
	for p := range min(len(c.floor.Next), len(c.own.Next)) {
		if least := c.floor.Next[p]; c.own.Next[p] < least {
			if b.budget <= 0 {
				return false
			}
			c.lost(b, stream.Gap{Partition: int32(p), From: c.own.Next[p], To: least, Reason: stream.GapForbidden})
			c.placed, c.probed = false, false
		}
		c.floor.Next[p] = 0 // done with
	}
	return true
}

// recreatedLocked goes on from the start of the topic's new incarnation. All of the earlier one that the cursor
// lacks is gone. The position changes with the last gap, as a whole. It returns false when the gaps are more than fit
// into b: a client may come with a position of any number of partitions.
func (c *cursor) recreatedLocked(b *Batch) (told bool) {
	h, own := c.hub, c.own
	now := stream.TopicPosition{Topic: h.topic, Incarnation: h.id, Next: append([]int64(nil), h.begins...)}
	gapOf := func(p int32) stream.Gap {
		gap := stream.Gap{Topic: h.topic, Partition: p, Reason: stream.GapRecreated}
		if int(p) < len(own.Next) {
			gap.From = own.Next[p]
		}
		if int(p) < len(now.Next) {
			gap.To = now.Next[p]
		}
		return gap
	}
	nothing := func(gap stream.Gap) bool { return gap.From == 0 && gap.To == 0 }
	last := int32(max(len(own.Next), len(now.Next)) - 1)
	for last >= 0 && nothing(gapOf(last)) {
		last--
	}
	id := c.sub.token(c, own.Part())
	for ; c.telling <= last; c.telling++ {
		gap := gapOf(c.telling)
		if nothing(gap) {
			continue
		}
		if b.budget <= 0 {
			return false
		}
		if c.telling == last {
			id = c.sub.token(c, now.Part())
		}
		b.add(Item{Gap: &gap, ID: id})
		b.budget -= int64(len(id))
		h.hubs.metrics.gaps.Inc()
	}
	c.own, c.epoch, c.placed, c.probed, c.telling = now, h.epoch, false, true, 0
	return true
}

// lost tells a gap in one partition and goes on behind it.
func (c *cursor) lost(b *Batch, gap stream.Gap) {
	gap.Topic = c.hub.topic
	c.own.Next[gap.Partition] = gap.To
	b.add(Item{Gap: &gap, ID: c.sub.token(c, c.own.Part())})
	c.hub.hubs.metrics.gaps.Inc()
}

// placeLocked finds the cursor's place in the window. Where it can't have one yet it notes what is behind, or asks whether
// what is beyond the hub's end exists, and returns false.
func (c *cursor) placeLocked() bool {
	h, w := c.hub, &c.hub.window
	var ranges []stream.Range
	for p, n := range c.own.Next {
		if p < len(w.begin) && n < w.begin[p] {
			ranges = append(ranges, stream.Range{Partition: int32(p), From: n, To: w.begin[p]})
		}
	}
	if len(ranges) > 0 {
		c.count(h.hubs.metrics.replaysKafka)
	}
	probe := len(ranges) == 0 && !c.probed
	for p, n := range c.own.Next {
		if probe && n > w.stands(p) {
			ranges = append(ranges, stream.Range{Partition: int32(p), From: n, To: n})
		}
	}
	if len(ranges) > 0 {
		delete(h.unsynced, c) // what is appended meanwhile is nothing to it
		if probe {
			c.want = h.past.probe(c, ranges)
		} else {
			c.behind = ranges
		}
		return false
	}
	c.seq, c.settled = w.place(c.own.Next)
	c.placed = true
	if c.seq < w.end() {
		c.count(h.hubs.metrics.replaysWindow)
	}
	if c.aheadLocked() {
		c.settled = math.MaxUint64
	}
	return true
}

// aheadLocked reports whether the cursor stands beyond the hub's end in a partition, or has a floor in one that the hub
// doesn't know yet and will begin at its start.
func (c *cursor) aheadLocked() bool {
	w, f := &c.hub.window, c.floor
	return w.ahead(c.own.Next) || f != nil && f.Incarnation == c.own.Incarnation && len(f.Next) > len(w.next)
}

// doubt has a cursor that waits for a hub which is behind ask Kafka anew whether what it waits for exists: it may have been
// truncated meanwhile.
func (c *cursor) doubt() {
	c.sub.mu.Lock()
	defer c.sub.mu.Unlock()
	if !c.sub.closed && !c.synced && c.placed {
		c.placed, c.probed = false, false
		c.wake()
	}
}

// count counts a replay, once until the cursor has been in step again: one from Kafka that then walks the window is
// one from Kafka.
func (c *cursor) count(replays prometheus.Counter) {
	if !c.counted {
		c.counted = true
		replays.Inc()
	}
}

// walkLocked takes what c lacks of the window, until c is in step.
func (c *cursor) walkLocked(b *Batch) (again bool, err error) {
	h, w := c.hub, &c.hub.window
	for n := 0; c.seq < w.end(); n++ {
		if c.seq >= c.settled {
			c.enterStepLocked(c.seq, c.own.Part())
			return true, nil
		}
		if b.budget <= 0 || n == h.hubs.limits.walk {
			return true, nil
		}
		e := w.at(c.seq)
		c.seq++
		if at := &c.own.Next[e.part]; *at < e.next {
			c.takeOwn(b, e, at)
		}
	}
	if c.aheadLocked() {
		return false, nil // this replica lags: what comes next is skipped up to where the cursor is
	}
	c.enterStepLocked(w.end(), h.head)
	return true, nil
}

// takeOwn adds an entry to b and moves behind it, on the cursor's own.
func (c *cursor) takeOwn(b *Batch, e *entry, at *int64) {
	if e.gap != nil {
		c.lost(b, stream.Gap{Partition: e.part, From: *at, To: e.next, Reason: e.gap.Reason})
		return
	}
	*at = e.next
	if c.wants(b, e) {
		b.add(Item{Message: &e.msg, ID: c.sub.token(c, c.own.Part())})
	}
}

// stepPast takes a stretch of history that is at hand, or waits for one.
func (c *cursor) stepPast(b *Batch) (again bool) {
	for i := range c.behind {
		c.behind[i].From = c.own.Next[c.behind[i].Partition]
	}
	c.behind = slices.DeleteFunc(c.behind, func(r stream.Range) bool { return r.From >= r.To })
	if len(c.behind) == 0 {
		return true
	}
	s, want := c.hub.past.seek(c)
	if c.want = want; want != nil {
		return false
	}
	if s == nil {
		c.behind = nil
		return true
	}
	c.takeStretch(b, s)
	return true
}

// takeStretch takes what it lacks of a stretch of history.
func (c *cursor) takeStretch(b *Batch, s *stretch) {
	at := &c.own.Next[s.part]
	if *at < s.lost {
		c.lost(b, stream.Gap{Partition: s.part, From: *at, To: s.lost, Reason: s.reason})
	}
	if c.takePastRun(b, s) {
		return
	}
	for i := s.index(*at); i < len(s.messages); i++ {
		if b.budget <= 0 {
			return
		}
		m := &s.messages[i]
		*at = m.Offset + 1
		b.budget -= c.ch.cost
		if s.matches(c.ch.filter, i) {
			b.add(Item{Message: m, ID: c.sub.token(c, c.own.Part())})
		}
	}
	c.endStretch(s)
}

// endStretch moves behind all of a stretch. Partitions take turns.
func (c *cursor) endStretch(s *stretch) {
	at := &c.own.Next[s.part]
	*at = max(*at, s.next)
	i := slices.IndexFunc(c.behind, func(r stream.Range) bool { return r.Partition == s.part })
	r := c.behind[i]
	c.behind = append(slices.Delete(c.behind, i, i+1), r)
}

// hear takes what the cursor was told when its turn in the line came.
func (c *cursor) hear(b *Batch) (again bool, err error) {
	w := c.want
	if !w.done.Load() {
		return false, nil
	}
	c.want = nil
	if w.err != nil {
		return false, w.err
	}
	for _, gap := range w.gaps {
		gap.From = c.own.Next[gap.Partition]
		c.lost(b, gap)
		c.behind = nil
	}
	c.probed = c.probed || w.sure
	return true, nil
}

// leavePast takes a cursor that is closed out of the line.
func (c *cursor) leavePast() {
	if c.want != nil {
		c.hub.past.leave(c.want)
	}
}
