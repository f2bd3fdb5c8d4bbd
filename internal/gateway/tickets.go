package gateway

import (
	"net/http"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
)

// ticketInfo is the answer to POST /v1/tickets.
type ticketInfo struct {
	Ticket  string    `json:"ticket"`
	Expires time.Time `json:"expires"`
}

// serveTickets answers POST /v1/tickets?topic=T: what an EventSource's address has in place of a token, which it can't
// send. Without a topic it is for all that the token grants.
func (g *Gateway) serveTickets(w http.ResponseWriter, r *http.Request) {
	if err := g.ask(r); err != nil {
		g.refuse(w, r, err)
		return
	}
	grant, err := g.access.Admit(r)
	var topics []string
	if err == nil {
		topics, err = g.ticketTopics(r, grant)
	}
	var ticket auth.Ticket
	if err == nil {
		ticket, err = g.access.Ticket(grant, topics)
	}
	if err == nil {
		err = g.setSession(w, r, grant)
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, ticketInfo{ticket.Text, ticket.Expires.UTC()})
}

func (g *Gateway) ticketTopics(r *http.Request, grant *auth.Grant) ([]string, error) {
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	for name := range query {
		if name != "topic" && name != auth.QueryToken {
			return nil, unknownParameter(name)
		}
	}
	if len(query["topic"]) == 0 {
		return nil, nil
	}
	return g.checkTopics(query["topic"], "topic", grant)
}

// setSession gives a browser the cookie that lets it reconnect by itself with the address that it has.
func (g *Gateway) setSession(w http.ResponseWriter, r *http.Request, grant *auth.Grant) error {
	c, err := g.access.Session(grant)
	if c == nil || err != nil {
		return err
	}
	c.Path = forwardedPrefix(r) + "/v1/events"
	c.Secure = r.TLS != nil || forwardedTLS(r)
	http.SetCookie(w, c)
	return nil
}

// keepSession does so where a stream begins with a ticket: the page that got it may not have let its cookie in.
func (g *Gateway) keepSession(w http.ResponseWriter, r *http.Request, grant *auth.Grant) error {
	if !grant.FreshTicket() {
		return nil
	}
	return g.setSession(w, r, grant)
}

// forwardedTLS reports whether some proxy says that TLS was spoken. A client that says so itself only spoils its own cookie.
func forwardedTLS(r *http.Request) bool {
	said := strings.ToLower(strings.Join(r.Header.Values("X-Forwarded-Proto"), ","))
	forwarded := strings.ToLower(strings.Join(r.Header.Values("Forwarded"), ","))
	return strings.Contains(said, "https") || strings.Contains(forwarded, "proto=https") || strings.Contains(forwarded, `proto="https"`)
}

// forwardedPrefix returns what a proxy has stripped off the path, as Traefik's StripPrefix says it. A client that says so
// itself only spoils its own cookie.
func forwardedPrefix(r *http.Request) string {
	p := r.Header.Get("X-Forwarded-Prefix")
	if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, ";,\r\n\"") {
		return ""
	}
	return strings.TrimRight(p, "/")
}
