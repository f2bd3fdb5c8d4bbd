package gateway

import (
	"strconv"
	"strings"
)

// sseEvent is an event that an EventSource dispatches.
type sseEvent struct {
	name string // "message" when it has none
	data string
	id   string // lastEventId
}

// eventSource interprets an event stream as the HTML standard says ("Parsing an event stream", "Interpreting an event
// stream"). It is written from the standard alone, and knows nothing of how the gateway writes.
type eventSource struct {
	events []sseEvent
	lastID string // what the next request's Last-Event-ID would be
	retry  int    // milliseconds; -1: never said

	data     strings.Builder // buffers
	name, id string
}

func parseEventStream(stream string) *eventSource {
	s := &eventSource{retry: -1}
	stream = strings.TrimPrefix(strings.ToValidUTF8(stream, "\ufffd"), "\ufeff")
	for stream != "" {
		end := strings.IndexAny(stream, "\r\n")
		if end < 0 {
			break // an incomplete line at the end is discarded
		}
		line := stream[:end]
		if strings.HasPrefix(stream[end:], "\r\n") {
			end++
		}
		stream = stream[end+1:]
		s.line(line)
	}
	return s
}

func (s *eventSource) line(line string) {
	if line == "" {
		s.dispatch()
		return
	}
	field, value, colon := strings.Cut(line, ":")
	if colon && field == "" {
		return // a comment
	}
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "event":
		s.name = value
	case "data":
		s.data.WriteString(value + "\n")
	case "id":
		if !strings.Contains(value, "\x00") {
			s.id = value
		}
	case "retry":
		if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
			s.retry = int(ms)
		}
	}
}

func (s *eventSource) dispatch() {
	s.lastID = s.id
	if s.data.Len() == 0 {
		s.name = ""
		return
	}
	event := sseEvent{name: "message", data: strings.TrimSuffix(s.data.String(), "\n"), id: s.lastID}
	if s.name != "" {
		event.name = s.name
	}
	s.events = append(s.events, event)
	s.data.Reset()
	s.name = ""
}
