package fanout

import (
	"cmp"
	"container/list"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// stretch is all that could be read of a partition from one offset up to, not including, next. It is never changed, but
// for its uses.
type stretch struct {
	past       *past
	part       int32
	from, next int64
	lost       int64 // what lies before this offset can no longer be had; if that is from, or less, all can
	reason     stream.GapReason
	messages   []stream.Message
	types      []atomic.Pointer[string] // of the messages' events, once somebody has asked
	size       int64                    // what it holds of memory

	// Guarded by the archive's lock:

	used    time.Time
	place   *list.Element // in archive.recent
	dropped bool
	shared  pastRuns
}

// stretchSize is what a stretch with these messages holds of memory.
func stretchSize(messages []stream.Message) int64 {
	const fixed, each = 256, 8
	n := int64(fixed)
	for i := range messages {
		n += each + messages[i].Size()
	}
	return n
}

// partsSize is what an answer of history will hold of memory.
func partsSize(parts []stream.PartBatch) (n int64) {
	for i := range parts {
		n += stretchSize(parts[i].Messages)
	}
	return n
}

// newStretch returns what was read of a range: where it begins with a gap, the window may have what the log has no longer.
func newStretch(p *past, r stream.Range, part *stream.PartBatch) *stretch {
	s := &stretch{past: p, part: r.Partition, from: r.From, next: part.Next, messages: part.Messages}
	if gap := part.Gap; gap != nil && gap.To > r.From {
		s.lost, s.reason = min(gap.To, r.To), gap.Reason
		s.next = max(s.next, s.lost)
	}
	return s
}

// index returns the first message at or beyond an offset.
func (s *stretch) index(offset int64) int {
	return sort.Search(len(s.messages), func(i int) bool { return s.messages[i].Offset >= offset })
}

// clip leaves of a stretch what lies from from up to next.
func (s *stretch) clip(from, next int64) {
	s.messages = s.messages[s.index(from):s.index(next)]
	s.from, s.next, s.lost = from, next, min(s.lost, next)
}

// matches reports whether a filter wants a message. A type is read from its message once, whoever asks.
func (s *stretch) matches(f stream.Filter, i int) bool {
	return f.Matches(&s.messages[i], func() string {
		t := s.types[i].Load()
		if t == nil {
			eventType := s.messages[i].EventType()
			t = &eventType
			s.types[i].Store(t)
		}
		return *t
	})
}

// findLocked returns the stretch that an offset lies in, or nil.
func (p *past) findLocked(partition int32, offset int64) *stretch {
	i, found := p.searchLocked(partition, offset)
	if !found {
		i--
	}
	if i < 0 || offset >= p.stretches[partition][i].next {
		return nil
	}
	return p.stretches[partition][i]
}

// searchLocked returns the first stretch of a partition that begins at an offset or beyond it.
func (p *past) searchLocked(partition int32, offset int64) (i int, found bool) {
	if int(partition) >= len(p.stretches) {
		return 0, false
	}
	return slices.BinarySearchFunc(p.stretches[partition], offset, func(s *stretch, offset int64) int { return cmp.Compare(s.from, offset) })
}

// putLocked keeps what a read brought, but for what another one has brought meanwhile. It returns what that holds of
// memory.
func (p *past) putLocked(s *stretch) int64 {
	for int(s.part) >= len(p.stretches) {
		p.stretches = append(p.stretches, nil)
	}
	list := p.stretches[s.part]
	i, found := p.searchLocked(s.part, s.from)
	from, next := s.from, s.next
	if found {
		i++
	}
	if i > 0 {
		from = max(from, list[i-1].next)
	}
	if i < len(list) {
		next = min(next, list[i].from)
	}
	if from >= next {
		return 0
	}
	s.clip(from, next)
	s.types = make([]atomic.Pointer[string], len(s.messages))
	s.size = stretchSize(s.messages)
	p.stretches[s.part] = slices.Insert(list, i, s)
	p.archive.addLocked(s)
	return s.size
}

func (p *past) removeLocked(s *stretch) {
	if i, found := p.searchLocked(s.part, s.from); found {
		p.stretches[s.part] = slices.Delete(p.stretches[s.part], i, i+1)
	}
}
