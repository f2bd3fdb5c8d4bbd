package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goodgo/streamgw/internal/stream"
)

// controlPrefix begins the names of events that aren't records', so that onmessage never sees them.
const controlPrefix = "streamgw."

// sse writes blocks of an event stream (the HTML standard, "Server-sent events"). In each, id stands last: a client that
// takes it over early can't lose the event.
//
// With format=value, data is the record's value: text of any kind (UTF-8) as it is, one data line for each of its
// lines, whichever way they end (LF, CR, CRLF: the client sees LF); other bytes in base64, which nothing marks: who
// has such topics takes format=record. An empty value is an event with empty data. A tombstone is an event
// streamgw.delete, whose data is {"topic","partition","offset","timestamp","key","keyEncoding"}.
//
// With format=record, data is the object that appendRecord describes, on one line.
type sse struct {
	record bool
	named  bool // event: is the event's type
}

func (f sse) format() int {
	switch {
	case f.record && f.named:
		return sseRecordNamed
	case f.record:
		return sseRecord
	case f.named:
		return sseValueNamed
	default:
		return sseValue
	}
}

// AppendMessage appends the block of m.
func (f sse) AppendMessage(dst []byte, m *stream.Message, id string) []byte {
	if m.Value == nil && !f.record {
		dst = append(dst, "event: streamgw.delete\ndata: {"...)
		dst = appendPlace(dst, m)
		dst = append(dst, ',')
		dst = appendKey(dst, m.Key)
		return appendEnd(append(dst, "}\n"...), id)
	}
	if f.named {
		if name := m.EventType(); mayName(name) {
			dst = append(dst, "event: "...)
			dst = append(dst, name...)
			dst = append(dst, '\n')
		}
	}
	switch {
	case f.record:
		dst = append(dst, "data: {"...)
		dst = appendRecord(dst, m)
		dst = append(dst, "}\n"...)
	case utf8.Valid(m.Value):
		dst = appendData(dst, m.Value)
	default:
		dst = append(dst, "data: "...)
		dst = base64.StdEncoding.AppendEncode(dst, m.Value)
		dst = append(dst, '\n')
	}
	return appendEnd(dst, id)
}

// mayName reports whether an event type can be the name of an SSE event. The rest leaves the event unnamed: what can't
// stand in a line, what would pass for a control event, and the names of EventSource's own events, which a page
// listens to for other reasons.
func mayName(eventType string) bool {
	return eventType != "" && eventType != "error" && eventType != "open" && !strings.HasPrefix(eventType, controlPrefix) &&
		!strings.ContainsAny(eventType, "\r\n\x00") && utf8.ValidString(eventType)
}

// appendData appends a data line for each line of text. The space after the colon is one that the client takes away.
func appendData(dst, text []byte) []byte {
	for {
		end := bytes.IndexAny(text, "\r\n")
		dst = append(dst, "data: "...)
		if end < 0 {
			dst = append(dst, text...)
			return append(dst, '\n')
		}
		dst = append(dst, text[:end]...)
		dst = append(dst, '\n')
		if text[end] == '\r' && end+1 < len(text) && text[end+1] == '\n' {
			end++
		}
		text = text[end+1:]
	}
}

func appendEnd(dst []byte, id string) []byte {
	if id != "" {
		dst = append(dst, "id: "...)
		dst = append(dst, id...)
		dst = append(dst, '\n')
	}
	return append(dst, '\n')
}

func (f sse) appendShared(dst, frame []byte) []byte { return append(dst, frame...) }

func (f sse) appendRun(dst, run []byte) []byte { return append(dst, run...) }

func (f sse) pack(dst []byte, _ int) []byte { return dst }

// appendOpen appends what is sent at once: a proxy that holds headers back until a first byte holds them no longer.
func (f sse) appendOpen(dst []byte, id string, retry time.Duration) []byte {
	return appendEnd(appendRetry(dst, retry), id)
}

func appendRetry(dst []byte, retry time.Duration) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, retry.Milliseconds(), 10)
	return append(dst, '\n')
}

// appendPosition appends a block of only an id: it moves the Last-Event-ID of the next request and fires nothing.
func (f sse) appendPosition(dst []byte, id string) []byte { return appendEnd(dst, id) }

func (f sse) appendGap(dst []byte, gap *stream.Gap, id string) []byte {
	b, err := json.Marshal(gap)
	if err != nil {
		panic(err) // strings and numbers
	}
	return f.appendPosition(appendControl(dst, "gap", b), id)
}

func appendControl(dst []byte, name string, data []byte) []byte {
	dst = append(dst, "event: "+controlPrefix...)
	dst = append(dst, name...)
	dst = append(dst, "\ndata: "...)
	dst = append(dst, data...)
	return append(dst, "\n\n"...)
}

func (f sse) appendError(dst []byte, id string, p problem) []byte {
	if id != "" {
		dst = f.appendPosition(dst, id)
	}
	return appendControl(dst, "error", p.append(nil))
}

func (f sse) appendHeartbeat(dst []byte) []byte { return append(dst, ":\n\n"...) }

func (f sse) appendExpiring(dst []byte, ends time.Time) []byte {
	return appendControl(dst, "expiring", append(appendExpires([]byte("{"), ends), '}'))
}

func (f sse) appendRestart(dst []byte, retry time.Duration) []byte {
	return append(appendRetry(dst, retry), '\n')
}

// sseEventHeartbeat is sse with heartbeats that JavaScript can see.
type sseEventHeartbeat struct{ sse }

func (f sseEventHeartbeat) appendHeartbeat(dst []byte) []byte {
	return appendControl(dst, "heartbeat", []byte("{}"))
}
