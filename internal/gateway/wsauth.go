package gateway

import (
	"slices"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

var errNoAuthYet = stream.Errorf(stream.Unauthorized, "a token is needed first: send an auth frame")

// auth takes a token: the first one, if the handshake brought none, or one that takes the earlier one's place. What the new
// one doesn't grant ends; the rest goes on where it was. A token that doesn't hold changes nothing.
func (s *webSocketSession) auth(f clientFrame) error {
	grant, err := s.g.access.AdmitToken(s.ctx, f.Token)
	if err != nil {
		return s.strike(f, err)
	}
	who := grant.Identity()
	if who == nil { // nobody needs a token here
		return s.do(s.authenticated(who))
	}
	if had := s.grant.Identity(); had != nil && (had.Issuer != who.Issuer || had.Subject != who.Subject) {
		return s.strike(f, errOtherOwner)
	}
	refusal, err := s.ask(func() error { return s.g.limiter.identify(s.visit, owner(who)) })
	if err != nil {
		return err
	}
	if refusal != nil {
		return s.refuse(f, refusal)
	}
	s.grant = grant.Kept()
	if err := s.review(grant); err != nil {
		return err
	}
	return s.do(s.authenticated(who))
}

// authenticated returns the command that answers an auth frame.
func (s *webSocketSession) authenticated(who *auth.Identity) func() error {
	return func() error {
		frames := webSocketFrames{}
		if who == nil {
			s.c.out.buf = frames.appendType(s.c.out.own(), "authenticated")
			return nil
		}
		s.c.renew(who)
		s.c.out.buf = frames.appendLease(s.c.out.own(), "authenticated", who.Ends)
		return nil
	}
}

// review holds each subscription against another grant.
func (s *webSocketSession) review(grant *auth.Grant) error {
	var feeds []*feed
	if err := s.do(func() error {
		feeds = append(feeds, s.c.feeds...)
		return nil
	}); err != nil {
		return err
	}
	for _, f := range feeds {
		req := *f.asked
		_, err := s.g.checkTopics(req.Topics, req.topicField, grant)
		if err == nil {
			err = req.restrict(grant)
		}
		switch {
		case err != nil:
			err = s.do(func() error { return s.lose(f, err) })
		case !sameBounds(f.asked, &req):
			err = s.resubscribe(f, req)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sameBounds reports whether two requests for the same topics may have the same of them, and as far back.
func sameBounds(a, b *request) bool {
	return slices.EqualFunc(a.Bounds, b.Bounds, func(x, y fanout.Bound) bool {
		return x.Filter.String() == y.Filter.String() && x.Since.IsZero() == y.Since.IsZero() &&
			(x.Since.IsZero() || a.at.Sub(x.Since) == b.at.Sub(y.Since))
	})
}

// lose ends a subscription that is no longer granted. It is a command. Without the one that its request asked for, a
// connection ends.
func (s *webSocketSession) lose(f *feed, err error) error {
	if s.find(f.id) != f {
		return nil // it has ended meanwhile
	}
	if f.id == "" {
		return err
	}
	s.c.out.buf = f.frames.appendError(s.c.out.own(), f.sub.Position(), problemOf(err))
	s.c.remove(f)
	return nil
}

// resubscribe has a subscription go on with other bounds, from where it stands. It becomes another feed: the writer looks at
// the one that is.
func (s *webSocketSession) resubscribe(f *feed, req request) error {
	var position string
	err := s.do(func() error {
		if s.find(f.id) == f {
			position = f.sub.Position()
			s.c.remove(f)
		}
		return nil
	})
	if err != nil || position == "" {
		return err
	}
	next := &feed{id: f.id, frames: f.frames}
	at, refusal := stream.ParsePosition(position)
	if refusal == nil {
		req.From = fanout.From{Position: &at}
		refusal = s.g.subscribe(s.ctx, s.c, next, req)
	}
	if refusal != nil {
		return s.do(func() error {
			if f.id == "" {
				return refusal // as in lose
			}
			s.c.out.buf = f.frames.appendError(s.c.out.own(), position, problemOf(refusal))
			return nil
		})
	}
	s.remember(next, req)
	err = s.do(func() error {
		s.c.hold(next)
		next.pending.Store(true)
		return nil
	})
	if err != nil {
		next.sub.Close()
	}
	return err
}
