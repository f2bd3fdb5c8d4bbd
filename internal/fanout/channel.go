package fanout

import (
	"math"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// channel is what all subscribers of one filter share in a hub: references to the entries that match. The channel of
// all messages needs none: the window is its list.
type channel struct {
	filter stream.Filter
	inStep []member // with the hub: woken by a match; each cursor knows its index
	users  int      // cursors in step or not

	since uint64   // matches from this sequence number on were noted
	lost  uint64   // and those below this one are forgotten again
	refs  []uint64 // ascending; may begin before the window
	woken bool     // in this append, already

	// Times are since Hubs.begun.
	waits   bool          // something has come for the cursors since they were woken, and they are to be again
	cameAt  time.Duration // when that was
	wokenAt time.Duration // when they were woken last
	tookAt  atomic.Int64  // when one of a sample of them took something last; kept only where the hub gathers
}

// never is a time before all others.
const never = time.Duration(math.MinInt64 / 2)

func (ch *channel) wake() {
	const ahead = 4
	for i := range ch.inStep {
		if i+ahead < len(ch.inStep) {
			prefetchWaker(ch.inStep[i+ahead].waker)
		}
		ch.inStep[i].waker.Wake()
	}
}

// member is a cursor of a channel. Its waker stands beside it, so that waking many touches nothing else of theirs.
type member struct {
	cursor *cursor
	waker  Waker
}

// enter and leave list a cursor among those that are woken.
func (ch *channel) enter(c *cursor) {
	if c.listed < 0 {
		c.listed = int32(len(ch.inStep))
		ch.inStep = append(ch.inStep, member{c, c.sub.waker})
	}
}

func (ch *channel) leave(c *cursor) {
	if c.listed < 0 {
		return
	}
	last := len(ch.inStep) - 1
	ch.inStep[last].cursor.listed = c.listed
	ch.inStep[c.listed] = ch.inStep[last]
	ch.inStep[last] = member{}
	ch.inStep, c.listed = ch.inStep[:last], -1
}

// note remembers a match, one of so many at most.
func (ch *channel) note(seq, windowFirst uint64, most int) {
	if ch.filter.All() {
		return
	}
	drop := sort.Search(len(ch.refs), func(i int) bool { return ch.refs[i] >= windowFirst })
	if drop == 0 && len(ch.refs) >= most {
		drop = max(most/4, 1)
	}
	if drop > 0 {
		ch.lost = ch.refs[drop-1] + 1
		ch.refs = append(ch.refs[:0], ch.refs[drop:]...)
	}
	ch.refs = append(ch.refs, seq)
}

// after returns the matches from seq on, and whether that is all of them. It is not when the channel is younger than
// seq, or when a match from seq on has left the window or was forgotten.
func (ch *channel) after(seq, windowFirst uint64) (refs []uint64, complete bool) {
	lost := ch.lost
	inWindow := sort.Search(len(ch.refs), func(i int) bool { return ch.refs[i] >= windowFirst })
	if inWindow > 0 {
		lost = ch.refs[inWindow-1] + 1
	}
	if seq < ch.since || seq < lost {
		return nil, false
	}
	refs = ch.refs[inWindow:]
	return refs[sort.Search(len(refs), func(i int) bool { return refs[i] >= seq }):], true
}

// channels is the index from a message to the channels that want it: one look-up by key, one by type, and the few that
// have neither.
type channels struct {
	all    map[string]*channel // by the filter's text
	every  *channel            // of the filter that wants all
	byKey  map[string][]*channel
	byType map[string][]*channel
}

func newChannels() channels {
	return channels{map[string]*channel{}, nil, map[string][]*channel{}, map[string][]*channel{}}
}

// join returns the channel of a canonical filter, and makes it where it is the first of its kind. It notes matches from end on.
func (cs *channels) join(f stream.Filter, end uint64) *channel {
	name := f.String()
	ch := cs.all[name]
	if ch == nil {
		ch = &channel{filter: f, since: end, wokenAt: never}
		ch.tookAt.Store(int64(never))
		cs.all[name] = ch
		cs.list(ch, func(m map[string][]*channel, s string) { m[s] = append(m[s], ch) })
		if f.All() {
			cs.every = ch
		}
	}
	ch.users++
	return ch
}

// leave forgets a channel with its last user.
func (cs *channels) leave(ch *channel) {
	if ch.users--; ch.users > 0 {
		return
	}
	delete(cs.all, ch.filter.String())
	cs.list(ch, func(m map[string][]*channel, s string) {
		if m[s] = slices.DeleteFunc(m[s], func(other *channel) bool { return other == ch }); len(m[s]) == 0 {
			delete(m, s)
		}
	})
	if cs.every == ch {
		cs.every = nil
	}
}

// list calls f for each place in the index where a channel stands: under its keys, else under its types.
func (cs *channels) list(ch *channel, f func(m map[string][]*channel, s string)) {
	if len(ch.filter.Keys) > 0 {
		for _, k := range ch.filter.Keys {
			f(cs.byKey, k)
		}
		return
	}
	for _, t := range ch.filter.Types {
		f(cs.byType, t)
	}
}

// match calls f for each channel that wants e.
func (cs *channels) match(e *entry, f func(*channel)) {
	if cs.every != nil {
		f(cs.every)
	}
	if e.msg.Key != nil {
		for _, ch := range cs.byKey[string(e.msg.Key)] {
			if len(ch.filter.Types) == 0 || ch.filter.MatchType(e.eventType()) {
				f(ch)
			}
		}
	}
	if len(cs.byType) > 0 {
		for _, ch := range cs.byType[e.eventType()] {
			f(ch)
		}
	}
}
