package fanout

import (
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// segment is a stretch of the window without a gap in it. In each format that somebody has asked for it is encoded as
// one piece, so that whoever is in step is written all of it that it lacks, as it stands there.
type segment struct {
	first  uint64                       // sequence number of its first entry
	n      int                          // of its entries; only the last segment gets more
	size   int64                        // of its messages
	at     time.Time                    // when the hub got the first of them
	logs   []atomic.Pointer[encodedLog] // by format
	framed atomic.Int64                 // bytes of them
}

// encodedLog is what of a segment was encoded in a format when somebody asked last. It isn't changed: it is replaced by
// a longer one, which shares its memory.
type encodedLog struct {
	buf   []byte
	marks []mark // one for each frame, or block of frames; those of entries that had left the window are empty
}

// mark is where a frame or a block ends: in bytes, in entries of the segment, and the topic's part of the position
// behind it.
type mark struct {
	end  uint32
	next uint32
	id   string
}

// entries returns how many entries of the segment are in the log.
func (l *encodedLog) entries() int { return int(l.before(len(l.marks)).next) }

// before is the mark in front of a frame or block.
func (l *encodedLog) before(piece int) mark {
	if piece == 0 {
		return mark{}
	}
	return l.marks[piece-1]
}

// piece returns the frame or block that begins with entry i. Where i is inside a block, ok is false.
func (l *encodedLog) piece(i int) (piece int, ok bool) {
	if len(l.marks) == l.entries() {
		return i, true // each entry has its own
	}
	piece = sort.Search(len(l.marks), func(m int) bool { return int(l.marks[m].next) > i })
	return piece, int(l.before(piece).next) == i
}

// frame returns what is of entry i alone, or nil.
func (l *encodedLog) frame(i int) []byte {
	if l == nil || i >= l.entries() {
		return nil
	}
	p, ok := l.piece(i)
	if !ok || int(l.marks[p].next) != i+1 {
		return nil
	}
	begin, end := l.before(p).end, l.marks[p].end
	return l.buf[begin:end:end]
}

// bytes is what the log takes of memory.
func (l *encodedLog) bytes() int64 {
	const each = 24 // of a mark; its id is the entry's
	return int64(cap(l.buf)) + int64(each*cap(l.marks))
}

// segmentBounds says when a segment is full. A part of a window's bound each: memory comes back when all of a segment
// has left the window.
type segmentBounds struct {
	bytes int64
	n     int
	age   time.Duration
}

func boundsOf(w Window) segmentBounds {
	const parts, most, entries = 16, 64 << 10, 1024
	return segmentBounds{bytes: min(w.Bytes/parts, most), n: entries, age: w.Age / parts}
}

// full reports whether an entry that comes at an instant begins another segment.
func (s *segment) full(b segmentBounds, at time.Time) bool {
	return s.size >= b.bytes || s.n >= b.n || at.Sub(s.at) > b.age
}

// segmentOf returns the segment of an entry that is in the window and isn't a gap.
func (w *window) segmentOf(seq uint64) *segment {
	if last := w.segments[len(w.segments)-1]; last.first <= seq {
		return last
	}
	i := sort.Search(len(w.segments), func(i int) bool { return w.segments[i].first > seq })
	return w.segments[i-1]
}

// joinSegment takes the entry that was pushed last into a segment.
func (w *window) joinSegment(e *entry, b segmentBounds, formats int) {
	seq := w.end() - 1
	var last *segment
	if len(w.segments) > 0 {
		last = w.segments[len(w.segments)-1]
	}
	if last == nil || last.first+uint64(last.n) != seq || last.full(b, e.at) {
		last = &segment{first: seq, at: e.at, logs: make([]atomic.Pointer[encodedLog], formats)}
		w.segments = append(w.segments, last)
	}
	last.n++
	last.size += e.msg.Size()
}

// dropSegments removes the segments all of whose entries have left the window, and returns how many bytes that frees.
func (w *window) dropSegments() (freed int64) {
	for len(w.segments) > 0 && w.segments[0].first+uint64(w.segments[0].n) <= w.first {
		freed += w.segments[0].framed.Load()
		w.segments[0] = nil
		w.segments = w.segments[1:]
	}
	return freed
}

// log returns a segment's entries in a format, all of them. Each is encoded at most once. The caller holds h.mu for
// reading at least.
func (h *Hub) log(s *segment, format int) *encodedLog {
	if l := s.logs[format].Load(); l != nil && l.entries() == s.n {
		return l
	}
	h.encode.Lock()
	defer h.encode.Unlock()
	was := s.logs[format].Load()
	if was != nil && was.entries() == s.n {
		return was
	}
	var l encodedLog
	var held int64
	if was != nil {
		l, held = *was, was.bytes()
	}
	if f, ok := h.hubs.cfg.Formats[format].(BlockFormat); ok {
		h.appendBlocks(&l, s, f)
	} else {
		h.appendFrames(&l, s, h.hubs.cfg.Formats[format])
	}
	s.logs[format].Store(&l)
	s.framed.Add(l.bytes() - held)
	h.holdLocked(l.bytes() - held)
	return &l
}

// appendFrames brings a log of the segment to its end, an entry at a time.
func (h *Hub) appendFrames(l *encodedLog, s *segment, f Format) {
	if l.buf == nil {
		l.buf = make([]byte, 0, s.size+s.size/4+int64(160*s.n))
	}
	l.marks = slices.Grow(l.marks, s.n-len(l.marks))
	for i := len(l.marks); i < s.n; i++ {
		var id string
		if seq := s.first + uint64(i); seq >= h.window.first {
			e := h.window.at(seq)
			l.buf, id = f.AppendMessage(l.buf, &e.msg, e.id), e.id
		}
		l.marks = append(l.marks, mark{end: uint32(len(l.buf)), next: uint32(i + 1), id: id})
	}
}

// appendBlocks brings a log of the segment to its end, in blocks of what has come since it was there last.
func (h *Hub) appendBlocks(l *encodedLog, s *segment, f BlockFormat) {
	i := l.entries()
	if left := int(int64(h.window.first - s.first)); left > i { // left is negative for a segment that is whole
		i = left
		l.marks = append(l.marks, mark{end: uint32(len(l.buf)), next: uint32(i)})
	}
	frames := h.hubs.scratch.get()
	defer h.hubs.scratch.put(frames)
	for i < s.n {
		var id string
		for *frames = (*frames)[:0]; i < s.n && len(*frames) < h.hubs.limits.block; i++ {
			e := h.window.at(s.first + uint64(i))
			*frames, id = f.AppendMessage(*frames, &e.msg, e.id), e.id
		}
		l.buf = f.AppendBlock(l.buf, *frames)
		l.marks = append(l.marks, mark{end: uint32(len(l.buf)), next: uint32(i), id: id})
	}
}

// scratch lends memory for frames on their way into a block.
type scratch struct{ pool sync.Pool }

func (s *scratch) get() *[]byte {
	if b, ok := s.pool.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func (s *scratch) put(b *[]byte) {
	if cap(*b) <= 128<<10 { // more is of large messages, and rare
		s.pool.Put(b)
	}
}

// runFrom returns what a log has from a frame or block on, which begins with an entry: about limit bytes, and one frame
// or block at least. before is the topic's part of the position at its beginning.
func (h *Hub) runFrom(l *encodedLog, piece int, seq uint64, limit int64, before string) Run {
	from := l.before(piece)
	n := len(l.marks) - piece
	if int64(l.marks[len(l.marks)-1].end-from.end) > limit {
		n = max(1, sort.Search(n, func(j int) bool { return int64(l.marks[piece+j].end-from.end) > limit }))
	}
	last := l.marks[piece+n-1]
	return Run{
		Frames: l.buf[from.end:last.end:last.end], Count: int(last.next - from.next), Oldest: h.window.at(seq).msg.Timestamp,
		marks: l.marks[piece : piece+n], from: mark{end: from.end, next: from.next, id: before}, seq: seq,
	}
}

// last is the mark behind the run.
func (r *Run) last() mark { return r.marks[len(r.marks)-1] }

// taken returns the mark that a client reaches which got the run's first written bytes and gets the rest of the frame or
// block that they end in.
func (r *Run) taken(written int) mark {
	if written == 0 {
		return r.from
	}
	end := int(r.from.end) + written
	return r.marks[sort.Search(len(r.marks)-1, func(i int) bool { return int(r.marks[i].end) >= end })]
}
