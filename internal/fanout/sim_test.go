package fanout

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed of the simulation only")
	simSeeds = flag.Uint64("sim.seeds", 2000, "how many seeds the simulation runs")
	simTrace = flag.Bool("sim.trace", false, "print each step of the simulation")
)

// TestSimulation runs two replicas' hubs, a model of Kafka and a few subscribers, one step after the other in the order
// that a seed decides, and checks every item against the model. A failing seed is replayed by
//
//	go test ./internal/fanout -run Simulation -sim.seed=N -sim.trace
func TestSimulation(t *testing.T) {
	first, last := uint64(1), *simSeeds
	if *simSeed != 0 {
		first, last = *simSeed, *simSeed
	}
	var seen simTally
	for seed := first; seed <= last; seed++ {
		s := newSim(seed, t.Logf)
		if err := s.run(); err != nil {
			t.Fatalf("seed %d, step %d: %v", seed, s.steps, err)
		}
		seen.add(s)
	}
	t.Logf("%d seeds: %+v", last-first+1, seen)
	if *simSeed == 0 && (seen.fromKafka == 0 || seen.fromWindow == 0 || seen.gaps == 0 || seen.resumes == 0 || seen.tooSlow == 0 || seen.frames == 0 || seen.runs == 0 || seen.unread == 0 || seen.shared == 0 || seen.pastRuns == 0 || seen.blocks == 0 || seen.inside == 0) {
		t.Errorf("something never happened: %+v", seen)
	}
}

// simTally counts what must have happened for a simulation to mean something.
type simTally struct {
	messages, gaps, resumes, tooSlow, failedReads, fromKafka, fromWindow, frames, runs, unread, reads, shared, blocks, inside, pastRuns int
}

func (a *simTally) add(s *sim) {
	a.messages += s.tally.messages
	a.resumes += s.tally.resumes
	a.tooSlow += s.tally.tooSlow
	a.failedReads += s.tally.failedReads
	a.frames += s.tally.frames
	a.runs += s.tally.runs
	a.pastRuns += s.tally.pastRuns
	a.unread += s.tally.unread
	a.reads += s.tally.reads
	a.shared += s.tally.shared
	a.blocks += s.tally.blocks
	a.inside += s.tally.inside
	a.fromKafka += s.tally.fromKafka
	a.fromWindow += s.tally.fromWindow
	a.gaps += s.tally.gaps
}

// sim is one run: nothing in it runs by itself.
type sim struct {
	rng      *rand.Rand
	logf     func(string, ...any)
	topics   []*simTopic
	replicas []*Hubs
	readers  []*simReader
	clients  []*simClient
	answers  []func() // of history reads that were made and not yet handed over
	now      time.Time
	steps    int
	calm     bool // nothing fails any more
	tally    simTally
}

func newSim(seed uint64, logf func(string, ...any)) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 42)), logf: logf, now: time.Unix(1_700_000_000, 0)}
	for i := range 1 + s.rng.IntN(2) {
		s.topics = append(s.topics, newSimTopic(s.rng, fmt.Sprintf("topic.%d", i)))
	}
	window := Window{Bytes: 300 + s.rng.Int64N(8000), Age: time.Duration(1+s.rng.IntN(30)) * time.Second}
	for range 2 {
		h := New(Config{
			Window: func(string) Window { return window }, Formats: simFormats,
			Memory: 1 << 20, Gather: ungathered,
		}, nil, nil)
		h.now = func() time.Time { return s.now }
		if s.rng.IntN(2) == 0 { // so small that they bind
			h.limits = limits{poll: 1 + s.rng.Int64N(2000), walk: 1 + s.rng.IntN(6), refs: 1 + s.rng.IntN(6), block: 1 + s.rng.IntN(300), meet: 1 + s.rng.IntN(2)}
		}
		s.replicas = append(s.replicas, h)
		for _, t := range s.topics {
			hub := h.use(t.name)
			r := &simReader{hub: hub, topic: t, all: &s.readers}
			start := r.start(true)
			hub.append(stream.Batch{Start: &start}, s.now)
			s.readers = append(s.readers, r)
		}
	}
	for i := range 1 + s.rng.IntN(8) {
		topics := s.topics
		if s.rng.IntN(3) == 0 {
			topics = topics[:1]
		}
		c := &simClient{name: fmt.Sprintf("client%d", i), topics: topics, filter: randomFilter(s.rng), bounds: map[string]stream.Filter{}, slow: SlowReplay}
		for _, t := range topics {
			if s.rng.IntN(3) == 0 {
				c.bounds[t.name] = randomFilter(s.rng)
			}
		}
		if s.rng.IntN(4) == 0 {
			c.slow = SlowClose
		}
		s.clients = append(s.clients, c)
	}
	return s
}

// run does some hundred steps, then lets everything come to rest and checks that nobody lacks anything.
func (s *sim) run() error {
	for range 150 + s.rng.IntN(400) {
		if err := s.step(); err != nil {
			return err
		}
	}
	s.calm = true
	for range 20_000 {
		if err := s.step(); err != nil {
			return err
		}
		if s.rest() {
			break
		}
	}
	for _, c := range s.clients {
		if c.sub == nil {
			continue
		}
		if err := c.complete(); err != nil {
			return fmt.Errorf("%s %v at the end: %w", c.name, c.filter, err)
		}
		c.sub.Close()
	}
	for i, h := range s.replicas {
		s.tally.fromKafka += counted(h.metrics.replaysKafka)
		s.tally.fromWindow += counted(h.metrics.replaysWindow)
		stretches, history, waiting := h.archive.size()
		if err := h.archive.check(); err != nil || waiting > 0 {
			return fmt.Errorf("replica %d: %v; %d wait for history", i, err, waiting)
		}
		if stretches == 0 && history != 0 {
			return fmt.Errorf("replica %d: %d bytes of nothing", i, history)
		}
		if held := h.memory.used.Load() - s.windowBytes(h) - history; held != 0 {
			return fmt.Errorf("replica %d: %d bytes are counted as held by nobody", i, held)
		}
	}
	return nil
}

func counted(c prometheus.Metric) int {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return int(m.GetCounter().GetValue())
}

func (s *sim) windowBytes(h *Hubs) (n int64) {
	for _, hub := range h.list() {
		var sum int64
		for _, e := range hub.window.entries {
			sum += e.size() + e.framed.Load()
		}
		for _, seg := range hub.window.segments {
			sum += seg.framed.Load()
		}
		if sum != hub.bytes.Load() {
			panic("a window's bytes are miscounted")
		}
		n += sum
	}
	return n
}

// rest reports whether readers are at the end and nobody has anything to do.
func (s *sim) rest() bool {
	for _, r := range s.readers {
		if r.id != r.topic.id || len(r.next) != len(r.topic.parts) {
			return false
		}
		for i, p := range r.topic.parts {
			if r.next[i] != p.end() {
				return false
			}
		}
	}
	for _, c := range s.clients {
		if c.sub == nil || c.woken || c.writing != nil || slices.ContainsFunc(c.sub.cursors, func(c *cursor) bool { return !c.synced }) {
			return false
		}
	}
	for _, h := range s.replicas {
		if _, _, waiting := h.archive.size(); waiting > 0 {
			return false
		}
	}
	return len(s.answers) == 0
}

// step does one thing.
func (s *sim) step() error {
	s.steps++
	n := s.rng.IntN(100)
	if s.calm {
		n = 12 + s.rng.IntN(78)
	}
	switch {
	case n < 10:
		for range 1 + s.rng.IntN(10) {
			s.topics[s.rng.IntN(len(s.topics))].produce(s.rng)
		}
	case n < 12:
		s.topics[s.rng.IntN(len(s.topics))].disturb(s.rng)
	case n < 35:
		s.read()
	case n < 50:
		s.replay()
	case n < 60 && len(s.answers) > 0:
		i := s.rng.IntN(len(s.answers))
		answer := s.answers[i]
		s.answers = append(s.answers[:i], s.answers[i+1:]...)
		answer()
	case n < 90:
		return s.client(s.clients[s.rng.IntN(len(s.clients))])
	case n < 94:
		s.now = s.now.Add(time.Duration(s.rng.IntN(5000)) * time.Millisecond)
		for _, h := range s.replicas {
			h.tidy()
		}
	case n < 95: // another replica's memory is needed
		h := s.replicas[s.rng.IntN(2)]
		if room := h.memory.limit - h.memory.used.Load() + s.rng.Int64N(4000); h.Reserve(room) {
			h.Release(room)
		}
	case n < 96:
		taken := s.rng.IntN(2)
		s.replicas[s.rng.IntN(2)].archive.giveUp(0, func() bool { taken--; return taken < 0 })
	default:
		c := s.clients[s.rng.IntN(len(s.clients))]
		if c.sub != nil { // cut
			c.sub.Close()
			c.sub, c.writing = nil, nil
		}
	}
	return nil
}

func (s *sim) read() {
	r := s.readers[s.rng.IntN(len(s.readers))]
	b := r.read(s.rng)
	s.trace("%s read by replica %d: %s", r.topic.name, slices.Index(s.replicas, r.hub.hubs), simBatch(b))
	r.hub.append(b, s.now)
	r.topic.noticeTruncation(s.readers)
}

// replay makes one read of history; its answer is handed over at another step.
func (s *sim) replay() {
	h := s.replicas[s.rng.IntN(len(s.replicas))]
	r := h.archive.next()
	if r == nil {
		return
	}
	s.tally.reads++
	for _, w := range r.members {
		if w.place != nil || w.read != r {
			panic("who waits for a read is still in line")
		}
	}
	var parts []stream.PartBatch
	err := errors.New("the broker is away")
	if s.calm || s.rng.IntN(4) > 0 {
		i := slices.IndexFunc(s.topics, func(t *simTopic) bool { return t.name == r.req.Topic })
		parts, err = s.topics[i].history(s.rng, r.req)
	}
	s.trace("replica %d reads %+v: %s, %v", slices.Index(s.replicas, h), r.req, simBatch(stream.Batch{Parts: parts}), err)
	if err != nil {
		s.tally.failedReads++
		parts = nil
	}
	s.answers = append(s.answers, func() {
		s.tally.shared += max(len(r.members)-1, 0)
		r.finish(parts, 0, nil)
	})
}

// client lets one client do something: subscribe, or poll if it was woken.
func (s *sim) client(c *simClient) error {
	if c.sub == nil {
		return s.subscribe(c)
	}
	if c.writing != nil {
		b := c.writing
		c.writing = nil
		return s.takeBatch(c, b)
	}
	if s.rng.IntN(8) == 0 {
		if id, moved := c.sub.Progress(); moved {
			s.trace("%s progress %s", c.name, id)
			return c.wrap(c.takeID(id))
		}
		return nil
	}
	if !c.woken {
		return nil
	}
	c.woken = false
	b := new(Batch)
	err := c.sub.Poll(b)
	if err != nil {
		if e, ok := errors.AsType[*stream.Error](err); ok && e.Kind == stream.TooSlow && c.slow == SlowClose {
			s.tally.tooSlow++
			if err := c.takeID(c.sub.Position()); err != nil {
				return c.wrap(err)
			}
			c.sub.Close()
			c.sub = nil
			return nil
		}
		return c.wrap(err)
	}
	if b.Run.Count > 0 && s.rng.IntN(2) == 0 {
		c.writing = b // other things happen before the client has taken it, or not all of it
		return nil
	}
	return s.takeBatch(c, b)
}

// takeBatch has a client take what came with a batch, and checks it.
func (s *sim) takeBatch(c *simClient, b *Batch) error {
	items, err := s.itemsOf(c, b)
	if err != nil {
		return c.wrap(err)
	}
	for i := range items {
		it := &items[i]
		s.traceItem(c, it)
		if err := c.take(it); err != nil {
			return c.wrap(err)
		}
		if it.Frame != nil {
			s.tally.frames++
			want := simFormat{}.AppendMessage(nil, it.Message, it.ID)
			if c.format == 1 {
				want = simBlocks{}.AppendBlock(nil, want)
				if c.sub.cursors[0].ch.filter.All() {
					s.tally.inside++
				}
			}
			if !bytes.Equal(it.Frame, want) {
				return c.wrap(fmt.Errorf("frame %q, want %q", it.Frame, want))
			}
		}
	}
	c.woken = c.woken || b.More
	return nil
}

// itemsOf returns what a client got with a batch. Of a run it may not take all.
func (s *sim) itemsOf(c *simClient, b *Batch) (items []Item, err error) {
	if b.Run.Count == 0 {
		return b.Items, nil
	}
	s.tally.runs++
	if !c.sub.cursors[0].synced {
		s.tally.pastRuns++
	}
	if len(b.Items) > 0 {
		return nil, errors.New("a batch has a run and items")
	}
	got, count := b.Run.Frames, b.Run.Count
	if s.rng.IntN(3) == 0 {
		written := s.rng.IntN(len(got) + 1)
		var rest []byte
		rest, count = c.sub.Unread(b.Run, written)
		got = slices.Concat(got[:written], rest)
		s.tally.unread++
		b.More = true
		if want := b.Run.Count; written == len(b.Run.Frames) && count != want {
			return nil, fmt.Errorf("Unread of a whole run of %d left %d", want, count)
		}
	}
	if c.format == 1 {
		var blocks int
		if got, blocks, err = unpack(got); err != nil {
			return nil, err
		}
		s.tally.blocks += blocks
	}
	if items, err = itemsOf(got); len(items) != count && err == nil {
		err = fmt.Errorf("%d frames are %q", count, got)
	}
	return items, err
}

func (c *simClient) wrap(err error) error {
	if err != nil {
		return fmt.Errorf("%s %v: %w", c.name, c.filter, err)
	}
	return nil
}

// subscribe begins at the end, or resumes at one of the positions that the client was given: mostly the last.
func (s *sim) subscribe(c *simClient) error {
	replica := s.rng.IntN(2)
	h := s.replicas[replica]
	token := ""
	if len(c.ids) > 0 {
		token = c.ids[len(c.ids)-1]
		if s.rng.IntN(3) == 0 {
			token = c.ids[s.rng.IntN(len(c.ids))]
		}
	}
	var p stream.Position
	if token != "" {
		p, _ = stream.ParsePosition(token)
	}
	var hubs []*Hub
	var places []place
	c.floors = map[string]*stream.TopicPosition{}
	for _, t := range c.topics {
		hub := h.hubs[t.name]
		var at *stream.TopicPosition
		if tp, ok := p.Topic(t.name); ok {
			at = &tp
			if hub.id != t.id && tp.Incarnation != hub.id {
				return nil // Subscribe would wait until the hub has heard of the re-creation
			}
		}
		if at != nil && hub.id == t.id && s.rng.IntN(4) == 0 { // Subscribe waits until the hub has come to the floor's incarnation
			c.floors[t.name] = s.randomFloor(t)
		}
		hubs = append(hubs, hub)
		places = append(places, place{stream.And(c.filter, c.bounds[t.name]), at, cloned(c.floors[t.name])})
	}
	c.format = s.rng.IntN(len(simFormats))
	req := Request{Slow: c.slow, Format: c.format, Waker: wakeFunc(func() { c.woken = true })}
	var err error
	if c.sub, err = h.newSubscription(&req, hubs, places); err != nil {
		return err
	}
	c.woken = true
	if token == "" {
		token = c.sub.Position()
	} else {
		s.tally.resumes++
	}
	s.trace("%s on replica %d from %v", c.name, replica, p.Topics())
	return c.wrap(c.begin(token))
}

func cloned(p *stream.TopicPosition) *stream.TopicPosition {
	if p == nil {
		return nil
	}
	own := *p
	own.Next = slices.Clone(p.Next)
	return &own
}

// randomFloor returns a place somewhere in a topic.
func (s *sim) randomFloor(t *simTopic) *stream.TopicPosition {
	floor := &stream.TopicPosition{Topic: t.name, Incarnation: t.id}
	for _, log := range t.past[t.id] {
		floor.Next = append(floor.Next, log.start+s.rng.Int64N(log.end()-log.start+1))
	}
	return floor
}

func simBatch(b stream.Batch) (s string) {
	if b.Start != nil {
		s = fmt.Sprintf("start %+v", *b.Start)
	}
	for _, p := range b.Parts {
		s += fmt.Sprintf(" [%d:", p.Partition)
		if p.Gap != nil {
			s += fmt.Sprintf(" gap %d-%d", p.Gap.From, p.Gap.To)
		}
		for _, m := range p.Messages {
			s += fmt.Sprintf(" %d", m.Offset)
		}
		s += fmt.Sprintf(" next %d]", p.Next)
	}
	return s
}

func (s *sim) trace(format string, args ...any) {
	if *simTrace {
		s.logf("step %d: "+format, append([]any{s.steps}, args...)...)
	}
}

func (s *sim) traceItem(c *simClient, it *Item) {
	p, _ := stream.ParsePosition(it.ID)
	if it.Gap != nil {
		s.tally.gaps++
		s.trace("%s gets %+v, at %v", c.name, *it.Gap, p.Topics())
		return
	}
	s.tally.messages++
	s.trace("%s gets %s/%d/%d, at %v", c.name, it.Message.Topic, it.Message.Partition, it.Message.Offset, p.Topics())
}
