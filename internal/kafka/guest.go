package kafka

import (
	"context"
	"time"
)

// guest is a fetcher beside another one of the same broker. It reads what is added while that one's long poll stands,
// over a connection of its own, since a broker answers the requests of a connection in turn. When the poll ends, its parts
// go over to the other.
type guest struct {
	*fetcher
	done chan struct{} // closed when its run has ended
}

// guestWait is how long a broker holds a guest's request: what is added meanwhile waits as long.
const guestWait = 25 * time.Millisecond

// newGuestLocked starts a guest. The Reader's lock is held.
func (r *Reader) newGuestLocked(broker int32) *guest {
	ctx, cancel := context.WithCancel(r.ctx)
	g := &guest{newFetcher(r, broker, guestWait, cancel), make(chan struct{})}
	r.run(func() {
		defer close(g.done)
		g.run(ctx)
	})
	return g
}

// leave ends the guest and returns what it has read, which is then its host's.
func (g *guest) leave() []*part {
	g.cancel()
	<-g.done
	g.take()
	for _, p := range g.parts {
		p.checked = false // not on the host's connection
	}
	return g.parts
}

// beginPoll notes that a long poll stands, so that what is added goes to a guest meanwhile. It reports whether one may:
// what was added since the fetcher took in parts is neither in the request nor a guest's, and would wait for the poll's end.
func (f *fetcher) beginPoll() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls = len(f.incoming) == 0
	return f.polls
}

// endPoll notes that no long poll stands.
func (f *fetcher) endPoll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls = false
}

// sendAway ends the guest, if there is one, and takes its parts.
func (f *fetcher) sendAway() {
	f.mu.Lock()
	g := f.guest
	f.guest = nil
	f.mu.Unlock()
	if g == nil {
		return
	}
	parts := g.leave()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.incoming = append(f.incoming, parts...)
}
