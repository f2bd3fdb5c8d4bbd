package fanout

import (
	"bytes"
	"slices"

	"github.com/goodgo/streamgw/internal/stream"
)

// spot is where a cursor on its own begins to take of a stretch: those at the same spot get the same frames, since
// their positions, and with them the ids, are the same number by number. That is where clients stand that were in step
// when they were cut.
type spot struct {
	before string // the topic's part of the position
	format int
}

const (
	mostSpots    = 64 // that a stretch remembers
	mostSpotRuns = 4  // how often its own size a stretch may hold in runs
)

// pastRuns are the runs of a stretch that several cursors share. It is guarded by the archive's lock.
type pastRuns struct {
	met   map[spot]int // how many came to a spot for which there is no run
	runs  map[spot]Run
	bytes int64 // of runs
}

// takePastRun makes b a run of history, and moves behind it. A batch that has items already is left as it is, and ends.
// It reports whether that can be: not for the first at a spot, since most are alone there, unless it came from one where
// it wasn't.
func (c *cursor) takePastRun(b *Batch, s *stretch) bool {
	i := s.index(c.own.Next[s.part])
	if i == len(s.messages) || !c.takesRuns() {
		return false
	}
	a := s.past.archive
	at := spot{c.own.Part(), c.sub.format}
	run, shared := a.meet(s, at, c.among)
	if c.among = shared; !shared {
		return false
	}
	b.budget = 0 // there is more
	if len(b.Items) > 0 {
		return true
	}
	if run.Count == 0 {
		run = s.encode(c.own, i, a.hubs.cfg.Formats[at.format], a.hubs.limits.poll)
		a.keep(s, at, run)
	}
	b.Run = run
	c.own.Next[s.part] = s.messages[i+run.Count-1].Offset + 1
	if i+run.Count == len(s.messages) {
		c.endStretch(s)
	}
	return true
}

// meet returns the run of a spot. Where there is none, shared says whether one should be made. among is whether others
// are likely to follow.
func (a *archive) meet(s *stretch, at spot, among bool) (run Run, shared bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if run, shared = s.shared.runs[at]; shared {
		return run, true
	}
	if s.shared.met == nil {
		s.shared.met = map[spot]int{}
	}
	n := s.shared.met[at] + 1
	if n > 1 || len(s.shared.met) < mostSpots {
		s.shared.met[at] = n
	}
	return run, (among || n >= a.hubs.limits.meet) && s.shared.bytes < mostSpotRuns*s.size
}

// keep has a run for others who come to its spot, as long as its stretch is there.
func (a *archive) keep(s *stretch, at spot, run Run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, there := s.shared.runs[at]; there || s.dropped {
		return
	}
	if s.shared.runs == nil {
		s.shared.runs = map[spot]Run{}
	}
	n := int64(cap(run.Frames))
	for _, m := range run.marks {
		n += int64(64 + len(m.id))
	}
	s.shared.runs[at] = run
	s.shared.bytes += n
	a.bytes += n
	a.hubs.memory.add(n)
}

// encode returns the frames of messages from one on, about limit bytes, for who stands at own.
func (s *stretch) encode(own stream.TopicPosition, from int, f Format, limit int64) Run {
	own.Next = slices.Clone(own.Next)
	run := Run{Oldest: s.messages[from].Timestamp, from: mark{id: own.Part()}}
	var frames []byte
	for i := from; i < len(s.messages) && (i == from || int64(len(frames)) < limit); i++ {
		m := &s.messages[i]
		own.Next[s.part] = m.Offset + 1
		id := own.Part()
		frames = f.AppendMessage(frames, m, id)
		run.Count++
		run.marks = append(run.marks, mark{end: uint32(len(frames)), next: uint32(run.Count), id: id})
	}
	if blocks, ok := f.(BlockFormat); ok {
		frames = blocks.AppendBlock(nil, frames)
		run.marks = []mark{{end: uint32(len(frames)), next: uint32(run.Count), id: run.last().id}}
	}
	run.Frames = bytes.Clone(frames)
	return run
}

// unreadPast takes back what a client didn't take of a run of history.
func (c *cursor) unreadPast(m mark) {
	if p, err := stream.ParsePosition(m.id); err == nil { // of our own making: it reads
		c.own, _ = p.Topic(c.hub.topic)
	}
}
