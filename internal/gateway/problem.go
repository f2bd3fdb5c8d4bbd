package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// problem is what a client is told of a failure (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Field  string `json:"field,omitempty"` // the parameter, header or frame member at fault

	close websocket.StatusCode
}

// WebSocket close codes of our own (RFC 6455 section 7.4.2 leaves 4000 to 4999 to applications).
const (
	closeToken      websocket.StatusCode = 4401
	closeNotAllowed websocket.StatusCode = 4403
	closeTooSlow    websocket.StatusCode = 4408
)

func newProblem(name, title string, status int, close websocket.StatusCode) problem {
	return problem{Type: "urn:streamgw:problem:" + name, Title: title, Status: status, close: close}
}

// problems has a row for every kind of error. Types are names, not addresses: they are stable and lead nowhere.
var problems = map[stream.Kind]problem{
	stream.Internal:     newProblem("internal", "Internal error", http.StatusInternalServerError, websocket.StatusInternalError),
	stream.BadRequest:   newProblem("bad-request", "The request can't be understood", http.StatusBadRequest, websocket.StatusPolicyViolation),
	stream.BadPosition:  newProblem("bad-position", "The position can't be used", http.StatusBadRequest, websocket.StatusPolicyViolation),
	stream.NotFound:     newProblem("not-found", "There is no such topic", http.StatusNotFound, websocket.StatusPolicyViolation),
	stream.Unauthorized: newProblem("unauthorized", "A valid token is needed", http.StatusUnauthorized, closeToken),
	stream.Forbidden:    newProblem("forbidden", "This isn't allowed", http.StatusForbidden, closeNotAllowed),
	stream.TooLarge:     newProblem("too-large", "Too many bytes", http.StatusRequestEntityTooLarge, websocket.StatusMessageTooBig),
	stream.TooMany:      newProblem("too-many", "Over a limit", http.StatusTooManyRequests, websocket.StatusTryAgainLater),
	stream.Unavailable:  newProblem("unavailable", "Not available now", http.StatusServiceUnavailable, websocket.StatusTryAgainLater),
	stream.Overloaded:   newProblem("overloaded", "This gateway is at its bounds", http.StatusServiceUnavailable, websocket.StatusTryAgainLater),
	stream.TooSlow:      newProblem("too-slow", "The client was too slow", http.StatusRequestTimeout, closeTooSlow),
}

// Problems of HTTP itself, which have no kind.
var (
	noSuchPath    = newProblem("no-such-path", "There is nothing at this path", http.StatusNotFound, 0)
	wrongMethod   = newProblem("method-not-allowed", "This path doesn't take this method", http.StatusMethodNotAllowed, 0)
	notAcceptable = newProblem("not-acceptable", "None of the accepted media types can be had", http.StatusNotAcceptable, 0)
	needsUpgrade  = newProblem("upgrade-required", "This path is for WebSocket", http.StatusUpgradeRequired, 0)
)

// problemOf returns what a client is told of err. Of what isn't a [stream.Error] it is told nothing.
func problemOf(err error) problem {
	e, ok := errors.AsType[*stream.Error](err)
	if !ok || e.Kind == stream.Internal {
		p := problems[stream.Internal]
		p.Detail = "internal error"
		return p
	}
	p, ok := problems[e.Kind]
	if !ok {
		p = problems[stream.Internal]
	}
	p.Detail, p.Field = e.Detail, e.Field
	return p
}

func (p problem) with(detail string) problem {
	p.Detail = detail
	return p
}

// passing reports whether the same request may succeed a little later.
func (p problem) passing() bool {
	return p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable
}

func (p problem) append(dst []byte) []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and a number
	}
	return append(dst, b...)
}

func (p problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(p.append(nil), '\n')) // the client is gone
}

// refuse answers a request that can't be served. An EventSource gives up for good on an error status, so a refusal
// that will pass is told to it as a stream of an error event, which it retries.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return // nobody is there
	}
	p := problemOf(err)
	g.noteRefusal(r.URL.Path, p, err)
	if errors.Is(err, auth.ErrTicketExpired) && wantsStream(r) {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent) // which ends an EventSource for good: its page takes a new ticket
		return
	}
	retry := g.retry(g.cfg.RetrySpread)
	if p.passing() && wantsStreamedRefusal(r) {
		out := g.newStreamWriter(w, r)
		out.open(sseType)
		b := sse{}.appendRestart(nil, retry)
		_ = out.write(sse{}.appendError(b, "", p)) // the client is gone
		return
	}
	h := w.Header()
	if p.passing() {
		h.Set("Retry-After", strconv.Itoa(int(retry.Seconds())+1))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	p.write(w)
}

// noteRefusal counts a refusal, and logs its cause where that is a fault of ours: the client isn't told. Of a fault of the
// client's only the kind is logged: its details hold what the client has sent, which may be a token in a wrong place.
func (g *Gateway) noteRefusal(of string, p problem, err error) {
	g.metrics.refused(p)
	switch {
	case errors.Is(err, fanout.ErrFilters):
		g.metrics.limited.WithLabelValues("filters").Inc()
	case errors.Is(err, fanout.ErrScans):
		g.metrics.limited.WithLabelValues("scans").Inc()
	case errors.Is(err, fanout.ErrReplays):
		g.metrics.limited.WithLabelValues("replaysPerSubject").Inc()
	}
	switch {
	case p.Status == http.StatusInternalServerError:
		g.cfg.Log.Error("request refused", "of", of, "error", err)
	case p.Status > http.StatusInternalServerError:
		g.cfg.Log.Debug("request refused", "of", of, "status", p.Status, "error", err)
	default:
		g.cfg.Log.Debug("request refused", "of", of, "status", p.Status, "problem", p.name())
	}
}

// wantsStreamedRefusal reports whether a request is an EventSource's of a browser, or says that it is like one.
func wantsStreamedRefusal(r *http.Request) bool {
	return wantsStream(r) && (r.Header.Get("Sec-Fetch-Mode") != "" || r.URL.Query().Get("refuse") == "stream")
}

// wantsStream reports whether a request is for Server-Sent Events.
func wantsStream(r *http.Request) bool {
	kind, err := negotiate(r)
	return err == nil && kind == sseType && r.URL.Path == "/v1/events"
}
