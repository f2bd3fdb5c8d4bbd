package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// sink takes whole frames, many in one write. An error is the connection's end.
type sink interface {
	write(b []byte) error
}

// connection is one client's stream, whatever its transport: the outside of the loop, which waits, and writes what the
// feeds have written down.
type connection struct {
	g         *Gateway
	transport string // for the metrics
	frames    frames // of what isn't about one feed
	sink      sink
	feeds     []*feed

	wake     chan struct{}     // of capacity 1: some feed is pending
	commands chan func() error // run between two passes; nil but for WebSocket
	ping     func() error      // what else is due with each round, which it writes by itself; may be nil

	out   outgoing
	spoke time.Time // when something was written last, but for what a round has beside a heartbeat
	round time.Time // when progress was told and a ping sent last
}

var (
	errClientGone = errors.New("the client is gone")
	errOverloaded = stream.Errorf(stream.Overloaded, "there is no memory for what waits to be written; resume on another replica, or later")
)

func (g *Gateway) newConnection(transport string, f frames, s sink) *connection {
	return &connection{g: g, transport: transport, frames: f, sink: s, wake: make(chan struct{}, 1), out: outgoing{buffers: &g.buffers}}
}

// wakeFor returns the [fanout.Request] Wake of a feed.
func (c *connection) wakeFor(f *feed) func() {
	return func() {
		f.pending.Store(true)
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// add takes a feed whose subscription is open, and tells the client where it stands.
func (c *connection) add(f *feed) {
	c.feeds = append(c.feeds, f)
	c.out.buf = f.frames.appendOpen(c.out.own(), f.sub.Position(), c.g.retry(c.g.cfg.RetrySpread))
	f.pending.Store(true)
}

// retry returns how long a client is to wait before it comes back.
func (g *Gateway) retry(spread time.Duration) time.Duration {
	return g.cfg.Retry + rand.N(spread+1)
}

// run serves the connection until it ends, and returns why: errClientGone, errDraining, a write's error, or what ended
// a subscription. The client has been told. Subscriptions are closed.
func (c *connection) run(ctx context.Context) error {
	defer func() {
		for _, f := range c.feeds {
			f.sub.Close()
		}
		c.out.reset()
	}()
	err := c.loop(ctx)
	if errors.Is(err, errDraining) {
		c.tellProgress()
		c.out.buf = c.frames.appendRestart(c.out.own(), c.g.retry(c.g.cfg.Drain))
		_ = c.flush(ctx) // it is the end either way
	}
	return err
}

// always is closed: a loop that has more to do waits for it.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (c *connection) loop(ctx context.Context) error {
	c.spoke, c.round = time.Now(), time.Now()
	heartbeat := time.NewTimer(c.g.cfg.Heartbeat)
	defer heartbeat.Stop()
	for {
		more, err := c.pass(ctx)
		if err != nil {
			return err
		}
		var again <-chan struct{}
		if more {
			again = always
		}
		select {
		case <-ctx.Done():
			return errClientGone
		case <-c.g.draining.Done():
			return errDraining
		case <-again:
		case <-c.wake:
		case do := <-c.commands:
			if err := do(); err != nil {
				return c.end(ctx, err)
			}
		case <-heartbeat.C:
			if err := c.keepAlive(ctx); err != nil {
				return err
			}
			heartbeat.Reset(c.g.cfg.Heartbeat - max(time.Since(c.spoke), time.Since(c.round)))
		}
	}
}

// pass polls every feed that has something pending and writes all that came in one write. It reports whether there may
// be more.
func (c *connection) pass(ctx context.Context) (more bool, err error) {
	batch := c.g.batch()
	defer c.g.batches.Put(batch)
	for i := 0; i < len(c.feeds); i++ {
		f := c.feeds[i]
		if !f.pending.Swap(false) {
			continue
		}
		again, err := f.poll(batch, &c.out)
		if again {
			f.pending.Store(true)
			more = true
		}
		if err != nil {
			if !c.survives(f, err) {
				c.out.buf = f.frames.appendError(c.out.own(), f.sub.Position(), problemOf(err))
				_ = c.flush(ctx) // it is the end either way
				return false, err
			}
			i--
		}
	}
	return more, c.flush(ctx)
}

// batch returns an empty batch of the pool.
func (g *Gateway) batch() *fanout.Batch {
	if b, ok := g.batches.Get().(*fanout.Batch); ok {
		return b
	}
	return new(fanout.Batch)
}

// survives ends one subscription of a connection that has others, or may have, and tells the client. Who is too slow
// is so on the whole connection.
func (c *connection) survives(f *feed, err error) bool {
	if e, ok := errors.AsType[*stream.Error](err); f.id == "" || !ok || e.Kind == stream.TooSlow {
		return false
	}
	c.out.buf = f.frames.appendError(c.out.own(), f.sub.Position(), problemOf(err))
	c.remove(f)
	return true
}

// remove closes a feed. What it has put down is still written.
func (c *connection) remove(f *feed) {
	f.written()
	f.sub.Close()
	c.feeds = slices.DeleteFunc(c.feeds, func(other *feed) bool { return other == f })
}

// end tells the client why the connection ends.
func (c *connection) end(ctx context.Context, err error) error {
	c.out.buf = c.frames.appendError(c.out.own(), "", problemOf(err))
	_ = c.flush(ctx) // it is the end either way
	return err
}

// keepAlive does what is due after a time. A round is due every Heartbeat, however busy the connection is: positions
// that moved past what filters left out, and a ping. A heartbeat is due when nothing else was sent for so long; a round
// doesn't count, since pages see neither a ping nor an id without an event. What has waited for half of the time goes
// along, so that an idle connection wakes once in a Heartbeat.
func (c *connection) keepAlive(ctx context.Context) error {
	half, spoke := c.g.cfg.Heartbeat/2, c.spoke
	round, silent := time.Since(c.round) >= half, time.Since(spoke) >= half
	if round {
		c.tellProgress()
	}
	if silent {
		c.out.buf = c.frames.appendHeartbeat(c.out.own())
	}
	if err := c.flush(ctx); err != nil {
		return err
	}
	now := time.Now()
	c.spoke = spoke
	if silent {
		c.spoke = now
	}
	if !round {
		return nil
	}
	c.round = now
	if c.ping == nil {
		return nil
	}
	return c.ping()
}

func (c *connection) tellProgress() {
	for _, f := range c.feeds {
		if id, moved := f.sub.Progress(); moved {
			c.out.buf = f.frames.appendPosition(c.out.own(), id)
		}
	}
}

// flush writes what has been put down. Without memory for it the client is told, not kept waiting: what wasn't written
// comes when it resumes.
func (c *connection) flush(ctx context.Context) error {
	if c.out.empty() {
		c.out.reset() // it may have a buffer, that nothing came into
		return nil
	}
	b := c.out.bytes()
	if !c.g.reserve(ctx, int64(len(b))) {
		c.out.reset()
		_ = c.sink.write(c.frames.appendError(nil, "", problemOf(errOverloaded))) // it is the end either way
		return errOverloaded
	}
	err := c.sink.write(b)
	c.g.hubs.Release(int64(len(b)))
	if err == nil {
		c.spoke = time.Now()
		if !c.out.oldest.IsZero() {
			c.g.metrics.delivery.Observe(c.spoke.Sub(c.out.oldest).Seconds())
		}
		for _, f := range c.feeds {
			f.written()
		}
	}
	c.out.reset()
	return err
}

// reserve counts a write against the process's memory. Where there is none it waits a moment, for other writes to end.
func (g *Gateway) reserve(ctx context.Context, n int64) bool {
	for wait := 5 * time.Millisecond; ; wait *= 4 {
		if g.hubs.Reserve(n) {
			return true
		}
		if wait > 100*time.Millisecond {
			return false
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
	}
}

// reason returns why a connection ended, for the log and the metrics.
func reason(err error) string {
	switch {
	case err == nil, errors.Is(err, errClientGone):
		return "client"
	case errors.Is(err, errDraining):
		return "drain"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	}
	if _, ok := errors.AsType[*stream.Error](err); ok {
		return problemOf(err).name()
	}
	return "client" // a write failed: the peer is gone
}
