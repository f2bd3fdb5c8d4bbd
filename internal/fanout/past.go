package fanout

import (
	"container/list"
	"slices"
	"sync/atomic"

	"github.com/goodgo/streamgw/internal/stream"
)

// past is what a hub's cursors share of the time before its window: what was read of it lately, and the line of those
// who wait for more. All of it is guarded by the archive's lock.
//
// Those who come back after a cut stand at offsets close to each other. A read is made for the first in line, but begins
// where the farthest behind of those near him stands, and ends where an earlier read begins; the others wait for it, and
// so do those who come while it is under way. Then all take what it brought, and meet again at its end.
type past struct {
	archive *archive
	topic   string

	epoch     int // the hub's; what was read in an earlier one is worth nothing
	closed    bool
	stretches [][]*stretch // by partition, in order, none over another
	line      list.List    // of *want, those that no read was begun for
	reads     []*read      // under way
	reach     int64        // how many offsets of a partition a read brings, about
	queued    bool         // in archive.queue
}

func newPast(a *archive, topic string) *past {
	return &past{archive: a, topic: topic, reach: max(a.hubs.cfg.HistoryBytes/256, 1)}
}

// mostShare bounds a read that several wait for: to so many times of what one gets. A 64th of all memory does, too.
const mostShare = 4

// want is what a cursor waits for. What it was told is written before it is done, and read after that.
type want struct {
	cursor *cursor
	past   *past
	epoch  int
	id     stream.Incarnation
	probe  bool           // asks only whether positions lie within the log
	ranges []stream.Range // at most one for a partition

	place  *list.Element // in the line, while it stands there
	read   *read         // that it waits for
	late   bool          // it came when that was under way already
	passed bool          // a read that it waited for didn't reach it: the next begins where it stands

	gaps []stream.Gap // where the log no longer has its positions, but for where each begins
	sure bool         // of a probe: all positions were looked for
	err  error        // why there is nothing to be had
	done atomic.Bool
}

// read is a read of history under way.
type read struct {
	past    *past
	epoch   int
	probe   bool
	req     stream.HistoryRequest
	members []*want // who waits for it
}

// covers reports whether a read under way is likely to bring an offset.
func (r *read) covers(partition int32, offset int64) bool {
	for _, g := range r.req.Ranges {
		if g.Partition == partition {
			return g.From <= offset && offset < min(g.To, g.From+r.past.reach)
		}
	}
	return false
}

// reset forgets all that was read, and has everybody in line look at the hub again.
func (p *past) reset(epoch int, closed bool) {
	p.archive.mu.Lock()
	defer p.archive.mu.Unlock()
	p.epoch, p.closed = epoch, closed
	for _, partition := range p.stretches {
		for _, s := range slices.Clone(partition) {
			p.archive.dropLocked(s)
		}
	}
	for _, r := range p.reads {
		for _, w := range r.members {
			p.releaseLocked(w)
		}
	}
	p.reads = nil
	for p.line.Len() > 0 {
		p.releaseLocked(p.line.Front().Value.(*want))
	}
}

// seek returns what was read of one of the places where a cursor stands. Where there is nothing it enters the line, and
// w is what it waits for. When its epoch is over it gets neither.
func (p *past) seek(c *cursor) (s *stretch, w *want) {
	p.archive.mu.Lock()
	defer p.archive.mu.Unlock()
	if p.closed || p.epoch != c.epoch {
		return nil, nil
	}
	for _, g := range c.behind {
		if s := p.findLocked(g.Partition, g.From); s != nil {
			p.archive.usedLocked(s)
			return s, nil
		}
	}
	w = p.enterLocked(c, slices.Clone(c.behind), false)
	for _, r := range p.reads {
		for _, g := range w.ranges {
			if !r.probe && r.covers(g.Partition, g.From) {
				w.read, w.late = r, true
				r.members = append(r.members, w)
				return nil, w
			}
		}
	}
	p.lineUpLocked(w)
	return nil, w
}

// probe enters a cursor in line that must know whether its positions lie within the log.
func (p *past) probe(c *cursor, ranges []stream.Range) *want {
	p.archive.mu.Lock()
	defer p.archive.mu.Unlock()
	w := p.enterLocked(c, ranges, true)
	p.lineUpLocked(w)
	return w
}

func (p *past) enterLocked(c *cursor, ranges []stream.Range, probe bool) *want {
	p.archive.waiting++
	return &want{cursor: c, past: p, epoch: c.epoch, id: c.own.Incarnation, probe: probe, ranges: ranges}
}

func (p *past) lineUpLocked(w *want) {
	w.place = p.line.PushBack(w)
	p.queueLocked()
}

// queueLocked has a read made for the first in line.
func (p *past) queueLocked() {
	if p.line.Len() > 0 && !p.queued {
		p.queued = true
		p.archive.queue = append(p.archive.queue, p)
	}
	p.archive.signalLocked()
}

// releaseLocked lets a cursor go on.
func (p *past) releaseLocked(w *want) {
	if w.done.Load() {
		return
	}
	if w.place != nil {
		p.line.Remove(w.place)
		w.place = nil
	}
	w.read = nil
	p.archive.waiting--
	w.done.Store(true)
	w.cursor.wake()
}

// leave takes a cursor that is closed out of the line.
func (p *past) leave(w *want) {
	p.archive.mu.Lock()
	defer p.archive.mu.Unlock()
	p.releaseLocked(w)
}

// abandoned reports whether nobody waits for a read any more.
func (r *read) abandoned() bool {
	r.past.archive.mu.Lock()
	defer r.past.archive.mu.Unlock()
	return !slices.ContainsFunc(r.members, func(w *want) bool { return !w.done.Load() })
}

// beginLocked returns the next read to be made, or nil when the first in line can go on without.
func (p *past) beginLocked() *read {
	if p.line.Len() == 0 {
		return nil
	}
	head := p.line.Front().Value.(*want)
	r := &read{past: p, epoch: p.epoch, probe: head.probe, req: stream.HistoryRequest{Topic: p.topic, Incarnation: head.id}}
	if head.probe {
		r.req.Ranges = p.probesLocked()
	} else if slices.ContainsFunc(head.ranges, func(g stream.Range) bool { return p.findLocked(g.Partition, g.From) != nil }) {
		p.releaseLocked(head) // another read has brought more than was expected of it
		return nil
	} else {
		r.req.Ranges = p.rangesLocked(head)
	}
	for e := p.line.Front(); e != nil; {
		w := e.Value.(*want)
		e = e.Next()
		if w.probe == r.probe && (w.probe || slices.ContainsFunc(w.ranges, func(g stream.Range) bool { return r.covers(g.Partition, g.From) })) {
			p.line.Remove(w.place)
			w.place, w.read, w.late = nil, r, false
			r.members = append(r.members, w)
		}
	}
	hubs := p.archive.hubs
	each := hubs.cfg.HistoryBytes
	r.req.MaxBytes = min(each*int64(min(len(r.members), mostShare)), max(each, hubs.memory.limit/64))
	p.reads = append(p.reads, r)
	return r
}

// probesLocked returns the farthest position in each partition of all who ask for one: it tells of the others too.
func (p *past) probesLocked() (ranges []stream.Range) {
	farthest := map[int32]int{} // by partition: the index of its range; a made-up position may know any number of them
	for e := p.line.Front(); e != nil; e = e.Next() {
		w := e.Value.(*want)
		for _, g := range w.ranges {
			if !w.probe {
				break
			}
			i, there := farthest[g.Partition]
			if !there {
				farthest[g.Partition] = len(ranges)
				ranges = append(ranges, g)
			} else if g.From > ranges[i].From {
				ranges[i] = g
			}
		}
	}
	return ranges
}

// rangesLocked returns what to read for the first in line, and those near him.
func (p *past) rangesLocked(head *want) []stream.Range {
	ranges := slices.Clone(head.ranges)
	least := make(map[int32]int, len(ranges)) // by partition: the index of its range
	low := make([]int64, len(ranges))         // where each may begin, so that what stands at its From is still reached
	for i, g := range ranges {
		least[g.Partition] = i
		low[i] = g.From
		if !head.passed {
			low[i] = p.lowLocked(g.Partition, g.From)
		}
	}
	for e := p.line.Front(); e != nil; e = e.Next() {
		w := e.Value.(*want)
		if w.probe {
			continue
		}
		for _, g := range w.ranges {
			if i, ok := least[g.Partition]; ok && g.From >= low[i] {
				ranges[i].From = min(ranges[i].From, g.From)
				ranges[i].To = max(ranges[i].To, g.To)
			}
		}
	}
	for i, g := range ranges {
		ranges[i].To = min(g.To, p.highLocked(g.Partition, g.From))
	}
	return ranges
}

// lowLocked returns the least offset from which a read reaches another one without going over what is there already.
func (p *past) lowLocked(partition int32, offset int64) int64 {
	low := offset - p.reach + 1
	if i, _ := p.searchLocked(partition, offset); i > 0 {
		low = max(low, p.stretches[partition][i-1].next)
	}
	for _, r := range p.reads {
		for _, g := range r.req.Ranges {
			if !r.probe && g.Partition == partition && g.From <= offset {
				low = max(low, g.From+1)
			}
		}
	}
	return min(low, offset)
}

// highLocked returns where the next stretch beyond an offset begins, or a read under way.
func (p *past) highLocked(partition int32, offset int64) int64 {
	high := int64(1<<63 - 1)
	if i, _ := p.searchLocked(partition, offset); int(partition) < len(p.stretches) && i < len(p.stretches[partition]) {
		high = p.stretches[partition][i].from
	}
	for _, r := range p.reads {
		for _, g := range r.req.Ranges {
			if !r.probe && g.Partition == partition && g.From > offset {
				high = min(high, g.From)
			}
		}
	}
	return high
}
