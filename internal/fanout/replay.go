package fanout

import (
	"container/list"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// replay is one read of history that a cursor waits for.
type replay struct {
	cursor *cursor
	req    stream.HistoryRequest
	probe  bool  // asks only whether positions lie within the log
	need   int64 // what its answer takes of memory, if more than Config.HistoryBytes: one large message
}

// replays is the line of those who wait for history, first come first served. A cursor stands in it once at most, so
// its length is bounded by the number of cursors.
type replays struct {
	mu     sync.Mutex // guards what follows
	line   []*replay
	filled chan struct{} // capacity 1: there is something in the line
}

func newReplays() *replays { return &replays{filled: make(chan struct{}, 1)} }

func (q *replays) push(r *replay) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.line = append(q.line, r)
	q.signalLocked()
}

// pop returns the next in line, or nil.
func (q *replays) pop() *replay {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.line) == 0 {
		return nil
	}
	r := q.line[0]
	q.line[0] = nil
	q.line = q.line[1:]
	q.signalLocked()
	return r
}

func (q *replays) signalLocked() {
	if len(q.line) > 0 {
		select {
		case q.filled <- struct{}{}:
		default:
		}
	}
}

func (q *replays) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.line)
}

// held is who holds history that it hasn't taken yet, the longest first. When memory runs short it is taken away again
// from those who don't take it: they read it anew when they do.
type held struct {
	mu    sync.Mutex // guards what follows, and cursor.holds; taken with a subscription's lock held, not the other way round
	list  list.List
	bytes int64
}

func (h *held) push(c *cursor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.holds = h.list.PushBack(c)
	h.bytes += c.chunkSize
}

func (h *held) remove(c *cursor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.holds != nil {
		h.list.Remove(c.holds)
		h.bytes -= c.chunkSize
		c.holds = nil
	}
}

// longest returns who holds history for longest, and puts it at the end of the line. It returns nil when nobody does.
func (h *held) longest() *cursor {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.list.Front()
	if e == nil {
		return nil
	}
	h.list.MoveToBack(e)
	return e.Value.(*cursor)
}

func (h *held) size() (n int, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.list.Len(), h.bytes
}

// revoke takes history away from who has it and isn't just taking it, until that is enough.
func (h *Hubs) revoke(enough func() bool) {
	for n, _ := h.held.size(); n > 0 && !enough(); n-- {
		c := h.held.longest()
		if c == nil {
			return
		}
		if c.sub.mu.TryLock() {
			c.dropHistory()
			c.wake()
			c.sub.mu.Unlock()
		}
	}
}

// serveReplays answers those in line, one read at a time, until ctx ends.
func (h *Hubs) serveReplays(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.replays.filled:
		}
		for r := h.replays.pop(); r != nil && ctx.Err() == nil; r = h.replays.pop() {
			h.serveReplay(ctx, r)
		}
	}
}

// serveReplay reads for one cursor. Memory for it is taken beforehand; while there is none, those in line wait. All
// history together takes no more than a fourth of it from the windows, unless those who have it are just taking it.
func (h *Hubs) serveReplay(ctx context.Context, r *replay) {
	size := max(h.cfg.HistoryBytes, r.need)
	h.revoke(func() bool {
		_, bytes := h.held.size()
		return bytes+size <= h.memory.limit/4
	})
	for !h.Reserve(size) {
		freed := h.memory.wait()
		if h.memory.over(size) <= 0 {
			continue
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return
		}
	}
	if r.cursor.sub.ended() {
		r.cursor.answer(r, nil, size, nil)
		return
	}
	parts, err := h.history.Read(ctx, r.req)
	if err != nil {
		h.cfg.Log.Debug("history is read again", "topic", r.req.Topic, "err", err)
		h.memory.add(-size)
		backOff := time.Duration(100+rand.IntN(400)) * time.Millisecond
		time.AfterFunc(backOff, func() { r.cursor.answer(r, nil, 0, err) })
		return
	}
	clampGaps(r.req.Ranges, parts)
	got := partsSize(parts)
	if got > size && !h.Reserve(got-size) {
		h.memory.add(-size)
		r.need = got
		h.replays.push(r)
		return
	}
	h.memory.add(min(0, got-size))
	r.cursor.answer(r, parts, got, nil)
}

// clampGaps ends gaps where the window begins: what the log no longer has, the window may.
func clampGaps(ranges []stream.Range, parts []stream.PartBatch) {
	for i := range parts {
		for _, r := range ranges {
			if gap := parts[i].Gap; gap != nil && r.Partition == parts[i].Partition && r.From < r.To && gap.To > r.To {
				gap.To = r.To
			}
		}
	}
}

func partsSize(parts []stream.PartBatch) (n int64) {
	for i := range parts {
		for j := range parts[i].Messages {
			n += parts[i].Messages[j].Size()
		}
	}
	return n
}
