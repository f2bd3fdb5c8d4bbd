package fanout

import (
	"math"

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
	c.followLocked(b)
	if c.placed && c.seq < h.window.first {
		c.placed = false // what it was about to walk has left the window
	}
	if !c.placed && !c.placeLocked() {
		return false, nil
	}
	return c.walkLocked(b)
}

// followLocked takes over what befell the topic as a whole since the cursor last looked: it was created again, cut
// back, or has grown.
func (c *cursor) followLocked(b *Batch) {
	h := c.hub
	if c.own.Incarnation == (stream.Incarnation{}) || h.id == (stream.Incarnation{}) {
		c.own.Incarnation = h.id // brokers without topic ids: nothing to compare
	}
	if c.own.Incarnation != h.id {
		c.recreatedLocked(b)
	}
	if c.epoch != h.epoch {
		for _, cut := range h.cuts {
			if cut.epoch > c.epoch && int(cut.part) < len(c.own.Next) && c.own.Next[cut.part] > cut.to {
				c.lost(b, stream.Gap{Partition: cut.part, From: c.own.Next[cut.part], To: cut.to, Reason: stream.GapTruncated})
			}
		}
		c.epoch, c.placed = h.epoch, false
	}
	for len(c.own.Next) < len(h.window.next) {
		c.own.Next = append(c.own.Next, 0) // a partition that was added: from its start
	}
}

// recreatedLocked goes on from the start of the topic's new incarnation. All of the earlier one that the cursor
// lacks is gone. The position changes with the last gap, as a whole.
func (c *cursor) recreatedLocked(b *Batch) {
	h := c.hub
	now := stream.TopicPosition{Topic: h.topic, Incarnation: h.id, Next: append([]int64(nil), h.begins...)}
	var gaps []stream.Gap
	for p := range max(len(c.own.Next), len(now.Next)) {
		gap := stream.Gap{Topic: h.topic, Partition: int32(p), Reason: stream.GapRecreated}
		if p < len(c.own.Next) {
			gap.From = c.own.Next[p]
		}
		if p < len(now.Next) {
			gap.To = now.Next[p]
		}
		if gap.From != 0 || gap.To != 0 {
			gaps = append(gaps, gap)
		}
	}
	was := c.sub.token(c, c.own.Part())
	c.own, c.epoch, c.placed, c.probed = now, h.epoch, false, true
	for i := range gaps {
		id := was
		if i == len(gaps)-1 {
			id = c.sub.token(c, c.own.Part())
		}
		b.add(Item{Gap: &gaps[i], ID: id})
		h.hubs.metrics.gaps.Inc()
	}
}

// lost tells a gap in one partition and goes on behind it.
func (c *cursor) lost(b *Batch, gap stream.Gap) {
	gap.Topic = c.hub.topic
	c.own.Next[gap.Partition] = gap.To
	b.add(Item{Gap: &gap, ID: c.sub.token(c, c.own.Part())})
	c.hub.hubs.metrics.gaps.Inc()
}

// placeLocked finds the cursor's place in the window. Where it can't have one yet it asks for history, or whether
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
		c.reading = true
		delete(h.unsynced, c) // what is appended meanwhile is nothing to it
		h.hubs.replays.push(&replay{cursor: c, probe: probe, req: stream.HistoryRequest{
			Topic: h.topic, Incarnation: c.own.Incarnation, Ranges: ranges, MaxBytes: h.hubs.cfg.HistoryBytes,
		}})
		return false
	}
	c.seq, c.settled = w.place(c.own.Next)
	c.placed = true
	if c.seq < w.end() {
		c.count(h.hubs.metrics.replaysWindow)
	}
	if w.ahead(c.own.Next) {
		c.settled = math.MaxUint64
	}
	return true
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
	if w.ahead(c.own.Next) {
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
	if e.matches(c.ch.filter) {
		b.add(Item{Message: &e.msg, ID: c.sub.token(c, c.own.Part())})
	}
}

// takeHistory takes what a read of history brought.
func (c *cursor) takeHistory(b *Batch) {
	part := &c.chunk[0]
	if gap := part.Gap; gap != nil {
		part.Gap = nil
		gap.From = c.own.Next[part.Partition]
		c.lost(b, *gap)
	}
	at := &c.own.Next[part.Partition]
	for len(part.Messages) > 0 {
		if b.budget <= 0 {
			return
		}
		m := &part.Messages[0]
		part.Messages = part.Messages[1:]
		if m.Offset < *at {
			continue
		}
		*at = m.Offset + 1
		if c.ch.filter.Match(m) {
			b.add(Item{Message: m, ID: c.sub.token(c, c.own.Part())})
		}
	}
	*at = max(*at, part.Next)
	if c.chunk = c.chunk[1:]; len(c.chunk) == 0 {
		c.dropHistory()
	}
}

// answer hands the cursor what its read of history brought. After an error it asks again, for what it lacks by then.
func (c *cursor) answer(r *replay, parts []stream.PartBatch, size int64, err error) {
	c.sub.mu.Lock()
	defer c.sub.mu.Unlock()
	c.reading = false
	if c.sub.closed || err != nil || len(parts) == 0 {
		c.hub.hubs.memory.add(-size)
	} else {
		c.chunk, c.chunkSize = parts, size
		if size > 0 { // else there is nothing to be had by taking it away, and a gap to be lost
			c.hub.hubs.held.push(c)
		}
	}
	if r.probe && err == nil && len(parts) == len(r.req.Ranges) {
		c.probed = true
	}
	c.wake()
}

// dropHistory lets go of a read's memory. What of it wasn't taken is read again, if the cursor goes on.
func (c *cursor) dropHistory() {
	if c.chunk == nil {
		return
	}
	c.hub.hubs.held.remove(c)
	c.hub.hubs.memory.add(-c.chunkSize)
	c.chunk, c.chunkSize = nil, 0
}
