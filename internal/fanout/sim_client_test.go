package fanout

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/goodgo/streamgw/internal/stream"
)

// simClient is a subscriber that knows what it must get: it compares each item with the model's whole past.
type simClient struct {
	name   string
	topics []*simTopic
	filter stream.Filter
	bounds map[string]stream.Filter // by topic: what it may read
	slow   Slow
	format int                              // of the subscription
	floors map[string]*stream.TopicPosition // by topic: what the subscription doesn't go back beyond

	sub     *Subscription
	woken   bool
	writing *Batch               // a run that it is about to take
	at      map[string]*simPlace // by topic
	ids     []string             // positions it was given since it last resumed
	got     int
	gaps    int
}

// simPlace is what a client has of a topic.
type simPlace struct {
	id      stream.Incarnation
	next    []int64
	telling bool // in the midst of the gaps of a re-creation
}

// begin takes over a position as what the client has.
func (c *simClient) begin(token string) error {
	p, err := stream.ParsePosition(token)
	if err != nil {
		return err
	}
	c.at, c.ids = map[string]*simPlace{}, []string{token}
	for _, t := range c.topics {
		tp, _ := p.Topic(t.name)
		place := &simPlace{id: tp.Incarnation, next: slices.Clone(tp.Next)}
		c.at[t.name] = place
	}
	return nil
}

// nothing reports whether the client stands at the very start of the topic.
func (p *simPlace) nothing() bool { return slices.Max(append([]int64{0}, p.next...)) == 0 }

func (p *simPlace) grow(n int) {
	for len(p.next) < n {
		p.next = append(p.next, 0)
	}
}

// wants reports whether the client is to get a message.
func (c *simClient) wants(m *stream.Message) bool {
	return c.filter.Match(m) && c.bounds[m.Topic].Match(m)
}

// forbidden reports whether an offset lies before the client's floor.
func (c *simClient) forbidden(topic string, id stream.Incarnation, partition int32, offset int64) bool {
	f := c.floors[topic]
	return f != nil && f.Incarnation == id && int(partition) < len(f.Next) && offset < f.Next[partition]
}

// missed returns the first record that the client should have had of a partition before offset to. What lies beyond a
// truncation isn't judged here: those offsets came twice, and a position doesn't say of which time it is.
func (c *simClient) missed(t *simTopic, p *simPlace, partition int, to int64) error {
	if partition >= len(t.past[p.id]) {
		return nil // it came with a later incarnation
	}
	log := t.past[p.id][partition]
	for o := p.next[partition]; o < min(to, log.end(), log.cut); o++ {
		if r := &log.records[o]; !r.hole && !r.gone && c.wants(&r.msg) {
			return fmt.Errorf("%s/%d: offset %d is missing before %d", t.name, partition, o, to)
		}
	}
	return nil
}

// repeated returns an error if resuming a partition at an offset would bring a record again. An offset that is
// smaller by holes only is as good: where replicas meet holes differs.
func (c *simClient) repeated(t *simTopic, p *simPlace, partition int, from int64) error {
	if partition >= len(t.past[p.id]) {
		return nil // it came with a later incarnation
	}
	log := t.past[p.id][partition]
	for o := from; o < min(p.next[partition], log.end(), log.cut); o++ {
		if r := &log.records[o]; !r.hole && !r.gone && c.wants(&r.msg) {
			return fmt.Errorf("%s/%d: the position is at %d and would repeat %d: the client has all before %d", t.name, partition, from, o, p.next[partition])
		}
	}
	return nil
}

// take checks one item.
func (c *simClient) take(it *Item) error {
	p, err := stream.ParsePosition(it.ID)
	if err != nil {
		return err
	}
	for name, place := range c.at {
		// Of an earlier incarnation of which the client had nothing, nothing was lost: there is no gap to tell.
		if tp, _ := p.Topic(name); tp.Incarnation != place.id && place.nothing() && (it.Gap == nil || it.Gap.Reason != stream.GapRecreated) {
			*place = simPlace{id: tp.Incarnation}
		}
	}
	if it.Gap != nil {
		c.gaps++
		err = c.takeGap(it)
	} else {
		c.got++
		err = c.takeMessage(it.Message)
	}
	if err != nil {
		return err
	}
	return c.takeID(it.ID)
}

func (c *simClient) topic(name string) *simTopic {
	return c.topics[slices.IndexFunc(c.topics, func(t *simTopic) bool { return t.name == name })]
}

func (c *simClient) takeMessage(m *stream.Message) error {
	t, place := c.topic(m.Topic), c.at[m.Topic]
	place.grow(int(m.Partition) + 1)
	next := &place.next[m.Partition]
	if m.Offset < *next && m.Offset < t.past[place.id][m.Partition].cut {
		return fmt.Errorf("%s/%d: offset %d comes twice: the client was at %d", m.Topic, m.Partition, m.Offset, *next)
	}
	if id := string(m.Value[:8]); id != place.id.String() {
		return fmt.Errorf("%s/%d: offset %d is of incarnation %s, not %s", m.Topic, m.Partition, m.Offset, id, place.id)
	}
	if c.forbidden(m.Topic, place.id, m.Partition, m.Offset) && m.Offset < t.past[place.id][m.Partition].cut {
		return fmt.Errorf("%s/%d: offset %d lies before the floor %v", m.Topic, m.Partition, m.Offset, c.floors[m.Topic].Next)
	}
	if !c.wants(m) {
		return fmt.Errorf("%s/%d: offset %d doesn't match", m.Topic, m.Partition, m.Offset)
	}
	if err := c.missed(t, place, int(m.Partition), m.Offset); err != nil {
		return err
	}
	*next = m.Offset + 1
	return nil
}

func (c *simClient) takeGap(it *Item) error {
	g := it.Gap
	t, place := c.topic(g.Topic), c.at[g.Topic]
	place.grow(int(g.Partition) + 1)
	if err := c.repeated(t, place, int(g.Partition), g.From); err != nil && g.Reason != stream.GapTruncated {
		return fmt.Errorf("%+v: the client was at %d: %w", *g, place.next[g.Partition], err)
	}
	// Who has nothing may have gone on to another incarnation without a word, and the gap is of that one.
	if err := c.missed(t, place, int(g.Partition), g.From); err != nil && !(g.Reason == stream.GapRecreated && place.nothing()) {
		return fmt.Errorf("%+v: %w", *g, err)
	}
	switch g.Reason {
	case stream.GapRecreated:
		place.telling = true
		return nil // the position says what it is now
	case stream.GapRetention:
		if log := t.past[place.id][g.Partition]; g.To > log.start || g.To <= g.From {
			return fmt.Errorf("%+v: the log starts at %d", *g, log.start)
		}
	case stream.GapForbidden:
		f := c.floors[g.Topic] // which a truncation lowers: what came after it is newer
		if f == nil || g.From >= g.To || g.To > f.Next[g.Partition] || g.To < min(f.Next[g.Partition], t.past[place.id][g.Partition].cut) {
			return fmt.Errorf("%+v: the floor is %v", *g, f)
		}
	case stream.GapTruncated:
		if g.To >= g.From {
			return fmt.Errorf("%+v: isn't a truncation", *g)
		}
	}
	place.next[g.Partition] = g.To
	return nil
}

// takeID checks that a position covers what the client has, and no more.
func (c *simClient) takeID(id string) error {
	p, err := stream.ParsePosition(id)
	if err != nil {
		return err
	}
	for _, t := range c.topics {
		place := c.at[t.name]
		tp, ok := p.Topic(t.name)
		if !ok {
			return fmt.Errorf("position without topic %s", t.name)
		}
		if tp.Incarnation != place.id {
			if !place.telling && !place.nothing() {
				return fmt.Errorf("%s: the position is of incarnation %s, and no gap told", t.name, tp.Incarnation)
			}
			*place = simPlace{id: tp.Incarnation, next: slices.Clone(tp.Next)}
			continue
		}
		place.grow(len(tp.Next))
		for i, next := range tp.Next {
			if err := c.repeated(t, place, i, next); err != nil {
				return err
			}
			if err := c.missed(t, place, i, next); err != nil {
				return fmt.Errorf("position beyond what was delivered: %w", err)
			}
		}
	}
	c.ids = append(c.ids, id)
	return nil
}

// complete checks that the client has all there is.
func (c *simClient) complete() error {
	for i, t := range c.topics {
		place := c.at[t.name]
		if place.id != t.id && !place.nothing() {
			return fmt.Errorf("%s: still at incarnation %s", t.name, place.id)
		}
		place.grow(len(t.parts))
		for n, p := range t.parts {
			if err := c.missed(t, place, n, p.end()); err != nil && place.id == t.id {
				return err
			}
		}
		if !c.sub.cursors[i].synced {
			return fmt.Errorf("%s: not in step at the end", t.name)
		}
	}
	return nil
}

// oddOffsets is a predicate.
type oddOffsets struct{}

func (oddOffsets) Match(m *stream.Message) bool { return m.Offset%2 == 1 }
func (oddOffsets) String() string               { return "odd" }

func randomFilter(rng *rand.Rand) (f stream.Filter) {
	switch rng.IntN(8) {
	case 0, 1, 2, 3:
		return f
	case 4:
		f.Where = []stream.Predicate{oddOffsets{}}
	case 5:
		return stream.Or(randomFilter(rng), stream.Filter{Keys: simKeys[:1], Where: []stream.Predicate{oddOffsets{}}}, stream.Filter{Types: simTypes[:1]})
	}
	for range rng.IntN(3) {
		f.Keys = append(f.Keys, simKeys[rng.IntN(len(simKeys))])
	}
	for range rng.IntN(2) {
		f.Types = append(f.Types, simTypes[rng.IntN(len(simTypes))])
	}
	return f
}
