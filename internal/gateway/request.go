package gateway

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// maxFilterValues bounds the keys, and the types, of one subscription.
const maxFilterValues = 1000

// request is what a client asked of a stream, checked.
type request struct {
	fanout.Request // without Format and Waker, which are the transport's

	at time.Time // when what may be read was looked up: Bounds are as far back from here as is granted

	topicField     string // the parameter or member that Topics were taken from
	positionField  string // the parameter, header or member that From was taken from
	plural         string // as in wish
	record         bool   // format=record
	named          bool   // event=type
	heartbeatEvent bool   // heartbeat=event
}

// wish is what a client asked for, as the query or a subscribe frame has it. A nil pointer is a parameter not given.
type wish struct {
	topics, keys, types []string
	from                *string
	lastEventID         string // of the header, or else of lastEventId; "" is none, as JavaScript clients send it
	lastEventIDField    string
	format, slow        *string

	plural string // "s" in frames, whose lists are named topics, keys and types
}

// notYet are parameters of the design that this version doesn't have.
var notYet = []string{"snapshot", "filter", "skip", "conflate", "cloudevents"}

// credentials are the parameters that say who asks: they are for access to read.
var credentials = []string{auth.QueryToken, auth.QueryTicket}

// repeatable are the parameters that may be given more than once, for OR.
var repeatable = []string{"topic", "key", "type"}

// parseRequest reads the request of a stream from its query and headers. Its errors are [stream.Error] and name the
// field at fault. sse allows the parameters that only mean something there. A request without a topic has no Topics
// and is only complete for a WebSocket.
func (g *Gateway) parseRequest(r *http.Request, grant *auth.Grant, sse bool) (request, error) {
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return request{}, err
	}
	var req request
	w := wish{topics: query["topic"], keys: query["key"], types: query["type"]}
	for name := range query {
		value := query.Get(name)
		var err error
		switch name {
		case "topic", "key", "type", "lastEventId", auth.QueryToken, auth.QueryTicket: // taken elsewhere
		case "from":
			w.from = &value
		case "format":
			w.format = &value
		case "slow":
			w.slow = &value
		case "heartbeat":
			req.heartbeatEvent, err = choose(name, value, "comment", "event")
		case "event":
			req.named, err = chooseSSE(sse, name, value, "type")
		case "refuse":
			_, err = chooseSSE(sse, name, value, "stream")
		default:
			err = unknownParameter(name)
		}
		if err != nil {
			return request{}, err
		}
	}
	if w.lastEventID, w.lastEventIDField, err = lastEventID(r.Header, query); err != nil {
		return request{}, err
	}
	if len(w.topics) == 0 && w.asksForEvents() {
		return request{}, stream.BadField("topic", "no topic is given")
	}
	err = g.fill(&req, w, grant)
	return req, err
}

// parseQuery is strict where [url.ParseQuery] drops what it can't read, and refuses a repeated single parameter.
func parseQuery(raw string) (url.Values, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &stream.Error{Kind: stream.BadRequest, Field: "query", Detail: "the query is malformed: " + err.Error()}
	}
	for name, values := range query {
		if len(values) > 1 && !slices.Contains(repeatable, name) {
			return nil, stream.BadField(shorten(cmp.Or(name, "query")), "is given %d times", len(values))
		}
	}
	return query, nil
}

func unknownParameter(name string) error {
	switch {
	case name == "":
		return stream.BadField("query", "a parameter has no name")
	case slices.Contains(notYet, name):
		return stream.BadField(name, "isn't in this version")
	default:
		return stream.BadField(shorten(name), "there is no such parameter")
	}
}

// lastEventID returns the position that a reconnecting client sends, and where it stood. The header wins.
func lastEventID(h http.Header, query url.Values) (id, field string, err error) {
	const header = "Last-Event-ID"
	for _, v := range h.Values(header) {
		if v == "" {
			continue
		}
		if id != "" {
			return "", "", stream.BadField(header, "is given more than once")
		}
		id, field = v, header
	}
	if id == "" {
		id, field = query.Get("lastEventId"), "lastEventId"
	}
	return id, field, nil
}

func (w *wish) asksForEvents() bool {
	return len(w.keys)+len(w.types) > 0 || w.from != nil || w.lastEventID != "" || w.format != nil || w.slow != nil
}

// fill checks a wish and puts it into req.
func (g *Gateway) fill(req *request, w wish, grant *auth.Grant) (err error) {
	req.topicField, req.plural = "topic"+w.plural, w.plural
	if len(w.topics) > 0 {
		if req.Topics, err = g.checkTopics(w.topics, req.topicField, grant); err != nil {
			return err
		}
	}
	if req.Filter, err = checkFilter(w); err != nil {
		return err
	}
	if req.From, req.positionField, err = w.start(); err != nil {
		return err
	}
	if err := req.restrict(grant); err != nil {
		return err
	}
	if w.format != nil {
		if req.record, err = choose("format", *w.format, "value", "record"); err != nil {
			return err
		}
	}
	req.Slow = fanout.SlowReplay
	if w.slow != nil {
		closes, err := choose("slow", *w.slow, string(fanout.SlowReplay), string(fanout.SlowClose))
		if err != nil {
			return err
		}
		if closes {
			req.Slow = fanout.SlowClose
		}
	}
	return nil
}

// checkTopics returns the topics, each once. One that may not be served is answered like one that doesn't exist.
func (g *Gateway) checkTopics(topics []string, field string, grant *auth.Grant) ([]string, error) {
	if len(topics) > g.cfg.MaxTopics {
		return nil, stream.BadField(field, "%d topics are more than the %d that a subscription may have", len(topics), g.cfg.MaxTopics)
	}
	var unique []string
	for _, t := range topics {
		switch {
		case grant == nil:
			return nil, errNoAuthYet
		case t == "":
			return nil, stream.BadField(field, "is empty")
		case strings.Contains(t, "*"):
			return nil, stream.BadField(field, "patterns (%s) aren't in this version", shorten(t))
		case !stream.ValidTopic(t):
			return nil, stream.BadField(field, "%q can't be a topic's name", shorten(t))
		case stream.InternalTopic(t) || !g.cfg.Served(t):
			return nil, &stream.Error{Kind: stream.NotFound, Field: field, Detail: "there is no topic " + t}
		case !grant.MayRead(t):
			return nil, &stream.Error{Kind: stream.Forbidden, Field: field, Detail: "topic " + t + " may not be read with this token"}
		}
		if !slices.Contains(unique, t) {
			unique = append(unique, strings.Clone(t)) // the stream isn't to hold the whole request line
		}
	}
	return unique, nil
}

func checkFilter(w wish) (stream.Filter, error) {
	if len(w.keys) > maxFilterValues {
		return stream.Filter{}, stream.BadField("key"+w.plural, "more than %d are given", maxFilterValues)
	}
	if len(w.types) > maxFilterValues {
		return stream.Filter{}, stream.BadField("type"+w.plural, "more than %d are given", maxFilterValues)
	}
	if slices.Contains(w.types, "") {
		return stream.Filter{}, stream.BadField("type"+w.plural, "is empty")
	}
	return stream.Filter{Keys: cloned(w.keys), Types: cloned(w.types)}, nil
}

// cloned returns texts that don't hold the request that they come from.
func cloned(list []string) []string {
	var own []string
	for _, s := range list {
		own = append(own, strings.Clone(s))
	}
	return own
}

// choose returns whether value is the second of two words, and an error that tells both when it is neither.
func choose(field, value, first, second string) (bool, error) {
	switch {
	case value == first:
		return false, nil
	case value == second:
		return true, nil
	case slices.Contains(notYet, value):
		return false, stream.BadField(field, "%s isn't in this version; it is %s or %s", value, first, second)
	default:
		return false, stream.BadField(field, "is %q; it is %s or %s", shorten(value), first, second)
	}
}

// chooseSSE returns true for the one word that a parameter of SSE alone may have.
func chooseSSE(sse bool, field, value, word string) (bool, error) {
	if !sse {
		return false, stream.BadField(field, "only means something for text/event-stream")
	}
	if value != word {
		return false, stream.BadField(field, "is %q; it is %s or absent", shorten(value), word)
	}
	return true, nil
}

// shorten keeps what a client sent from filling the answer.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
