package fanout

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// Hub holds one topic's recent messages in one order and wakes the cursors that wait for more. run owns the source and
// is the only appender. A subscriber that falls behind is never waited for and never queued for: its cursor leaves the
// window and reads on from the log, which is its buffer.
type Hub struct {
	topic    string
	hubs     *Hubs
	bound    Window
	segments segmentBounds
	gather   time.Duration

	ready  chan struct{} // closed at the first Start, or when run has ended without one
	cancel context.CancelFunc

	mu       sync.RWMutex // guards what follows, and orders every append before the wake-up it causes
	started  bool
	err      error // why there will be nothing more
	gone     bool  // the topic was deleted, as far as the source knows
	id       stream.Incarnation
	begins   []int64 // by partition: the log start when this incarnation was first seen
	epoch    int     // counts resets: a cursor of an earlier one isn't in step any more
	cuts     []cut   // truncations, oldest first
	window   window
	head     string // the topic's part of the position at the window's end
	channels channels
	past     *past                // guarded by a lock of its own
	unsynced map[*cursor]struct{} // those not in step that don't wait for history: woken by every append
	changed  chan struct{}        // closed and made anew at each reset, and at the end
	users    int
	idle     time.Time // since when there is no user
	doubted  time.Time // when those that wait for it did last

	gathering []*channel  // those that something has come for, and that were woken a moment ago
	gathered  *time.Timer // wakes them; nil until the first
	gatherAt  time.Time   // when it does next

	encode sync.Mutex   // held while a frame is encoded, so that it is once
	bytes  atomic.Int64 // of the window's entries and their frames
	oldest atomic.Int64 // when the hub got its oldest entry, in Unix nanoseconds; 0: it has none
}

// cut is a truncation that the reader met: epochs before this one had messages of the partition from offset to on
// that are no more.
type cut struct {
	epoch int
	part  int32
	to    int64
}

func newHub(hubs *Hubs, topic string) *Hub {
	bound := hubs.cfg.Window(topic)
	return &Hub{
		topic: topic, hubs: hubs, bound: bound, segments: boundsOf(bound), gather: hubs.cfg.Gather(topic),
		ready: make(chan struct{}), changed: make(chan struct{}), cancel: func() {},
		channels: newChannels(), past: newPast(hubs.archive, topic), unsynced: map[*cursor]struct{}{},
	}
}

// run reads the topic until ctx ends, or until the source gives it up before its first batch.
func (h *Hub) run(ctx context.Context) {
	err := h.hubs.source.Read(ctx, h.topic, func(b stream.Batch) {
		h.append(b, h.hubs.now())
		h.hubs.shrink(0)
	})
	if err == nil || ctx.Err() != nil {
		err = stream.Errorf(stream.Unavailable, "the gateway no longer reads topic %s", h.topic)
	}
	h.fail(err)
}

// fail ends every subscription with err.
func (h *Hub) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	h.past.reset(h.epoch, true)
	close(h.changed)
	h.changed = make(chan struct{})
	if !h.started {
		h.started = true
		close(h.ready)
	}
	h.wakeAllLocked()
	for len(h.window.entries) > 0 {
		h.evictLocked()
	}
}

// append takes a batch into the window and wakes those whom it concerns, once a batch, not once a message.
func (h *Hub) append(b stream.Batch, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.Start != nil {
		h.startLocked(*b.Start)
	}
	h.gone = b.Gone
	var woken []*channel
	moved := b.Start != nil
	for i := range b.Parts {
		woken = h.appendPartLocked(&b.Parts[i], now, woken, &moved)
	}
	if moved { // past holes: no entry stands for where the window ends
		h.head = h.partLocked()
	}
	h.evictByBoundLocked(now)
	for _, ch := range woken { // of those with a key each, all are cold
		if len(ch.inStep) > 0 {
			prefetchWaker(ch.inStep[0].waker)
		}
	}
	for _, ch := range woken {
		ch.woken = false
		h.wakeLocked(ch, now)
	}
	for c := range h.unsynced {
		c.wake()
	}
}

// appendPartLocked takes one partition's part. It adds to woken the channels that got something, and sets moved to
// whether the partition now stands beyond its last entry.
func (h *Hub) appendPartLocked(part *stream.PartBatch, now time.Time, woken []*channel, moved *bool) []*channel {
	if int(part.Partition) >= len(h.window.next) {
		h.window.grow(int(part.Partition) + 1)
		*moved = true
	}
	next := &h.window.next[part.Partition]
	if gap := part.Gap; gap != nil {
		if gap.To < *next {
			h.truncateLocked(part.Partition, gap.To)
			next = &h.window.next[part.Partition]
		} else if gap.To > *next {
			e := &entry{gap: &stream.Gap{Topic: h.topic, Partition: part.Partition, From: *next, To: gap.To, Reason: gap.Reason}}
			for _, ch := range h.channels.all {
				woken = h.noteLocked(ch, woken)
			}
			h.pushLocked(e, part.Partition, gap.To, now)
			*moved = false
		}
	}
	for i := range part.Messages {
		m := &part.Messages[i]
		if m.Offset < *next {
			continue // the source repeats nothing, but this is where repeating would show
		}
		e := &entry{msg: *m}
		h.channels.match(e, h.window.end(), func(ch *channel) { woken = h.noteLocked(ch, woken) })
		h.pushLocked(e, part.Partition, m.Offset+1, now)
		*moved = false
	}
	if part.Next > *next {
		*next = part.Next
		*moved = true
	}
	return woken
}

// noteLocked tells a channel that the entry about to be pushed is one of its own.
func (h *Hub) noteLocked(ch *channel, woken []*channel) []*channel {
	ch.note(h.window.end(), h.window.first, h.hubs.limits.refs)
	if !ch.woken {
		ch.woken = true
		woken = append(woken, ch)
	}
	return woken
}

func (h *Hub) pushLocked(e *entry, partition int32, next int64, now time.Time) {
	h.window.next[partition] = next
	h.head = h.partLocked()
	e.part, e.next, e.id, e.at = partition, next, h.head, now
	h.window.push(e)
	if e.gap == nil {
		h.window.joinSegment(e, h.segments, len(h.hubs.cfg.Formats))
	}
	h.holdLocked(e.size())
	if len(h.window.entries) == 1 {
		h.oldest.Store(now.UnixNano())
	}
}

// holdLocked counts bytes of the window, here and in the bound of all.
func (h *Hub) holdLocked(n int64) {
	h.bytes.Add(n)
	h.hubs.memory.add(n)
}

// partLocked returns the topic's part of the position at the window's end.
func (h *Hub) partLocked() string {
	return stream.TopicPosition{Topic: h.topic, Incarnation: h.id, Next: h.window.next}.Part()
}

// startLocked begins a window: at first, and when the topic was created again. Who was in step with the earlier one
// finds that out by the epoch.
func (h *Hub) startLocked(s stream.Start) {
	h.resetLocked(s.Next)
	h.id, h.begins, h.cuts = s.Incarnation, slices.Clone(s.Begin), nil
	if !h.started {
		h.started = true
		close(h.ready)
	}
}

// truncateLocked begins the window anew where a partition was cut back: its offsets come a second time.
func (h *Hub) truncateLocked(partition int32, to int64) {
	next := slices.Clone(h.window.next)
	next[partition] = to
	h.resetLocked(next)
	h.cuts = append(h.cuts, cut{h.epoch, partition, to})
	h.head = h.partLocked()
}

func (h *Hub) resetLocked(next []int64) {
	for len(h.window.entries) > 0 {
		h.evictLocked()
	}
	h.window.reset(next)
	h.epoch++
	h.past.reset(h.epoch, false)
	close(h.changed)
	h.changed = make(chan struct{})
	h.wakeAllLocked()
}

func (h *Hub) wakeAllLocked() {
	for _, ch := range h.channels.all {
		ch.wake()
	}
	for c := range h.unsynced {
		c.wake()
	}
}

func (h *Hub) evictByBoundLocked(now time.Time) {
	for len(h.window.entries) > 0 && (h.bytes.Load() > h.bound.Bytes || now.Sub(h.window.entries[0].at) > h.bound.Age) {
		h.evictLocked()
	}
}

func (h *Hub) evictLocked() {
	e := h.window.evict()
	h.holdLocked(-e.size() - e.framed.Load() - h.window.dropSegments())
	h.oldest.Store(0)
	if len(h.window.entries) > 0 {
		h.oldest.Store(h.window.entries[0].at.UnixNano())
	}
}

// frame returns the frame of an entry in a format, encoded at most once. The caller holds h.mu for reading at least, so
// that the entry is still in the window that counts its bytes.
func (h *Hub) frame(seq uint64, format int) []byte {
	if format < 0 {
		return nil
	}
	s := h.window.segmentOf(seq)
	if f := s.logs[format].Load().frame(int(seq - s.first)); f != nil {
		return f
	}
	e := h.window.at(seq)
	if f := e.frames.Load().in(format); f != nil {
		return f
	}
	h.encode.Lock()
	defer h.encode.Unlock()
	was := e.frames.Load()
	if f := was.in(format); f != nil {
		return f
	}
	f := h.hubs.cfg.Formats[format].AppendMessage(make([]byte, 0, len(e.msg.Value)+len(e.id)+128), &e.msg, e.id)
	if blocks, ok := h.hubs.cfg.Formats[format].(BlockFormat); ok {
		f = blocks.AppendBlock(nil, f)
	}
	e.frames.Store(&frame{format, slices.Clip(f), was})
	e.framed.Add(int64(cap(f)))
	h.holdLocked(int64(cap(f)))
	return f
}
