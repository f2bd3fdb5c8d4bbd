package fanout

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/goodgo/streamgw/internal/stream"
)

// simRecord is one offset of a partition in the model.
type simRecord struct {
	msg  stream.Message
	hole bool // a marker or an aborted record: never delivered
	gone bool // compacted away: some have it, others never get it
}

// simPartition is a log: everything it ever held stays in records, start says what can still be read.
type simPartition struct {
	records []simRecord
	start   int64
	cut     int64 // truncated down to here, once; else beyond all
	unread  int   // readers that haven't noticed a truncation yet; until then the log doesn't grow
}

func (p *simPartition) end() int64 { return int64(len(p.records)) }

// simTopic is the model of a topic: the naive truth that subscriptions are checked against.
type simTopic struct {
	name   string
	id     stream.Incarnation
	parts  []*simPartition
	past   map[stream.Incarnation][]*simPartition
	serial int
}

func newSimTopic(rng *rand.Rand, name string) *simTopic {
	t := &simTopic{name: name, past: map[stream.Incarnation][]*simPartition{}}
	t.create(rng)
	return t
}

// create makes the topic, or makes it again.
func (t *simTopic) create(rng *rand.Rand) {
	t.id = stream.Incarnation{byte(len(t.past) + 1), 7}
	t.parts = nil
	for range 1 + rng.IntN(4) {
		t.grow()
	}
	t.past[t.id] = t.parts
	if rng.IntN(2) == 0 { // already longer than anybody's offsets, perhaps
		for range rng.IntN(60) {
			t.produce(rng)
		}
	}
}

func (t *simTopic) grow() {
	t.parts = append(t.parts, &simPartition{cut: math.MaxInt64})
	t.past[t.id] = t.parts
}

var (
	simKeys  = []string{"a", "b", "c", "d", "e"}
	simTypes = []string{"x", "y", "z"}
)

func (t *simTopic) produce(rng *rand.Rand) {
	i := rng.IntN(len(t.parts))
	p := t.parts[i]
	if p.unread > 0 {
		return
	}
	t.serial++
	r := simRecord{hole: rng.IntN(6) == 0}
	if !r.hole {
		r.msg = stream.Message{
			Topic: t.name, Partition: int32(i), Offset: p.end(),
			Key:     []byte(simKeys[rng.IntN(len(simKeys))]),
			Value:   fmt.Appendf(nil, "%s-%d", t.id, t.serial),
			Headers: []stream.Header{{Name: "event-type", Value: []byte(simTypes[rng.IntN(len(simTypes))])}},
		}
	}
	p.records = append(p.records, r)
}

// disturb does what clusters do to a topic.
func (t *simTopic) disturb(rng *rand.Rand) {
	i := rng.IntN(len(t.parts))
	p := t.parts[i]
	switch n := rng.IntN(20); {
	case n < 8: // retention
		p.start += rng.Int64N(p.end() - p.start + 1)
	case n < 14: // compaction
		for o := p.start; o < p.end(); o++ {
			p.records[o].gone = p.records[o].gone || rng.IntN(3) == 0
		}
	case n < 17:
		t.grow()
	case n < 19: // an unclean leader election
		if to := p.end() - rng.Int64N(4); to >= p.start && to < p.end() && p.unread == 0 {
			p.records = p.records[:to]
			p.unread = 1
			p.cut = min(p.cut, to)
		}
	default:
		t.create(rng)
	}
}

// read returns up to n offsets of a partition from one on, before to.
func (p *simPartition) read(from, to int64, n int) (messages []stream.Message, next int64) {
	for next = from; next < min(to, p.end()) && n > 0; n-- {
		if r := p.records[next]; !r.hole && !r.gone {
			messages = append(messages, r.msg)
		}
		next++
	}
	return messages, next
}

// simReader is the model of a replica's shared reader. Each interleaves the partitions in its own way.
type simReader struct {
	hub   *Hub
	topic *simTopic
	id    stream.Incarnation
	next  []int64
	all   *[]*simReader // of every replica
}

func (r *simReader) start(atEnd bool) stream.Start {
	s := stream.Start{Incarnation: r.topic.id}
	for _, p := range r.topic.parts {
		s.Begin = append(s.Begin, p.start)
		next := p.start
		if atEnd {
			next = p.end()
		}
		s.Next = append(s.Next, next)
	}
	r.id, r.next = s.Incarnation, slices.Clone(s.Next)
	return s
}

// read returns the reader's next batch.
func (r *simReader) read(rng *rand.Rand) stream.Batch {
	if r.id != r.topic.id {
		s := r.start(false)
		return stream.Batch{Start: &s}
	}
	var b stream.Batch
	for _, i := range rng.Perm(len(r.topic.parts)) {
		if i > len(r.next) || rng.IntN(2) == 0 {
			continue
		}
		if i == len(r.next) {
			r.next = append(r.next, 0)
		}
		p := r.topic.parts[i]
		part := stream.PartBatch{Partition: int32(i)}
		switch at := r.next[i]; {
		case at < p.start:
			part.Gap = &stream.Gap{Topic: r.topic.name, Partition: int32(i), From: at, To: p.start, Reason: stream.GapRetention}
			r.next[i] = p.start
		case at > p.end():
			part.Gap = &stream.Gap{Topic: r.topic.name, Partition: int32(i), From: at, To: p.end(), Reason: stream.GapTruncated}
			r.next[i] = p.end()
			if r.topic.noticeTruncation(*r.all); p.unread == 0 { // what came since is read in the same go
				for range rng.IntN(20) {
					r.topic.produce(rng)
				}
			}
		}
		part.Messages, part.Next = p.read(r.next[i], p.end(), 1+rng.IntN(5))
		r.next[i] = part.Next
		b.Parts = append(b.Parts, part)
	}
	return b
}

// noticeTruncation counts the readers that have come to terms with a partition's truncation, so that it may grow again.
func (t *simTopic) noticeTruncation(readers []*simReader) {
	for i, p := range t.parts {
		if p.unread == 0 {
			continue
		}
		p.unread = 0
		for _, r := range readers {
			if r.topic == t && r.id == t.id && i < len(r.next) && r.next[i] > p.end() {
				p.unread++
			}
		}
	}
}

// history answers a read as Kafka would at this moment, with as much as it pleases.
func (t *simTopic) history(rng *rand.Rand, req stream.HistoryRequest) ([]stream.PartBatch, error) {
	if req.Incarnation != t.id {
		return nil, &stream.RecreatedError{Topic: t.name, Now: t.id}
	}
	var parts []stream.PartBatch
	moved := false
	for _, i := range rng.Perm(len(req.Ranges)) {
		if len(parts) > 0 && rng.IntN(3) == 0 {
			break
		}
		g := req.Ranges[i]
		p := t.parts[g.Partition]
		part := stream.PartBatch{Partition: g.Partition, Next: g.From}
		switch {
		case g.From < p.start:
			part.Gap = &stream.Gap{Topic: t.name, Partition: g.Partition, From: g.From, To: p.start, Reason: stream.GapRetention}
			part.Next = min(p.start, max(g.From, g.To))
		case g.From > p.end():
			part.Gap = &stream.Gap{Topic: t.name, Partition: g.Partition, From: g.From, To: p.end(), Reason: stream.GapTruncated}
			part.Next = p.end()
		default:
			part.Messages, part.Next = p.read(g.From, g.To, 1+rng.IntN(8))
		}
		moved = moved || part.Next != g.From || g.From == g.To
		parts = append(parts, part)
	}
	if !moved {
		return nil, stream.Errorf(stream.Unavailable, "nothing to be read yet")
	}
	return parts, nil
}
