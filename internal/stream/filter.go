package stream

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Filter says which messages a subscription wants. The zero value wants all. Keys and Types are each an OR; together an AND.
type Filter struct {
	Keys  []string // record keys, byte for byte; a record without a key matches none
	Types []string // event types
}

// Canonical returns f with its lists sorted and without repeats, so that the same filter is written one way only.
func (f Filter) Canonical() Filter {
	canonical := func(s []string) []string {
		s = slices.Clone(s)
		slices.Sort(s)
		return slices.Compact(s)
	}
	return Filter{canonical(f.Keys), canonical(f.Types)}
}

// All reports whether f wants every message.
func (f Filter) All() bool { return len(f.Keys) == 0 && len(f.Types) == 0 }

// String returns a text that is equal for equal canonical filters only.
func (f Filter) String() string {
	var b strings.Builder
	for _, list := range [][]string{f.Keys, f.Types} {
		for _, s := range list {
			b.WriteString(strconv.Quote(s))
		}
		b.WriteByte('/')
	}
	return b.String()
}

// Match reports whether f wants m.
func (f Filter) Match(m *Message) bool {
	return f.MatchKey(m.Key) && (len(f.Types) == 0 || f.MatchType(m.EventType()))
}

// MatchKey reports whether f wants a record key, nil for none, whatever the type.
func (f Filter) MatchKey(key []byte) bool {
	return len(f.Keys) == 0 || key != nil && slices.Contains(f.Keys, string(key))
}

// MatchType reports whether f wants an event type, whatever the key.
func (f Filter) MatchType(eventType string) bool {
	return len(f.Types) == 0 || slices.Contains(f.Types, eventType)
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
