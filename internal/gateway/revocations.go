package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// mostListed bounds the connections that one answer lists.
const mostListed = 1000

// connectionInfo is what GET /v1/connections tells of one.
type connectionInfo struct {
	Transport string    `json:"transport"`
	Issuer    string    `json:"issuer"`
	Subject   string    `json:"subject"`
	TokenID   string    `json:"tokenId,omitempty"`
	Opened    time.Time `json:"opened"`
	Expires   time.Time `json:"expires"`
}

// serveConnections answers GET /v1/connections: whose streams this replica has. Those that needed no token are only counted.
func (g *Gateway) serveConnections(w http.ResponseWriter, r *http.Request) {
	about, err := aboutWhom(r)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	infos := []connectionInfo{}
	matching := 0
	g.leases.each(func(l *lease) {
		who := l.who.Load()
		if about.Issuer != "" && about.Issuer != who.Issuer || about.Subject != "" && about.Subject != who.Subject || about.TokenID != "" && about.TokenID != who.TokenID {
			return
		}
		if matching++; len(infos) < mostListed {
			infos = append(infos, connectionInfo{l.of.transport.name, who.Issuer, who.Subject, who.TokenID, l.opened.UTC(), who.Ends.UTC()})
		}
	})
	slices.SortFunc(infos, func(a, b connectionInfo) int { return a.Opened.Compare(b.Opened) })
	writeJSON(w, http.StatusOK, map[string]any{"open": g.limiter.count(), "matching": matching, "connections": infos})
}

// aboutWhom reads the parameters that say whose connections are meant.
func aboutWhom(r *http.Request) (about auth.Revocation, err error) {
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return about, err
	}
	for name := range query {
		switch value := query.Get(name); {
		case name == "issuer":
			about.Issuer = value
		case name == "subject":
			about.Subject = value
		case name == "tokenId":
			about.TokenID = value
		case name == "until" && r.Method == http.MethodDelete:
			if about.Until, err = time.Parse(time.RFC3339, value); err != nil {
				return about, stream.BadField(name, "isn't a time such as 2030-01-31T12:00:00Z (RFC 3339)")
			}
		default:
			return about, unknownParameter(name)
		}
		if query.Get(name) == "" {
			return about, stream.BadField(name, "is empty")
		}
	}
	return about, nil
}

// revokedFor is how long a revocation holds that says nothing else: longer than tokens are good for.
const revokedFor = 30 * 24 * time.Hour

// serveRevoke answers DELETE /v1/connections?subject=S or ?tokenId=J, each with &issuer=I or not: the connections of that
// subject or token end here, and with a topic of revocations on every replica. A token of that id is refused from now on; of
// the subject, those that were issued until now.
func (g *Gateway) serveRevoke(w http.ResponseWriter, r *http.Request) {
	revocation, err := aboutWhom(r)
	if err == nil && (revocation.Subject == "") == (revocation.TokenID == "") {
		err = stream.BadField("subject", "say subject or tokenId, one of them")
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	revocation.At = g.access.Now().UTC()
	if revocation.Until.IsZero() {
		revocation.Until = revocation.At.Add(revokedFor).Truncate(time.Second)
	}
	if !revocation.Until.After(revocation.At) {
		g.refuse(w, r, stream.BadField("until", "is over already"))
		return
	}
	revocation, closed, err := g.revoke(revocation)
	if err == nil {
		err = g.publishRevocation(r.Context(), revocation)
	}
	if err != nil {
		g.refuse(w, r, &stream.Error{Kind: stream.Unavailable, Err: err,
			Detail: "the revocation holds on this replica alone, or not at all; send it again"})
		return
	}
	g.cfg.Log.Info("revoked", "issuer", revocation.Issuer, "subject", revocation.Subject, "tokenId", revocation.TokenID, "closed", closed, "until", revocation.Until)
	writeJSON(w, http.StatusOK, map[string]any{"closed": closed, "until": revocation.Until.UTC()})
}

// revoke has tokens refused, and ends the connections that were opened with them. holds is what other replicas are to be told.
func (g *Gateway) revoke(r auth.Revocation) (holds auth.Revocation, closed int, err error) {
	holds, err = g.access.Revoke(r)
	g.leases.each(func(l *lease) {
		if r.Covers(l.who.Load()) {
			l.revoke()
			closed++
		}
	})
	return holds, closed, err
}

func (g *Gateway) publishRevocation(ctx context.Context, r auth.Revocation) error {
	if g.cfg.Revocations == "" {
		return nil
	}
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = g.cfg.Publisher.Publish(ctx, []stream.Record{{Topic: g.cfg.Revocations, Key: []byte(r.Key()), Value: value}})
	return err
}

// revocationRetry is how long after a failure the topic of revocations is read again.
const revocationRetry = 2 * time.Second

// followRevocations takes over what any replica has revoked, all of it before the gateway is ready, until ctx ends.
func (g *Gateway) followRevocations(ctx context.Context) {
	if g.cfg.Revocations == "" {
		return
	}
	for ctx.Err() == nil {
		err := g.readRevocations(ctx)
		if ctx.Err() == nil {
			g.cfg.Log.Error("revocations can't be read; those that are known hold", "topic", g.cfg.Revocations, "error", err)
			why := err.Error()
			g.following.fault.Store(&why)
		}
		select {
		case <-ctx.Done():
		case <-time.After(revocationRetry):
		}
	}
}

func (g *Gateway) readRevocations(ctx context.Context) error {
	topic, err := g.topics.topics.Lookup(ctx, g.cfg.Revocations)
	if err != nil {
		return err
	}
	woken := make(fanout.Bell, 1)
	from := fanout.From{At: stream.Earliest}
	if at := g.following.at; at != nil { // what was restored since would be revoked again for a while, and the other way round
		from = fanout.From{Position: at}
	}
	sub, err := g.hubs.subscribe(ctx, fanout.Request{Topics: []string{g.cfg.Revocations}, From: from, Format: -1, Waker: woken})
	if err != nil {
		return err
	}
	defer sub.Close()
	batch := new(fanout.Batch)
	for {
		err := sub.Poll(batch)
		for _, item := range batch.Items {
			if item.Message != nil {
				g.takeRevocation(item.Message)
			} else {
				g.cfg.Log.Error("revocations are lost", "gap", *item.Gap)
			}
		}
		if err != nil {
			return err
		}
		if batch.More {
			continue
		}
		sub.Progress()
		if at, err := stream.ParsePosition(sub.Position()); err == nil { // it is of our own making
			if g.following.at = &at; covers(at, topic) {
				g.following.known.Store(true)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-woken:
		}
	}
}

// covers reports whether a position is at or behind the end that a topic had.
func covers(p stream.Position, topic stream.Topic) bool {
	at, ok := p.Topic(topic.Name)
	if !ok {
		return false
	}
	for i, end := range topic.End {
		if i >= len(at.Next) || at.Next[i] < end {
			return false
		}
	}
	return true
}

func (g *Gateway) takeRevocation(m *stream.Message) {
	if m.Value == nil {
		g.access.Restore(string(m.Key))
		return
	}
	r, err := auth.ParseRevocation(m.Value)
	if err == nil && r.Key() != string(m.Key) {
		err = errors.New("has another key than it should")
	}
	if err == nil {
		_, _, err = g.revoke(r)
	}
	if err != nil {
		g.cfg.Log.Error("a revocation can't be taken over", "topic", m.Topic, "partition", m.Partition, "offset", m.Offset, "error", err)
	}
}

// following is how far the topic of revocations was read.
type following struct {
	known atomic.Bool            // all that there was when the gateway began
	fault atomic.Pointer[string] // why not yet
	at    *stream.Position       // up to where, once known; the follower's
}

var errNotKnown = stream.Errorf(stream.Unavailable, "this replica doesn't know yet which tokens were revoked")

// check is one of readiness: a replica that doesn't know what was revoked mustn't let anybody in. Later faults don't make
// it unready, as those of Kafka don't.
func (f *following) check(context.Context) error {
	if f.known.Load() {
		return nil
	}
	if why := f.fault.Load(); why != nil {
		return errors.New(*why)
	}
	return errors.New("not read yet")
}
