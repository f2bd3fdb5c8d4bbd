package auth

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/goodgo/streamgw/internal/stream"
)

const (
	// TicketLife is how long a ticket opens streams.
	TicketLife = 30 * time.Second

	// maxTicketBytes bounds what is sealed in a ticket: it stands in an address, whose length proxies bound.
	maxTicketBytes = 4 << 10

	leastTicketSecret = 32 // bytes

	// SessionCookie is the cookie that lets a browser's own reconnect in, whose address has a ticket that has run out.
	SessionCookie = "streamgw-session"
)

// sealer makes tickets and opens them. Whoever hasn't the secret can neither read nor make one.
type sealer struct {
	tickets, sessions []cipher.AEAD // of each secret; the first one seals
}

func newSealer(path string) (*sealer, error) {
	raw, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	s := &sealer{}
	for line := range bytes.SplitSeq(raw, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if len(line) < leastTicketSecret {
			return nil, fmt.Errorf("%s: a secret has %d bytes; %d are the least, such as `openssl rand -base64 32` gives", path, len(line), leastTicketSecret)
		}
		for _, of := range []struct {
			purpose string
			to      *[]cipher.AEAD
		}{{"streamgw ticket 1", &s.tickets}, {"streamgw session 1", &s.sessions}} {
			key, err := hkdf.Key(sha256.New, line, nil, of.purpose, chacha20poly1305.KeySize)
			if err != nil {
				return nil, err
			}
			aead, err := chacha20poly1305.NewX(key) // its nonces are long enough to be drawn, on any number of replicas
			if err != nil {
				return nil, err
			}
			*of.to = append(*of.to, aead)
		}
	}
	if len(s.tickets) == 0 {
		return nil, fmt.Errorf("%s: is empty", path)
	}
	return s, nil
}

func seal(with cipher.AEAD, what any) (string, error) {
	plain, err := json.Marshal(what)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, with.NonceSize())
	_, _ = rand.Read(nonce) // it never fails
	return base64.RawURLEncoding.EncodeToString(with.Seal(nonce, nonce, plain, nil)), nil
}

func open(with []cipher.AEAD, sealed string) (plain []byte, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return nil, false
	}
	for _, aead := range with {
		if n := aead.NonceSize(); len(raw) > n {
			if plain, err := aead.Open(nil, raw[:n], raw[n:], nil); err == nil {
				return plain, true
			}
		}
	}
	return nil, false
}

// Ticket is what stands in the address of an EventSource in place of a token.
type Ticket struct {
	Text    string
	Expires time.Time
}

// ticketBody is what is sealed in one: the token's claims, so that the grant is made anew with the policies as they are,
// and what its key is known by, so that it ends with the key.
type ticketBody struct {
	Claims json.RawMessage `json:"c"` // as they came: a number that is written otherwise may mean something else
	Key    []byte          `json:"k"` // a fingerprint
	Until  int64           `json:"u"` // Unix seconds
	Topics []string        `json:"t,omitempty"`
}

// Ticket returns a ticket for a grant, good for some of its topics, or for all if none are named. Errors are
// [stream.Error]: NotFound if there are no tickets, Forbidden for a topic that the grant hasn't, or a grant that is by
// ticket, TooLarge if the token's claims are too many.
func (a *Access) Ticket(g *Grant, topics []string) (t Ticket, err error) {
	switch {
	case a.tickets == nil:
		return t, ErrNoTickets
	case g.ticket || g.token == nil:
		return t, stream.Errorf(stream.Forbidden, "a ticket is given for a token alone")
	}
	for _, topic := range topics {
		if !g.MayRead(topic) {
			return t, &stream.Error{Kind: stream.Forbidden, Field: "topic", Detail: "topic " + topic + " may not be read with this token"}
		}
	}
	t.Expires = a.now().Add(TicketLife).Truncate(time.Second)
	if t.Expires.After(g.who.Ends) {
		t.Expires = g.who.Ends.Truncate(time.Second)
	}
	t.Text, err = seal(a.tickets.tickets[0], ticketBody{g.token.raw, g.token.print[:], t.Expires.Unix(), topics})
	if err == nil && len(t.Text) > maxTicketBytes {
		err = stream.Errorf(stream.TooLarge, "the token's claims and the topics are too many for a ticket, which stands in an address")
	}
	return t, err
}

// sessionBody is what is sealed in the cookie.
type sessionBody struct {
	Issuer  string `json:"i"`
	Subject string `json:"s"`
	Until   int64  `json:"u"` // Unix seconds
}

// Session returns the cookie that goes with a grant, without its path: with it a ticket of the same subject opens streams also when its
// time is over, until the grant ends. Alone it opens nothing. It is nil where there are no tickets or no subject.
func (a *Access) Session(g *Grant) (*http.Cookie, error) {
	if a.tickets == nil || g.who == nil || g.who.Subject == "" {
		return nil, nil
	}
	text, err := seal(a.tickets.sessions[0], sessionBody{g.who.Issuer, g.who.Subject, g.who.Ends.Unix()})
	if err != nil {
		return nil, err
	}
	return &http.Cookie{Name: SessionCookie, Value: text, Expires: g.who.Ends, HttpOnly: true, SameSite: http.SameSiteStrictMode}, nil
}

// FreshTicket reports whether a ticket brought the grant whose own time isn't over.
func (g *Grant) FreshTicket() bool { return g.ticket && g.fresh }

var errBadTicket = stream.Errorf(stream.Unauthorized, "the ticket isn't one of this gateway's")

// redeem returns the grant of a request's ticket.
func (a *Access) redeem(r *http.Request, sealed string) (*Grant, error) {
	if a.tickets == nil {
		return nil, ErrNoTickets
	}
	if len(sealed) > maxTicketBytes {
		return nil, errBadTicket
	}
	plain, ok := open(a.tickets.tickets, sealed)
	if !ok {
		return nil, errBadTicket
	}
	u, body, err := readTicket(plain)
	if err != nil {
		return nil, errBadTicket
	}
	is := a.verifier.issuers[u.named.Issuer]
	if is == nil {
		return nil, refusal("comes from an issuer that isn't one of this gateway's (iss)")
	}
	if err := is.claims.Validate(u.named); err != nil {
		return nil, claimsRefusal(u.named, err)
	}
	if err := is.stands(r.Context(), fingerprint(body.Key)); err != nil {
		return nil, err
	}
	t, now := newToken(u), a.now()
	fresh := now.Before(time.Unix(body.Until, 0))
	if !fresh && !a.inSession(r, t, now) {
		return nil, ErrTicketExpired
	}
	g, err := a.grant(t)
	if err != nil {
		return nil, err
	}
	g.ticket, g.fresh, g.only = true, fresh, body.Topics
	return g, nil
}

// readTicket reads what was sealed, and is ours therefore.
func readTicket(plain []byte) (u *unverified, body ticketBody, err error) {
	if err := json.Unmarshal(plain, &body); err != nil {
		return nil, body, err
	}
	if len(body.Key) != len(fingerprint{}) {
		return nil, body, errors.New("has no key")
	}
	u = &unverified{raw: body.Claims}
	if u.claims, err = readObject(u.raw); err != nil {
		return nil, body, err
	}
	return u, body, u.readClaims()
}

// inSession reports whether a request has the cookie that goes with a ticket.
func (a *Access) inSession(r *http.Request, t *Token, now time.Time) bool {
	for _, c := range r.CookiesNamed(SessionCookie) {
		plain, ok := open(a.tickets.sessions, c.Value)
		var s sessionBody
		if ok && json.Unmarshal(plain, &s) == nil && t.Subject != "" && s.Issuer == t.Issuer && s.Subject == t.Subject && now.Unix() < s.Until {
			return true
		}
	}
	return false
}
