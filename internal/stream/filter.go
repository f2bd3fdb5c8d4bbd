package stream

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
)

// Filter says which messages a subscription wants, or a grant lets it have. The zero value wants all. Keys and Types are
// each an OR; they, each of Where and the OR of Any are together an AND.
type Filter struct {
	Keys  []string // record keys, byte for byte; a record without a key matches none
	Types []string // event types
	Where []Predicate
	Any   []Filter

	nothing bool // wants no message, whatever else is said
}

// Nothing wants no message.
var Nothing = Filter{nothing: true}

// None reports whether f wants no message. It is exact for canonical filters, but for what their predicates say.
func (f Filter) None() bool { return f.nothing }

// All reports whether f wants every message.
func (f Filter) All() bool {
	return !f.nothing && len(f.Keys) == 0 && len(f.Types) == 0 && len(f.Where) == 0 &&
		(len(f.Any) == 0 || slices.ContainsFunc(f.Any, Filter.All))
}

// String returns a text that is equal for equal canonical filters only.
func (f Filter) String() string { return string(f.appendText(nil)) }

func (f Filter) appendText(b []byte) []byte {
	if f.nothing {
		return append(b, '!')
	}
	for _, list := range [][]string{f.Keys, f.Types} {
		for _, s := range list {
			b = appendQuoted(b, s)
		}
		b = append(b, '/')
	}
	for _, p := range f.Where {
		b = appendQuoted(b, p.String())
	}
	for _, g := range f.Any {
		b = append(b, '(')
		b = g.appendText(b)
		b = append(b, ')')
	}
	return b
}

// appendQuoted is [strconv.AppendQuote], which makes room for no more than it needs: of thousands of keys each would move
// all before it.
func appendQuoted(b []byte, s string) []byte { return strconv.AppendQuote(slices.Grow(b, len(s)+2), s) }

// Match reports whether f wants m.
func (f Filter) Match(m *Message) bool { return f.Matches(m, m.EventType) }

// Matches is Match for who keeps the type of m's event. It is asked for only where it decides, and before predicates are.
func (f Filter) Matches(m *Message, eventType func() string) bool {
	if f.nothing || !f.hasKey(m.Key) || len(f.Types) > 0 && !slices.Contains(f.Types, eventType()) {
		return false
	}
	for _, p := range f.Where {
		if !p.Match(m) {
			return false
		}
	}
	return len(f.Any) == 0 || slices.ContainsFunc(f.Any, func(g Filter) bool { return g.Matches(m, eventType) })
}

func (f Filter) hasKey(key []byte) bool {
	return len(f.Keys) == 0 || key != nil && slices.Contains(f.Keys, string(key))
}

// MatchKey reports whether f may want a message of this record key, nil for none, whatever else is in it.
func (f Filter) MatchKey(key []byte) bool {
	return !f.nothing && f.hasKey(key) &&
		(len(f.Any) == 0 || slices.ContainsFunc(f.Any, func(g Filter) bool { return g.MatchKey(key) }))
}

// MatchType reports whether f may want a message of this event type, whatever else is in it.
func (f Filter) MatchType(eventType string) bool {
	return !f.nothing && (len(f.Types) == 0 || slices.Contains(f.Types, eventType)) &&
		(len(f.Any) == 0 || slices.ContainsFunc(f.Any, func(g Filter) bool { return g.MatchType(eventType) }))
}

// Index returns where a canonical filter stands in an index from messages to filters: each message that f wants has one of
// these keys or one of these types. ok is false if that can't be said, and f is to be asked about every message. Neither
// list has repeats, but a message may be found by both.
func (f Filter) Index() (keys, types []string, ok bool) {
	switch {
	case f.nothing:
		return nil, nil, true
	case len(f.Keys) > 0:
		return f.Keys, nil, true
	case len(f.Types) > 0:
		return nil, f.Types, true
	}
	for _, g := range f.Any {
		k, t, ok := g.Index()
		if !ok {
			return nil, nil, false
		}
		keys, types = append(keys, k...), append(types, t...)
	}
	return sorted(keys), sorted(types), len(f.Any) > 0
}

// EventType returns the type of the event that m carries: its header event-type or ce_type, else the eventType of its
// JSON envelope, else "".
func (m *Message) EventType() string {
	for i := range m.Headers {
		if name := m.Headers[i].Name; name == "event-type" || name == "ce_type" {
			return string(m.Headers[i].Value)
		}
	}
	if len(m.Value) == 0 || m.Value[0] != '{' && !isSpace(m.Value[0]) || !bytes.Contains(m.Value, []byte(`"eventType"`)) {
		return ""
	}
	var envelope map[string]json.RawMessage // a struct would match names without regard to case
	if json.Unmarshal(m.Value, &envelope) != nil {
		return ""
	}
	var eventType string
	if json.Unmarshal(envelope["eventType"], &eventType) != nil {
		return ""
	}
	return eventType
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
