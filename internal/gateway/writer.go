package gateway

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// writer drives a share of the connections that were taken over from net/http. It passes over those that have something
// pending and writes to each what came, once, without waiting for any; what comes during a pass leaves with the next.
// Those who are behind, with more than one write's worth to come, are served between those that are woken: a storm of
// them doesn't keep the others waiting.
type writer struct {
	of   *writers
	kick chan struct{} // of capacity 1

	mu      sync.Mutex // guards what follows
	pending []*taken   // each once
	parked  bool       // the writer waits, and is to be kicked
	timed   bool       // it doesn't wait for more than a slot of its wheel
	stopped bool       // it takes no more connections, and cuts those that it has

	// What follows is the goroutine's own.
	clock   time.Time // when the pass began
	wheel   wheel     // has each connection once, and for a while those that have ended
	live    int       // connections that haven't
	behind  []*taken  // those with more to come, in the order of their turns
	closing []*taken  // those that wait for the answer to a close frame, in the order of their times
	drains  bool      // they are being ended

	write func(d *descriptor, b []byte) (n int, err error) // what the kernel takes at once; tests have others
}

func newWriter(of *writers) *writer {
	w := &writer{of: of, kick: make(chan struct{}, 1), write: (*descriptor).write}
	w.wheel = newWheel(of.g.cfg.Heartbeat)
	return w
}

// enqueue has the writer pass over c. It is called once for each time that c.queued becomes true.
func (w *writer) enqueue(c *taken) {
	w.mu.Lock()
	w.pending = append(w.pending, c)
	w.unparkLocked()
	w.mu.Unlock()
}

func (w *writer) unparkLocked() {
	if !w.parked {
		return
	}
	w.parked = false
	select {
	case w.kick <- struct{}{}:
	default: // it is about to see one
	}
}

// adopt takes a connection that was never queued, unless the writer has stopped. For one that has nothing to do it isn't
// kicked: it enters that in its wheel when it comes by.
func (w *writer) adopt(c *taken) bool {
	if !w.enter(c) {
		return false
	}
	c.queued.Store(false) // what follows looks at nothing that is the writer's by now
	if c.first.pending.Load() || c.gone.Load() != nil || c.socket != nil && c.socket.heard.Load() {
		c.wake() // whoever wanted that meanwhile did in vain
	}
	return true
}

func (w *writer) enter(c *taken) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	w.pending = append(w.pending, c)
	if !w.timed {
		w.unparkLocked()
	}
	return true
}

// stop makes run return.
func (w *writer) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.unparkLocked()
}

// run passes over connections until stop, and then cuts those that are left.
func (w *writer) run() {
	g := w.of.g
	draining, killed := g.draining.Done(), g.killed.Done()
	timer := time.NewTimer(w.wheel.width)
	defer timer.Stop()
	var list []*taken
	for {
		var stopped bool
		list, stopped = w.next(list)
		w.clock = time.Now()
		if draining != nil && g.draining.Err() != nil {
			draining = nil
			w.drain()
		}
		if killed != nil && (stopped || g.killed.Err() != nil) {
			killed = nil
			w.cut()
		}
		w.passOver(list)
		w.serveBehind()
		w.wheel.turn(w.clock, w.keepAlive)
		w.giveUp()
		if !w.park(stopped) || len(w.behind) > 0 {
			continue
		}
		if stopped && w.live == 0 {
			return
		}
		if w.wheel.n > 0 {
			timer.Reset(w.rest())
		}
		select {
		case <-w.kick:
		case <-timer.C:
		case <-draining:
		case <-killed:
		}
	}
}

// next returns the connections that have something pending, and takes the list before, which has been dealt with.
func (w *writer) next(before []*taken) (list []*taken, stopped bool) {
	clear(before)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parked = false
	list, w.pending = w.pending, before[:0]
	return list, w.stopped
}

// park reports whether there is nothing new; then the writer is kicked for what is next.
func (w *writer) park(stopped bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parked = len(w.pending) == 0 && w.stopped == stopped
	w.timed = w.wheel.n > 0
	return w.parked
}

// passOver serves connections that were woken, and has what it needs of the next ones come meanwhile.
func (w *writer) passOver(list []*taken) {
	const ahead = 3
	for _, c := range list[:min(ahead, len(list))] {
		c.prefetch()
	}
	for i, c := range list {
		if i+ahead < len(list) {
			list[i+ahead].prefetch()
		}
		if i+ahead-1 < len(list) && list[i+ahead-1].first.sub != nil {
			list[i+ahead-1].first.sub.Prefetch()
		}
		w.guard(c, w.pass)
	}
}

// pass serves a connection that was woken.
func (w *writer) pass(c *taken) {
	c.queued.Store(false) // from here on a wake-up is another one
	switch {
	case c.ended:
		return
	case !c.entered:
		c.entered = true
		w.live++
		w.wheel.add(c, c.due(), w.clock)
	}
	if !c.blocked {
		w.serve(c)
		return
	}
	if !c.relieved.Swap(false) {
		w.interrupt(c)
		return
	}
	c.blocked = false
	if c.failed != nil {
		w.finish(c, c.failed)
		return
	}
	c.wrote()
	w.putBehind(c)
}

// interrupt has who writes the rest of a blocked connection's write fail, where nobody is there to take it, or whoever is may
// no longer have it. Last words go on.
func (w *writer) interrupt(c *taken) {
	if c.relieved.Load() {
		return // it is through
	}
	over := false
	if c.ending == nil {
		c.ending = c.expired(w.clock)
		over = c.ending != nil
	}
	if over || c.gone.Load() != nil {
		c.descriptor.abort()
	}
}

// A writer serves leastBehind of those that are behind between two passes, and mostBehind where nobody was woken meanwhile.
const leastBehind, mostBehind = 16, 256

// putBehind gives a connection a turn among those that are behind.
func (w *writer) putBehind(c *taken) {
	if !c.behind {
		c.behind = true
		w.behind = append(w.behind, c)
	}
}

// serveBehind serves some of those that are behind.
func (w *writer) serveBehind() {
	n := 0
	for most := min(mostBehind, len(w.behind)); n < most && (n < leastBehind || !w.woken()); n++ {
		c := w.behind[n]
		w.behind[n], c.behind = nil, false
		if !c.ended && !c.blocked {
			w.guard(c, w.serve)
		}
	}
	if w.behind = w.behind[n:]; len(w.behind) == 0 {
		w.behind = nil
	}
}

// woken reports whether somebody waits for the next pass.
func (w *writer) woken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pending) > 0
}

// guard does something for one connection. A panic is the end of that connection alone, as it is in net/http of a
// request alone.
func (w *writer) guard(c *taken, do func(*taken)) {
	defer func() {
		if r := recover(); r != nil {
			w.contain(c, r)
		}
	}()
	do(c)
}

// contain ends a connection in whose work there was a panic. What it has put down may be anything, so its client isn't
// told; it resumes where it knows that it was.
func (w *writer) contain(c *taken, cause any) {
	err := panicked(cause)
	if c.ended {
		w.of.g.cfg.Log.Error("stream ended before", "transport", c.transport.name, "error", err)
		return
	}
	c.ending = err
	if c.blocked {
		c.descriptor.abort() // who writes the rest has what it writes
		return
	}
	w.finish(c, err)
}

func panicked(cause any) error {
	return &stream.Error{Kind: stream.Internal, Err: fmt.Errorf("panic: %v\n%s", cause, debug.Stack())}
}

// serve does what there is to do for a connection that isn't blocked.
func (w *writer) serve(c *taken) {
	if c.ending == nil {
		c.ending = w.turn(c)
	}
	if c.ending != nil && !c.blocked {
		w.settle(c)
	}
}

// settle ends a connection whose client has been told why: at once, or for a WebSocket when the client has answered the
// close frame.
func (w *writer) settle(c *taken) {
	if s := c.socket; s != nil {
		c.unsubscribe()
		_ = s.putDown(&c.out)
		told := s.putClose(&c.out, c.ending)
		if c.flush(context.Background()) == nil {
			if c.blocked {
				return
			}
			if told && c.gone.Load() == nil {
				w.await(c)
				return
			}
		}
	}
	w.finish(c, c.ending)
}

// await begins to wait for the answer to a close frame.
func (w *writer) await(c *taken) {
	if c.until.IsZero() {
		c.until = w.clock.Add(closeTimeout)
		w.closing = append(w.closing, c)
		c.socket.session.cancel(c.ending)
	}
}

// giveUp ends the connections whose close frame wasn't answered in time.
func (w *writer) giveUp() {
	for len(w.closing) > 0 && !w.closing[0].until.After(w.clock) {
		if c := w.closing[0]; !c.ended && !c.blocked {
			w.finish(c, c.ending)
		}
		w.closing[0] = nil
		w.closing = w.closing[1:]
	}
}

// rest returns how long there is nothing to do if nothing comes.
func (w *writer) rest() time.Duration {
	next := w.wheel.next
	if len(w.closing) > 0 && w.closing[0].until.Before(next) {
		next = w.closing[0].until
	}
	return max(0, time.Until(next))
}

// turn does one round of a connection's work. Its error is the connection's end, of which the client has been told.
func (w *writer) turn(c *taken) error {
	ctx := context.Background() // nothing here waits
	if gone := c.gone.Load(); gone != nil {
		return *gone
	}
	if c.socket != nil {
		if err := c.socket.putDown(&c.out); err != nil {
			return err
		}
	}
	if w.drains {
		c.restart(ctx)
		return errDraining
	}
	if err := c.obey(); err != nil {
		return c.end(ctx, err)
	}
	if c.hastened {
		c.hastened = false
		w.wheel.hasten(c, c.due())
	}
	more, err := c.pass(ctx)
	if more {
		w.putBehind(c)
	}
	return err
}

// keepAlive does for a connection what is due after a time, and returns when that is next; false, when it has ended.
func (w *writer) keepAlive(c *taken) (next time.Time, stays bool) {
	if c.ended {
		return next, false
	}
	if c.blocked || c.ending != nil {
		next = w.clock.Add(w.of.g.cfg.Heartbeat / 2) // what waits for it is to be taken first
		if c.blocked {
			w.interrupt(c)
			if ends := time.Unix(0, c.ends.Load()); ends.After(w.clock) && ends.Before(next) {
				next = ends
			}
		}
		return next, true
	}
	if next = c.due(); next.Sub(w.clock) > w.wheel.width/2 {
		return next, true
	}
	w.guard(c, w.refresh)
	return c.due(), !c.ended
}

func (w *writer) refresh(c *taken) {
	if c.ending = c.connection.keepAlive(context.Background()); c.ending != nil && !c.blocked {
		w.settle(c)
	}
}

// drain ends all connections, each told when to come back.
func (w *writer) drain() {
	w.drains = true
	w.wheel.each(func(c *taken) {
		if !c.ended && !c.blocked {
			w.guard(c, w.serve)
		}
	})
}

// cut ends all connections at once. Who writes the rest of one that is blocked fails then, and wakes it.
func (w *writer) cut() {
	w.drains = true
	w.wheel.each(func(c *taken) {
		switch {
		case c.ended:
		case c.blocked:
			c.descriptor.abort()
		default:
			w.finish(c, errDraining)
		}
	})
}

// finish lets go of a connection.
func (w *writer) finish(c *taken, err error) {
	if c.ending != nil {
		err = c.ending
	}
	c.ended = true
	w.live--
	w.of.watch.remove(c)
	topics := c.topics()
	c.connection.close()
	if c.socket != nil {
		c.socket.session.cancel(nil)
	}
	c.descriptor.close()
	c.connection.ended(err, topics)
	w.of.moved.Add(1)
	w.of.g.leave(c.visit)
}
