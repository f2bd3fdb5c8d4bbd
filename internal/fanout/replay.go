package fanout

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// serveHistory makes the reads that cursors wait for, one at a time, until ctx ends.
func (h *Hubs) serveHistory(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.archive.filled:
		}
		for r := h.archive.next(); r != nil && ctx.Err() == nil; r = h.archive.next() {
			h.serveRead(ctx, r)
		}
	}
}

// serveRead makes one read, whose memory is taken beforehand.
func (h *Hubs) serveRead(ctx context.Context, r *read) {
	for size := r.req.MaxBytes; ; {
		if !h.reserveHistory(ctx, size) {
			return
		}
		if r.abandoned() {
			r.finish(nil, size, nil)
			return
		}
		h.metrics.historyReads.Inc()
		parts, err := h.history.Read(ctx, r.req)
		if err != nil {
			h.cfg.Log.Debug("history is read again", "topic", r.req.Topic, "err", err)
			h.memory.add(-size)
			backOff := time.Duration(100+rand.IntN(400)) * time.Millisecond
			time.AfterFunc(backOff, func() { r.finish(nil, 0, nil) })
			return
		}
		got := partsSize(parts) // of one large message it is more than was asked for
		if got <= size || got <= h.memory.limit && h.Reserve(got-size) {
			r.finish(parts, max(got, size), nil)
			return
		}
		h.memory.add(-size)
		if got > h.memory.limit {
			err = stream.Errorf(stream.TooLarge, "a message of topic %s takes %d bytes of memory, and this gateway has %d", r.req.Topic, got, h.memory.limit)
			r.finish(parts, 0, err)
			return
		}
		size = got
	}
}

// reserveHistory takes memory for a read. All history together takes no more than a fourth from the windows. While
// there is none it waits: first for what nobody uses any more, then what others use is taken too.
func (h *Hubs) reserveHistory(ctx context.Context, size int64) bool {
	for waited := time.Duration(0); !h.archive.room(size, h.memory.limit/4, historyFresh); waited += historyFresh {
		if waited >= historySpare {
			h.archive.room(size, h.memory.limit/4, 0)
			break
		}
		select {
		case <-time.After(historyFresh):
		case <-ctx.Done():
			return false
		}
	}
	h.shrink(size)
	for !h.memory.take(size) {
		freed := h.memory.wait()
		select {
		case <-freed:
		case <-time.After(historySpare):
			h.archive.giveUp(0, func() bool { return h.memory.over(size) <= 0 })
		case <-ctx.Done():
			return false
		}
		h.shrink(size)
	}
	return true
}

// finish hands over what a read brought, for which held bytes of memory were taken. Who isn't served by it is first in
// line again. With an error, parts begin with what is the cause of it.
func (r *read) finish(parts []stream.PartBatch, held int64, err error) {
	p := r.past
	a := p.archive
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.hubs.memory.add(-held) }()
	if r.epoch != p.epoch || p.closed {
		return // who waited for it has been let go
	}
	p.reads = slices.DeleteFunc(p.reads, func(other *read) bool { return other == r })
	for i := range parts {
		held -= r.takeLocked(&parts[i], err)
	}
	for _, w := range slices.Backward(r.members) {
		switch {
		case w.done.Load():
		case w.err != nil, len(w.gaps) > 0, r.probe && parts != nil, r.servesLocked(w):
			w.sure = r.probe && !slices.ContainsFunc(w.ranges, func(g stream.Range) bool { return !answers(parts, g.Partition) })
			p.releaseLocked(w)
		default:
			w.read, w.passed = nil, true
			w.place = p.line.PushFront(w)
		}
	}
	p.queueLocked()
}

func answers(parts []stream.PartBatch, partition int32) bool {
	return slices.ContainsFunc(parts, func(part stream.PartBatch) bool { return part.Partition == partition })
}

// servesLocked reports whether a cursor can go on with what there is.
func (r *read) servesLocked(w *want) bool {
	return slices.ContainsFunc(w.ranges, func(g stream.Range) bool { return r.past.findLocked(g.Partition, g.From) != nil })
}

// takeLocked takes over what a read brought of one partition. It returns what is kept of it, in bytes.
func (r *read) takeLocked(part *stream.PartBatch, err error) (kept int64) {
	i := slices.IndexFunc(r.req.Ranges, func(g stream.Range) bool { return g.Partition == part.Partition })
	if i < 0 {
		return 0
	}
	g := r.req.Ranges[i]
	switch gap := part.Gap; {
	case err != nil:
		r.failLocked(g, part, err)
	case gap != nil && (r.probe || gap.To < g.From):
		r.tellLocked(*gap)
	case !r.probe:
		if part.Next < g.To && len(part.Messages) > 0 {
			r.past.reach = max(part.Next-g.From, 1)
		}
		return r.past.putLocked(newStretch(r.past, g, part))
	}
	return 0
}

// tellLocked tells those who asked before the read was made that the log doesn't have their positions: it ends before
// them, or begins behind them. Who came later may have a position that came later too.
func (r *read) tellLocked(gap stream.Gap) {
	for _, w := range r.members {
		for _, g := range w.ranges {
			beyond := g.From < gap.To
			if gap.Reason == stream.GapTruncated {
				beyond = g.From > gap.To
			}
			if beyond && g.Partition == gap.Partition && !w.late && !w.done.Load() {
				w.gaps = append(w.gaps, stream.Gap{Partition: g.Partition, To: gap.To, Reason: gap.Reason})
			}
		}
	}
}

// failLocked gives those up to whom a message comes next for which there will never be room.
func (r *read) failLocked(g stream.Range, part *stream.PartBatch, err error) {
	if stretchSize(part.Messages) <= r.past.archive.hubs.memory.limit {
		return
	}
	for _, w := range r.members {
		for _, wanted := range w.ranges {
			if wanted.Partition == g.Partition && g.From <= wanted.From && wanted.From <= part.Messages[0].Offset {
				w.err = err
			}
		}
	}
}
