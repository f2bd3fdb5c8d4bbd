package bench

import (
	"fmt"
	"math"
	"slices"
)

// anywhere stands for the number of a stream's first event where any will do.
const anywhere = math.MaxUint32

// Exactness is what came otherwise than each event once and in order. All of it zero is what a run must show.
type Exactness struct {
	Lost       uint64 `json:"lost"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	Foreign    uint64 `json:"foreign"` // events of a stream that isn't the connection's
	Damaged    uint64 `json:"damaged"` // values that don't end where they should, and framing that can't be read
	Ended      uint64 `json:"ended"`   // connections that the server ended
}

func (e *Exactness) add(o Exactness) {
	e.Lost += o.Lost
	e.Duplicated += o.Duplicated
	e.Reordered += o.Reordered
	e.Foreign += o.Foreign
	e.Damaged += o.Damaged
	e.Ended += o.Ended
}

// sequences is what one connection expects next of each of its streams, which are numbered from base.
type sequences struct {
	base    uint32
	next    []uint32
	first   []uint32  // where each stream begins; nil: at 0
	goal    []uint32  // it is complete at these numbers; nil: it never is
	left    uint64    // events until then
	missing []missing // what was left out, in case that it comes late; bounded
}

// missing is a run of numbers of a stream that were left out.
type missing struct{ stream, from, to uint32 }

const maxMissing = 256

// verdict is what an event turned out to be.
type verdict uint8

const (
	inOrder verdict = iota
	afterLoss
	repeated
	late
	misplaced
)

// take judges the next event of the connection, and says how many were left out before it.
func (s *sequences) take(stream, number uint32) (verdict, uint32) {
	i := stream - s.base
	if i >= uint32(len(s.next)) {
		return misplaced, 0
	}
	switch want := s.next[i]; {
	case number == want, want == anywhere:
		s.move(i, number, number+1)
		return inOrder, 0
	case number > want:
		s.move(i, want, number+1)
		if len(s.missing) < maxMissing {
			s.missing = append(s.missing, missing{i, want, number})
		}
		return afterLoss, number - want
	}
	if s.foundLate(i, number) {
		return late, 0
	}
	return repeated, 0
}

func (s *sequences) move(i, from, to uint32) {
	s.next[i] = to
	if s.goal != nil && from < s.goal[i] {
		s.left -= uint64(min(to, s.goal[i]) - from)
	}
}

// begin has the connection begin where its streams have got to.
func (s *sequences) begin(published []uint32) {
	copy(s.next, published[s.base:])
	s.first = slices.Clone(s.next)
}

// aim sets the numbers at which the connection is complete. No stream may begin anywhere.
func (s *sequences) aim(goal []uint32) {
	s.goal, s.left = goal, 0
	for i, next := range s.next {
		if next < goal[i] {
			s.left += uint64(goal[i] - next)
		}
	}
}

// foundLate takes a number out of what is missing, if it is.
func (s *sequences) foundLate(i, number uint32) bool {
	for k, m := range s.missing {
		if m.stream != i || number < m.from || number >= m.to {
			continue
		}
		s.missing = slices.Delete(s.missing, k, k+1)
		if m.from < number {
			s.missing = append(s.missing, missing{i, m.from, number})
		}
		if number+1 < m.to {
			s.missing = append(s.missing, missing{i, number + 1, m.to})
		}
		return true
	}
	return false
}

// period is a stretch of time; events that were published in it are those it counts.
type period struct{ from, to int64 }

func (p period) holds(at int64) bool { return p.from <= at && at < p.to }

// periods are those that latencies are told apart by.
const periods = 2

// group tells connections apart whose latencies are.
type group uint8

const (
	live group = iota
	returning
	groups
)

// endless is a period's end that isn't known yet.
const endless = math.MaxInt64

// tally is what one reader has counted. Only its reader touches it.
type tally struct {
	Exactness
	run      uint32
	received uint64   // events, of this run
	faults   []string // some of what was wrong, for people
	latency  [groups][periods]*latencies
	done     *latencies // how long each returning connection took, from its connecting to the last event it lacked
}

func newTally(run uint32) *tally {
	t := &tally{run: run, done: newLatencies()}
	for g := range t.latency {
		for p := range t.latency[g] {
			t.latency[g][p] = newLatencies()
		}
	}
	return t
}

// maxFaults bounds the faults that are told.
const maxFaults = 5

// fault notes what was wrong with a connection's events.
func (t *tally) fault(c *connection, what string, stream, from, to uint32) {
	if len(t.faults) < maxFaults {
		t.faults = append(t.faults, fmt.Sprintf("connection %d, stream %d: %s %d to %d", c.index, stream, what, from, to))
	}
}

func (t *tally) add(o *tally) {
	t.faults = append(t.faults, o.faults...)
	t.Exactness.add(o.Exactness)
	t.received += o.received
	for g := range t.latency {
		for p := range t.latency[g] {
			t.latency[g][p].add(o.latency[g][p])
		}
	}
	t.done.add(o.done)
}

// expectedOf returns how many deliveries there are to be of streams that have got so far.
func (s *sequences) expectedOf(published []uint32) (n uint64) {
	for i := range s.next {
		n += uint64(published[s.base+uint32(i)] - s.firstOf(i))
	}
	return n
}

func (s *sequences) firstOf(stream int) uint32 {
	if s.first == nil {
		return 0
	}
	return s.first[stream]
}

// missed counts what never came to a connection, of streams that have got so far.
func (t *tally) missed(c *connection, published []uint32) {
	for i, next := range c.expect.next {
		stream := c.expect.base + uint32(i)
		end := published[stream]
		if next == anywhere {
			next = 0
		}
		if next < end {
			t.Lost += uint64(end - next)
			t.fault(c, "never got", stream, next, end-1)
		}
	}
}
