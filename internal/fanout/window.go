package fanout

import (
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// entry is one place in a hub's order: a message, or a gap that its topic's reader met. It is never changed, but for
// its frames, which are encoded when first asked for.
type entry struct {
	msg  stream.Message
	gap  *stream.Gap // non-nil: msg is empty
	part int32
	next int64     // where the partition stands behind it
	id   string    // the topic's part of the position behind it: what a client in step has then
	at   time.Time // when the hub got it

	typ atomic.Pointer[string] // the event's type, once somebody has asked

	frames atomic.Pointer[frame] // those that were encoded alone, for who has a filter
	framed atomic.Int64          // bytes of them
}

// frame is an entry in one format. It stands in a list of few.
type frame struct {
	format int
	bytes  []byte
	next   *frame
}

// in returns the frame of a format, or nil.
func (f *frame) in(format int) []byte {
	for ; f != nil; f = f.next {
		if f.format == format {
			return f.bytes
		}
	}
	return nil
}

// eventType returns the type of the message's event. It is read from the message once.
func (e *entry) eventType() string {
	if t := e.typ.Load(); t != nil {
		return *t
	}
	t := e.msg.EventType()
	e.typ.Store(&t)
	return t
}

// matches reports whether a filter wants the entry's message.
func (e *entry) matches(f stream.Filter) bool {
	return f.Matches(&e.msg, e.eventType)
}

// size is what the entry holds of memory without its frames.
func (e *entry) size() int64 {
	const fixed = 128
	return fixed + e.msg.Size() + int64(len(e.id))
}

// window is the log: a hub's recent entries in one order. An entry's place in it is its sequence number, which never
// changes and never comes again. For every partition it holds all that lies between begin and next.
type window struct {
	first    uint64     // sequence number of entries[0]
	entries  []*entry   // oldest first
	segments []*segment // of its messages, oldest first
	index    [][]uint64 // by partition: the sequence numbers of its entries, ascending in number and in offset
	begin    []int64    // by partition: everything from this offset up to next is here
	next     []int64    // by partition: where the reader stands
}

// end returns the sequence number that the next entry gets.
func (w *window) end() uint64 { return w.first + uint64(len(w.entries)) }

// at returns the entry of a sequence number from first up to, not including, end.
func (w *window) at(seq uint64) *entry { return w.entries[seq-w.first] }

// grow makes room for a partition that wasn't there before. It begins at offset 0.
func (w *window) grow(partitions int) {
	for len(w.next) < partitions {
		w.next = append(w.next, 0)
		w.begin = append(w.begin, 0)
		w.index = append(w.index, nil)
	}
}

// push appends an entry, whose partition is known.
func (w *window) push(e *entry) {
	w.index[e.part] = append(w.index[e.part], w.end())
	w.entries = append(w.entries, e)
}

// evict removes the oldest entry and returns it.
func (w *window) evict() *entry {
	e := w.entries[0]
	w.entries[0] = nil
	w.entries = w.entries[1:]
	w.index[e.part] = w.index[e.part][1:]
	w.begin[e.part] = e.next
	w.first++
	return e
}

// reset empties the window, which from now on begins where the reader stands. Sequence numbers go on.
func (w *window) reset(next []int64) {
	w.first = w.end()
	w.entries, w.segments = nil, nil
	w.next = slices.Clone(next)
	w.begin = slices.Clone(next)
	w.index = make([][]uint64, len(next))
}

// place finds where a reader enters that stands at next, no partition of which lies before begin: at the first entry
// that it lacks. From settled on it lacks every entry; between the two are some that it has.
func (w *window) place(next []int64) (enter, settled uint64) {
	enter, settled = w.end(), w.first
	for p, seqs := range w.index {
		i := sort.Search(len(seqs), func(i int) bool { return w.at(seqs[i]).next > next[p] })
		if i < len(seqs) {
			enter = min(enter, seqs[i])
			if gap := w.at(seqs[i]).gap; gap != nil && gap.From < next[p] { // it has a part of what the hub lost
				settled = max(settled, seqs[i]+1)
			}
		}
		if i > 0 {
			settled = max(settled, seqs[i-1]+1)
		}
	}
	return enter, max(enter, settled)
}

// ahead reports whether a reader at next stands beyond the window in some partition.
func (w *window) ahead(next []int64) bool {
	for p, n := range next {
		if n > w.stands(p) {
			return true
		}
	}
	return false
}

// stands returns where the window ends in a partition: 0 where it doesn't know that partition yet.
func (w *window) stands(p int) int64 {
	if p < len(w.next) {
		return w.next[p]
	}
	return 0
}
