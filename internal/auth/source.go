package auth

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/goodgo/streamgw/internal/stream"
)

// Where a token may come from, beside the Authorization header.
const (
	QueryToken  = "access_token" // RFC 6750 section 2.3
	QueryTicket = "ticket"

	bearerSubprotocol = "bearer."
)

// credential is what a request says of who sent it. At most one is set.
type credential struct{ token, ticket string }

// credentialOf takes what a request has: the Authorization header before a WebSocket subprotocol, these before the query,
// and a cookie, which browsers send unasked, where nothing else is.
func (a *Access) credentialOf(r *http.Request) (c credential, err error) {
	query := r.URL.Query()
	if c.token, err = authorization(r.Header); c.token != "" || err != nil {
		return c, err
	}
	if c.token, err = subprotocolToken(r.Header); c.token != "" || err != nil {
		return c, err
	}
	for _, name := range []string{QueryToken, QueryTicket} {
		if len(query[name]) > 1 {
			return c, stream.Errorf(stream.Unauthorized, "%s is given more than once", name)
		}
	}
	if a.cfg.Query {
		if c.token = query.Get(QueryToken); c.token != "" {
			return c, nil
		}
	}
	if c.ticket = query.Get(QueryTicket); c.ticket != "" {
		return c, nil
	}
	return a.cookieToken(r)
}

// authorization returns the token of the Authorization header (RFC 6750 section 2.1), "" if there is no such header.
func authorization(h http.Header) (string, error) {
	values := h.Values("Authorization")
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", stream.Errorf(stream.Unauthorized, "there are several Authorization headers")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", stream.Errorf(stream.Unauthorized, "the Authorization header isn't of the form: Bearer TOKEN")
	}
	return token, nil
}

// subprotocolToken returns the token that a WebSocket's client offers as a subprotocol, where pages can't set headers.
func subprotocolToken(h http.Header) (token string, err error) {
	for _, v := range h.Values("Sec-WebSocket-Protocol") {
		for offer := range strings.SplitSeq(v, ",") {
			t, ok := strings.CutPrefix(strings.TrimSpace(offer), bearerSubprotocol)
			switch {
			case !ok:
			case token != "" || t == "":
				return "", stream.Errorf(stream.Unauthorized, "there isn't one token among the WebSocket subprotocols")
			default:
				token = t
			}
		}
	}
	return token, nil
}

// cookieToken returns the token of the configured cookie. Whoever can have a browser send a request can have it send a
// cookie, so the page must be known.
func (a *Access) cookieToken(r *http.Request) (c credential, err error) {
	if a.cfg.Cookie == "" {
		return c, nil
	}
	cookies := r.CookiesNamed(a.cfg.Cookie)
	switch {
	case len(cookies) == 0 || cookies[0].Value == "":
		return c, nil
	case len(cookies) > 1:
		return c, stream.Errorf(stream.Unauthorized, "there are several cookies of the token's name")
	case !a.ownPage(r):
		return c, &stream.Error{Kind: stream.Forbidden, Field: "Origin", Detail: "pages of this origin may not use a token in a cookie"}
	}
	return credential{token: cookies[0].Value}, nil
}

// ownPage reports whether a request comes from a page of the gateway's own origin or of a configured one. A browser that
// says nothing of the page (a GET within one origin has no Origin header) says at least that it is the same.
func (a *Access) ownPage(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return r.Header.Get("Sec-Fetch-Site") == "same-origin"
	}
	if slices.ContainsFunc(a.cfg.Origins, func(o string) bool { return o != "*" && strings.EqualFold(o, origin) }) {
		return true
	}
	return SameHost(origin, r)
}

// SameHost reports whether an Origin header is of the host that a request is for. The gateway doesn't know by which scheme
// it was reached; a browser does, and says whether the origins are the same (Fetch Metadata, Sec-Fetch-Site).
func SameHost(origin string, r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && r.Header.Get("Upgrade") == "" {
		return false // of a WebSocket's handshake browsers don't agree on what to say
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
