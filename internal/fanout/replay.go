package fanout

import (
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
	probe  bool // asks only whether positions lie within the log
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

// serveReplay reads for one cursor. Memory for it is taken beforehand; while there is none, those in line wait.
func (h *Hubs) serveReplay(ctx context.Context, r *replay) {
	size := h.cfg.HistoryBytes
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
		backOff := time.Duration(100+rand.IntN(400)) * time.Millisecond
		time.AfterFunc(backOff, func() { r.cursor.answer(r, nil, size, err) })
		return
	}
	clampGaps(r.req.Ranges, parts)
	got := partsSize(parts)
	h.memory.add(got - size)
	h.shrink(0)
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
