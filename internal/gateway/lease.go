package gateway

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// lease is whose a connection is and how long it may go on. A connection that needs no token has none.
type lease struct {
	of     *connection
	opened time.Time

	who  atomic.Pointer[auth.Identity] // changed by the connection's driver alone
	over atomic.Pointer[stream.Error]  // why it ended before its time, if it did

	// What follows is the driver's.
	notice time.Time // when the client is told that the end is near
	told   bool      // that was done, or isn't to be
	nobody bool      // no token has come yet
}

// forever is the end of what has none, in Unix nanoseconds.
const forever = math.MaxInt64

// What ends a connection whose token does.
var (
	errExpired    = stream.Errorf(stream.Unauthorized, "the token has expired")
	errNoAuth     = stream.Errorf(stream.Unauthorized, "no auth frame with a token came in time")
	errOtherOwner = stream.Errorf(stream.Forbidden, "the token is another subject's; open another connection for it")
)

// admit gives the connection to whom a grant was given. A WebSocket without a token, whose grant is nil, is to say soon
// whose it is.
func (c *connection) admit(grant *auth.Grant) {
	c.ends.Store(forever)
	if grant != nil && grant.Identity() == nil {
		return
	}
	l := &lease{of: c, opened: time.Now(), told: true, nobody: true}
	c.lease = l
	if grant == nil {
		l.who.Store(&auth.Identity{})
		c.ends.Store(l.opened.Add(c.g.cfg.AuthTimeout).UnixNano())
		c.g.leases.add(l)
		return
	}
	l.who.Store(grant.Identity())
	c.g.leases.add(l) // before renew asks whether it was revoked: who revokes it later finds it
	c.renew(grant.Identity())
	c.hastened = false // nobody has been told of another time
}

// renew has the connection go on for a token. The notice comes some time before its end, but not before half of its time.
// One that was revoked meanwhile stays so.
func (c *connection) renew(who *auth.Identity) {
	l, now := c.lease, time.Now()
	l.who.Store(who)
	before := c.due()
	c.ends.Store(nanoseconds(who.Ends))
	l.notice, l.told, l.nobody = who.Ends.Add(-min(c.g.cfg.ExpiryNotice, who.Ends.Sub(now)/2)), false, false
	c.hastened = c.due().Before(before)
	if l.over.Load() != nil || c.g.access.Revoked(who) {
		l.revoke()
	}
}

// nanoseconds is a time in Unix nanoseconds; what lies beyond the years that these count is forever.
func nanoseconds(t time.Time) int64 {
	const lastYear = 2261
	if t.Year() > lastYear {
		return forever
	}
	return t.UnixNano()
}

// expired returns why the connection is to end by now, or nil. It is asked before each delivery.
func (c *connection) expired(now time.Time) error {
	if now.UnixNano() < c.ends.Load() {
		return nil
	}
	if err := c.lease.over.Load(); err != nil {
		return err
	}
	if c.lease.nobody {
		return errNoAuth
	}
	return errExpired
}

// notify tells the client that its token's end is near, once.
func (c *connection) notify(now time.Time) {
	if l := c.lease; l != nil && !l.told && !now.Before(l.notice) {
		c.out.buf = c.frames.appendExpiring(c.out.own(), l.who.Load().Ends)
		l.told = true
	}
}

// due returns when something is to be done about the lease.
func (l *lease) due() time.Time {
	if !l.told {
		return l.notice
	}
	return time.Unix(0, l.of.ends.Load())
}

// revoke ends the lease. It may come from any goroutine.
func (l *lease) revoke() {
	l.over.Store(auth.ErrRevoked)
	l.of.ends.Store(0)
	l.of.driver.wake()
}

// leases are those of all connections, so that they can be found when a token is revoked.
type leases struct {
	mu  sync.Mutex // guards what follows
	all map[*lease]struct{}
}

func (ls *leases) add(l *lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.all == nil {
		ls.all = map[*lease]struct{}{}
	}
	ls.all[l] = struct{}{}
}

func (ls *leases) remove(l *lease) {
	if l == nil {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.all, l)
}

// each calls f for every lease. f adds and removes none.
func (ls *leases) each(f func(*lease)) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for l := range ls.all {
		f(l)
	}
}

// owner names the subject of a grant among all issuers' subjects, "" if there is none. A token without a subject is its own.
func owner(who *auth.Identity) string {
	switch {
	case who == nil, who.Subject == "" && who.TokenID == "":
		return ""
	case who.Subject == "":
		return who.Issuer + "\x00\x00" + who.TokenID
	}
	return who.Issuer + "\x00" + who.Subject
}

// restrict bounds a request to what a grant lets be read. An error says that nothing of what it asks for may be.
func (r *request) restrict(grant *auth.Grant) error {
	if grant.Everything() {
		return nil
	}
	now := time.Now()
	bounds, some := make([]fanout.Bound, len(r.Topics)), false
	for i, t := range r.Topics {
		rows, history, bounded := grant.Rows(t)
		b := fanout.Bound{Filter: rows}
		if bounded {
			b.Since = now.Add(-history)
		}
		if stream.And(rows, r.Filter).None() {
			return r.foreign(t, rows)
		}
		bounds[i], some = b, some || bounded || !rows.All()
	}
	r.Owner = owner(grant.Identity())
	if r.Bounds = nil; some {
		r.Bounds, r.at = bounds, now
	}
	return nil
}

// foreign returns the error for a request that asks for rows of a topic that aren't granted.
func (r *request) foreign(topic string, rows stream.Filter) error {
	field := r.topicField
	switch {
	case len(r.Filter.Keys) > 0 && stream.And(rows, stream.Filter{Keys: r.Filter.Keys}).None():
		field = "key" + r.plural
	case len(r.Filter.Types) > 0:
		field = "type" + r.plural
	}
	return &stream.Error{Kind: stream.Forbidden, Field: field, Detail: "what is asked for of topic " + topic + " may not be read with this token"}
}
