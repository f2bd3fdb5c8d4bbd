package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
)

// sink takes whole frames, many in one write, and waits until the client has. An error is the connection's end.
type sink interface {
	write(b []byte) error
}

// loop drives one connection by a goroutine of its own, which waits for what is pending and for the client: that of
// whatever isn't taken over from net/http.
type loop struct {
	connection
	sink  sink
	wakes fanout.Bell
}

func (g *Gateway) newLoop(transport string, f frames, s sink) *loop {
	l := &loop{sink: s, wakes: make(fanout.Bell, 1)}
	l.init(g, l, transport, f)
	return l
}

func (l *loop) now() time.Time { return time.Now() }

func (l *loop) wake() { l.wakes.Wake() }

// send implements driver. Without memory for it the client is told, not kept waiting: what wasn't written comes when it
// resumes.
func (l *loop) send(ctx context.Context, out *outgoing) (all bool, err error) {
	b := out.bytes()
	if !l.g.reserve(ctx, int64(len(b))) {
		_ = l.sink.write(l.frames.appendError(nil, "", problemOf(errOverloaded))) // it is the end either way
		return false, errOverloaded
	}
	err = l.sink.write(b)
	l.g.hubs.Release(int64(len(b)))
	return err == nil, err
}

// run serves the connection until it ends, and returns why: errClientGone, errDraining, a write's error, or what ended
// a subscription. The client has been told. Subscriptions are closed.
func (l *loop) run(ctx context.Context) (err error) {
	defer l.close()
	defer func() { // a panic is the end of this connection alone
		if r := recover(); r != nil {
			err = panicked(r)
		}
	}()
	err = l.passes(ctx)
	if errors.Is(err, errDraining) {
		l.restart(ctx)
	}
	return err
}

// always is closed: a loop that has more to do waits for it.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (l *loop) passes(ctx context.Context) error {
	l.spoke, l.round = time.Now(), time.Now()
	heartbeat := time.NewTimer(time.Until(l.due()))
	defer heartbeat.Stop()
	for {
		if err := l.obey(); err != nil {
			return l.end(ctx, err)
		}
		if l.hastened {
			l.hastened = false
			heartbeat.Reset(time.Until(l.due()))
		}
		more, err := l.pass(ctx)
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
		case <-l.g.draining.Done():
			return errDraining
		case <-again:
		case <-l.wakes:
		case <-heartbeat.C:
			if err := l.keepAlive(ctx); err != nil {
				return err
			}
			heartbeat.Reset(time.Until(l.due()))
		}
	}
}
