package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// connection is one client's stream, whatever its transport. It does nothing by itself: a driver passes over it when
// something is pending, and keeps it alive. All its methods are for one goroutine at a time.
type connection struct {
	g       *Gateway
	driver  driver
	feeds   []*feed
	command atomic.Pointer[func() error] // what a WebSocket's client asks for, run between two passes; nil: nothing
	pings   *pings                       // nil but for WebSocket
	ends    atomic.Int64                 // when its token does, in Unix nanoseconds; may be brought forward from any goroutine
	lease   *lease                       // nil: nothing ends it
	spoke   time.Time                    // when something was written last, but for what a round has beside a heartbeat
	out     outgoing

	oneFeed   [1]*feed // feeds, of most
	transport *transportMetrics
	frames    frames    // of what isn't about one feed
	round     time.Time // when progress was told and a ping sent last
	hastened  bool      // the lease is due earlier than the driver was told
}

// driver runs a connection: a loop of its own, or a writer that has many.
type driver interface {
	// now is the time that what happens to the connection is noted with.
	now() time.Time

	// wake says that the connection has something to do. It may come from any goroutine, and doesn't block.
	wake()

	// send writes what is in out. It reports whether all was taken; if not, the rest is the driver's, and it tells the
	// connection when that has been. An error is the connection's end.
	send(ctx context.Context, out *outgoing) (all bool, err error)
}

var (
	errClientGone = errors.New("the client is gone")
	errOverloaded = stream.Errorf(stream.Overloaded, "there is no memory for what waits to be written; resume on another replica, or later")
)

// init sets up a connection of g's that is driven by d.
func (c *connection) init(g *Gateway, d driver, transport string, f frames) {
	c.g, c.driver, c.transport, c.frames, c.out.buffers = g, d, g.metrics.of(transport), f, &g.buffers
	c.spoke = time.Now()
	c.round = c.spoke
	c.ends.Store(forever)
}

// obey runs the command that is there, if there is one, unless the connection's time is over. Its error is the connection's
// end.
func (c *connection) obey() error {
	if err := c.expired(c.driver.now()); err != nil {
		return err
	}
	if c.command.Load() == nil {
		return nil
	}
	do := c.command.Swap(nil)
	if do == nil {
		return nil // whoever asked for it didn't want it any more
	}
	return (*do)()
}

// add takes a feed whose subscription is open, and tells the client where it stands.
func (c *connection) add(f *feed) {
	c.hold(f)
	c.open(f)
	f.pending.Store(true)
}

// hold has the connection close a feed's subscription in the end.
func (c *connection) hold(f *feed) {
	if len(c.feeds) == 0 {
		c.feeds = c.oneFeed[:0]
	}
	if c.feeds = append(c.feeds, f); len(c.feeds) > 1 {
		c.oneFeed[0] = nil // they are elsewhere now
	}
}

// open tells the client where a feed stands.
func (c *connection) open(f *feed) {
	c.out.buf = f.frames.appendOpen(c.out.own(), f.sub.Position(), c.g.retry(c.g.cfg.RetrySpread))
}

// retry returns how long a client is to wait before it comes back.
func (g *Gateway) retry(spread time.Duration) time.Duration {
	return g.cfg.Retry + rand.N(spread+1)
}

// topics returns the names of all topics, for the log.
func (c *connection) topics() (names []string) {
	for _, f := range c.feeds {
		for i := range f.topics {
			names = append(names, f.topics[i].name)
		}
	}
	return names
}

// unsubscribe closes all feeds.
func (c *connection) unsubscribe() {
	for _, f := range c.feeds {
		f.sub.Close()
	}
	c.feeds, c.oneFeed[0] = nil, nil
}

// close lets go of what the connection holds.
func (c *connection) close() {
	c.g.leases.remove(c.lease)
	c.unsubscribe()
	c.out.reset()
}

// restart writes the last words of a gateway that stops.
func (c *connection) restart(ctx context.Context) {
	c.tellProgress()
	c.out.buf = c.frames.appendRestart(c.out.own(), c.g.retry(c.g.cfg.Drain))
	_ = c.flush(ctx) // it is the end either way
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
		if c.out.of != nil {
			c.out.own() // another Poll may fill the run's batch anew
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
	err = c.flush(ctx)
	batch.Reset() // what was written may go out of the window
	return more, err
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

// hasRounds reports whether something is due however busy the connection is: pings, and where each of several subscriptions
// stands. Of one alone its events say that.
func (c *connection) hasRounds() bool { return c.pings != nil } // only a WebSocket has several

// due returns when keepAlive is to be called next.
func (c *connection) due() time.Time {
	due := c.spoke.Add(c.g.cfg.Heartbeat)
	if c.hasRounds() && c.round.Before(c.spoke) {
		due = c.round.Add(c.g.cfg.Heartbeat)
	}
	if l := c.lease; l != nil && l.due().Before(due) {
		due = l.due()
	}
	return due
}

// keepAlive does what is due after a time. A round is due every Heartbeat: positions that moved past what filters left out,
// and a ping. A heartbeat is due when nothing else was sent for so long; a round doesn't count, since pages see neither a
// ping nor an id without an event. What has waited for half of the time goes along, so that an idle connection wakes once in
// a Heartbeat.
func (c *connection) keepAlive(ctx context.Context) error {
	now, half, spoke := c.driver.now(), c.g.cfg.Heartbeat/2, c.spoke
	if err := c.expired(now); err != nil {
		return c.end(ctx, err)
	}
	c.notify(now)
	round, silent := now.Sub(c.round) >= half, now.Sub(spoke) >= half
	if !c.hasRounds() {
		round = silent
	}
	if round {
		c.tellProgress()
		if c.pings != nil {
			if err := c.pings.check(now, max(c.g.cfg.WriteTimeout, 2*c.g.cfg.Heartbeat)); err != nil {
				return err
			}
			c.out.buf = append(c.out.own(), final|opPing, 0)
			c.pings.sent = true
		}
	}
	if silent {
		c.out.buf = c.frames.appendHeartbeat(c.out.own())
	}
	err := c.flush(ctx)
	now = c.driver.now()
	c.spoke = spoke
	if silent {
		c.spoke = now
	}
	if round {
		c.round = now
	}
	return err
}

func (c *connection) tellProgress() {
	for _, f := range c.feeds {
		if id, moved := f.sub.Progress(); moved {
			c.out.buf = f.frames.appendPosition(c.out.own(), id)
		}
	}
}

// flush writes what has been put down.
func (c *connection) flush(ctx context.Context) error {
	if c.out.empty() {
		c.out.reset() // it may have a buffer, that nothing came into
		return nil
	}
	all, err := c.driver.send(ctx, &c.out)
	switch {
	case err != nil:
		c.out.reset()
	case all:
		c.wrote()
	}
	return err
}

// wrote accounts for what has been put down and is written now.
func (c *connection) wrote() {
	now := c.driver.now()
	c.spoke = now
	if !c.out.oldest.IsZero() {
		c.g.metrics.delivery.Observe(now.Sub(c.out.oldest).Seconds())
	}
	for _, f := range c.feeds {
		f.written()
	}
	if c.pings != nil {
		c.pings.written(now)
	}
	c.out.reset()
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
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT): // ours, or the kernel's
		return "timeout"
	}
	if _, ok := errors.AsType[*stream.Error](err); ok {
		return problemOf(err).name()
	}
	return "client" // a write failed: the peer is gone
}
