package harness

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Kind tells what a stream delivers apart.
type Kind int

// The kinds of an Event.
const (
	Message  Kind = iota // a record
	Position             // only where the client stands
	Gap                  // messages that can no longer be had
	Control              // anything else that isn't a record
)

// Event is what a stream delivers, over SSE or WebSocket. Its bytes are good until the next one is read.
type Event struct {
	Kind     Kind
	Name     string // SSE's event field, WebSocket's type
	Data     []byte // the record as its format has it, or the control event's JSON
	Position []byte // "" where the event has none
}

// GapData is what a gap event tells, on both transports.
type GapData struct {
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	Reason    string `json:"reason"`
}

// Gap reads the event's data as a gap.
func (e Event) Gap() (g GapData, err error) {
	if e.Kind != Gap {
		return g, fmt.Errorf("%s isn't a gap: %.200s", e.Name, e.Data)
	}
	return g, json.Unmarshal(e.Data, &g)
}

// Stream is one connection that delivers events.
type Stream interface {
	// Next waits for the next event.
	Next() (Event, error)
	// Close ends the connection. It may be called while Next waits.
	Close()
}

// StatusError is an answer that isn't a stream.
type StatusError struct {
	Status int
	Body   string
	Header http.Header
}

func (e *StatusError) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Body) }

// Final reports whether asking again won't help.
func (e *StatusError) Final() bool {
	return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests
}
