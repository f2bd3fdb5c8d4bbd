package fanout

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/goodgo/streamgw/internal/stream"
)

// Subscription is a cursor in each of its topics: where one subscriber stands. Its methods are for one goroutine at a time.
//
// A delivery costs what it touches of memory, which is cold when there are many subscribers: what every Poll needs stands
// together, here and in cursor.
type Subscription struct {
	mu      sync.Mutex // guards the cursors, and what isn't the same for good
	closed  bool
	slow    Slow
	format  int
	hubs    *Hubs
	cursors []*cursor // by topic
	turn    int       // the cursor that the next Poll begins with
	told    string    // the position that was given out last
	err     error

	// Most have one topic: its cursor is here.
	only cursor
	one  [1]*cursor

	waker  Waker   // a Bell, when the subscriber brought none of its own
	replay *replay // until each cursor has been in step, or nil
}

// Bell is a Waker for who waits: it has something once it was rung. Made with a capacity of 1.
type Bell chan struct{}

// Wake implements [Waker].
func (b Bell) Wake() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// token returns the position when cursor c's part of it is part.
func (s *Subscription) token(c *cursor, part string) string {
	if len(s.cursors) == 1 {
		return part
	}
	parts := make([]string, len(s.cursors))
	for i, other := range s.cursors {
		if other == c {
			parts[i] = part
		} else {
			parts[i] = other.part()
		}
	}
	return stream.JoinParts(parts...)
}

// Position returns where the subscription stands: what a client resumes from after all that Poll has yielded.
func (s *Subscription) Position() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.positionLocked()
}

func (s *Subscription) positionLocked() string { return s.token(nil, s.cursors[0].part()) }

// Poll fills b with what comes next: about 64 KiB at most, or one message. It never blocks; no items mean nothing yet:
// the Waker is told when there is. After an error (TooSlow, Unavailable, NotFound) the subscription is at its end, and
// Position is where to resume.
func (s *Subscription) Poll(b *Batch) error {
	b.Reset()
	b.budget = s.hubs.limits.poll
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return stream.Errorf(stream.Internal, "the subscription is closed")
	}
	for i := range s.cursors {
		c := s.cursors[(s.turn+i)%len(s.cursors)]
		if err := c.poll(b); err != nil {
			s.err = err
			break
		}
	}
	s.turn++
	s.arriveLocked()
	b.More = b.budget <= 0 || s.err != nil
	s.hubs.shrink(0) // frames may have been encoded
	switch {
	case b.Run.Count > 0:
		s.told = b.Run.last().id
	case len(b.Items) > 0:
		s.told = b.Items[len(b.Items)-1].ID
	default:
		return s.err
	}
	return nil // an error lasts: it comes with the next Poll
}

// arriveLocked ends the replay that a subscription began with once each of its cursors has been in step.
func (s *Subscription) arriveLocked() {
	if s.replay != nil && !slices.ContainsFunc(s.cursors, func(c *cursor) bool { return c.begins }) {
		s.replay.end()
		s.replay = nil
	}
}

// Unread takes back what a client didn't take of the last Poll's run: only the first written bytes of its frames, not
// all of them. It returns the rest of the frame, or block, that was begun, which is still to be written before anything
// else, and how many messages the client has with that. Those behind it come with the next Poll.
func (s *Subscription) Unread(run Run, written int) (rest []byte, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cursors[0] // a subscription that gets runs has one
	m := run.taken(written)
	count = int(m.next - run.from.next)
	if s.told = m.id; c.synced {
		c.seq, c.id = run.seq+uint64(count), m.id
	} else {
		c.unreadPast(m)
	}
	return run.Frames[written : m.end-run.from.end], count
}

// Progress moves the subscription past messages that its filter leaves out, when nothing is pending, and returns its
// position if that isn't the one of the last item or Progress. Transports send it with their heartbeats.
func (s *Subscription) Progress() (id string, moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.cursors {
		c.skip()
	}
	id = s.positionLocked()
	moved = id != s.told
	s.told = id
	return id, moved
}

// skip moves a cursor in step to the hub's end if nothing on the way there is for it.
func (c *cursor) skip() {
	if !c.synced {
		return
	}
	c.hub.mu.RLock()
	defer c.hub.mu.RUnlock()
	refs, complete := c.ch.after(c.seq, c.hub.window.first)
	if c.epoch == c.hub.epoch && (c.seq == c.hub.window.end() || complete && len(refs) == 0 && !c.ch.filter.All()) {
		c.seq, c.id = c.hub.window.end(), c.hub.head
	}
}

// Next is Poll that waits. It is for callers without a Waker.
func (s *Subscription) Next(ctx context.Context, b *Batch) error {
	woken, _ := s.waker.(Bell)
	for {
		if err := s.Poll(b); err != nil || len(b.Items) > 0 || b.Run.Count > 0 {
			return err
		}
		if b.More && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-woken:
		}
	}
}

// Close ends the subscription. It is safe to call twice.
func (s *Subscription) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.detachLocked()
	s.hubs.metrics.subscriptions.Dec()
}

func (s *Subscription) detachLocked() {
	for _, c := range s.cursors {
		c.leavePast()
		c.hub.detach(c)
	}
	s.replay.end()
	s.replay = nil
}

// newSubscription attaches a cursor for each topic, at its place. The hubs have started, and keep their users while this
// runs. Its errors are those of bounds.
func (h *Hubs) newSubscription(req *Request, hubs []*Hub, places []place) (*Subscription, error) {
	var under *replay
	if slices.ContainsFunc(places, func(p place) bool { return p.start != nil }) {
		var err error
		if under, err = h.owners.begin(req.Owner); err != nil {
			return nil, err
		}
	}
	s := &Subscription{hubs: h, waker: req.Waker, slow: req.Slow, format: req.Format, replay: under}
	if s.waker == nil {
		s.waker = make(Bell, 1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursors = s.one[:0]
	for i, hub := range hubs {
		c := &s.only
		if len(hubs) > 1 {
			c = new(cursor)
		}
		if err := hub.attach(c, s, &places[i]); err != nil {
			s.closed = true
			s.detachLocked()
			return nil, err
		}
		s.cursors = append(s.cursors, c)
	}
	slices.SortFunc(s.cursors, func(a, b *cursor) int { return strings.Compare(a.hub.topic, b.hub.topic) })
	s.told = s.positionLocked()
	h.metrics.subscriptions.Inc()
	return s, nil
}

// attach adds a cursor at its place, unless its filter is one too many.
func (h *Hub) attach(c *cursor, s *Subscription, p *place) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch, err := h.channels.join(&p.rows, h.window.end(), h.hubs.cfg.Filters, h.hubs.cfg.Scans)
	if err != nil {
		return &stream.Error{Kind: stream.Overloaded, Detail: "topic " + h.topic + " has " + err.Error(), Err: err}
	}
	h.users++
	*c = cursor{sub: s, hub: h, ch: ch, epoch: h.epoch, listed: -1, begins: p.start != nil}
	if p.start == nil {
		c.enterStepLocked(h.window.end(), h.head)
		return nil
	}
	c.own = stream.TopicPosition{Topic: h.topic, Incarnation: p.start.Incarnation, Next: slices.Clone(p.start.Next)}
	c.floor = p.floor
	c.listLocked()
	return nil
}

// detach removes a cursor.
func (h *Hub) detach(c *cursor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.unsynced, c)
	c.ch.leave(c)
	h.channels.leave(c.ch)
	h.releaseLocked()
}

// releaseLocked gives up one use of the hub.
func (h *Hub) releaseLocked() {
	if h.users--; h.users == 0 {
		h.idle = h.hubs.now()
	}
}
