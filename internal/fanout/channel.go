package fanout

import (
	"math"
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
	cost   int64    // of holding a message against the filter, in bytes of a Poll's budget

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

// What it costs to hold a message against a filter by key and type, and against one with predicates, which takes some
// microseconds. A filter that matches little mustn't hold up a writer for long, and still less the hub, whose lock may be
// held meanwhile.
const (
	lookCost = 16
	askCost  = 1 << 10
)

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
