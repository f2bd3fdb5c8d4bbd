package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/goodgo/streamgw/internal/stream"
)

// FuzzSSEFrame puts anything at all into a record and reads the stream back as an EventSource would: what was put in
// comes out, once, under its own id, and the event after it is untouched.
func FuzzSSEFrame(f *testing.F) {
	for _, s := range []string{"", "x", "a\rb", "a\r\nb\n\n", "x\nid: evil\nevent: evil\ndata: evil\n\n", "\r\rdata: evil", ": c", "\ufeff", "null", "{\n\"a\":1}", "\xff\n", "streamgw.gap", "\x00", "1\n\r2", "\u2028", "\u0085", "\v\f"} {
		f.Add([]byte(s), []byte(s), s, []byte(s), s, "orders.order.placed", false)
		f.Add([]byte("v"), []byte(s), "h", []byte(s), s, s, true)
	}
	f.Fuzz(func(t *testing.T, value, key []byte, headerName string, headerValue []byte, eventType, topic string, tombstone bool) {
		m := &stream.Message{
			Topic: topic, Partition: 7, Offset: 1 << 40, Timestamp: at, Key: key, Value: value,
			Headers: []stream.Header{{Name: "event-type", Value: []byte(eventType)}, {Name: headerName, Value: headerValue}},
		}
		if tombstone {
			m.Value = nil
		} else if value == nil {
			m.Value = []byte{}
		}
		for _, format := range []sse{{}, {named: true}, {record: true}, {record: true, named: true}} {
			checkSSE(t, format, m)
		}
		checkObject(t, m)
	})
}

func checkSSE(t *testing.T, format sse, m *stream.Message) {
	b := format.appendOpen(nil, "P0", 1200*time.Millisecond)
	b = format.AppendMessage(b, m, "P1")
	b = format.appendHeartbeat(b)
	b = format.AppendMessage(b, message("next"), "P2")
	got := parseEventStream(string(b))
	if !utf8.Valid(b) || got.lastID != "P2" || got.retry != 1200 || len(got.events) != 2 {
		t.Fatalf("%+v: last id %q, retry %d, events %q, of %q", format, got.lastID, got.retry, got.events, b)
	}
	e := got.events[0]
	if e.id != "P1" {
		t.Errorf("%+v: the event's id is %q", format, e.id)
	}
	if want := wantName(format, m); e.name != want {
		t.Errorf("%+v: the event's name is %q, want %q", format, e.name, want)
	}
	switch {
	case format.record:
		checkRecord(t, e.data, m)
	case m.Value == nil:
		checkMembers(t, e.data, m)
	default:
		if want := wantData(m.Value); e.data != want {
			t.Errorf("%+v: data is %q, want %q", format, e.data, want)
		}
	}
	if next := got.events[1]; next.id != "P2" || next.name != "message" || !strings.Contains(next.data, "next") {
		t.Errorf("%+v: the event after it is %+v", format, next)
	}
}

func wantName(format sse, m *stream.Message) string {
	if m.Value == nil && !format.record {
		return "streamgw.delete"
	}
	eventType := m.EventType()
	reserved := slices.Contains([]string{"", "error", "open"}, eventType) || strings.HasPrefix(eventType, "streamgw.")
	if !format.named || reserved || strings.ContainsAny(eventType, "\r\n\x00") || !utf8.ValidString(eventType) {
		return "message"
	}
	return eventType
}

func wantData(value []byte) string {
	if !utf8.Valid(value) {
		return base64.StdEncoding.EncodeToString(value)
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(value))
}

// checkObject does for what WebSocket and NDJSON share.
func checkObject(t *testing.T, m *stream.Message) {
	payload, rest := unframe(t, webSocketFrames{id: m.Topic}.AppendMessage(nil, m, "P1"))
	if !utf8.ValidString(payload) || len(rest) > 0 {
		t.Errorf("frame %q, then %d bytes", payload, len(rest))
	}
	for _, line := range [][]byte{ndjson{}.AppendMessage(nil, m, "P1"), ndjson{record: true}.AppendMessage(nil, m, "P1"), []byte(payload + "\n")} {
		var object struct{ Type, Topic, Position string }
		if err := json.Unmarshal(line, &object); err != nil || bytes.ContainsAny(line[:len(line)-1], "\r\n") {
			t.Fatalf("%q isn't a line of JSON: %v", line, err)
		}
		if object.Type != "event" || object.Position != "P1" || object.Topic != asUTF8(m.Topic) {
			t.Errorf("%q is read as %+v", line, object)
		}
	}
	checkRecord(t, string(ndjson{record: true}.AppendMessage(nil, m, "P1")), m)
}

// record is format=record as a client reads it.
type record struct {
	Topic         string
	Partition     int32
	Offset        int64
	Timestamp     int64
	Key           json.RawMessage
	KeyEncoding   string
	Headers       [][]*string
	Value         json.RawMessage
	ValueEncoding string
}

func checkMembers(t *testing.T, text string, m *stream.Message) (r record) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%q isn't JSON: %v", text, err)
	}
	if r.Topic != asUTF8(m.Topic) || r.Partition != m.Partition || r.Offset != m.Offset || r.Timestamp != m.Timestamp.UnixMilli() {
		t.Errorf("%+v was %+v", r, m)
	}
	checkEmbedded(t, r.Key, r.KeyEncoding, m.Key, text)
	return r
}

func checkRecord(t *testing.T, text string, m *stream.Message) {
	t.Helper()
	r := checkMembers(t, text, m)
	for i, h := range r.Headers {
		want := m.Headers[i]
		encoding := "text"
		if len(h) == 3 {
			encoding = *h[2]
		}
		if *h[0] != asUTF8(want.Name) || (h[1] == nil) != (want.Value == nil) || h[1] != nil && decode(t, *h[1], encoding) != string(want.Value) {
			t.Errorf("header %+v became %s", want, text)
		}
	}
	if len(r.Headers) != len(m.Headers) {
		t.Errorf("%d headers became %d", len(m.Headers), len(r.Headers))
	}
	checkEmbedded(t, r.Value, r.ValueEncoding, m.Value, text)
}

// checkEmbedded checks how a key or a value stands in text: nil as null, JSON as it is, anything else as a string.
func checkEmbedded(t *testing.T, got json.RawMessage, encoding string, want []byte, text string) {
	t.Helper()
	switch encoding {
	case "json", "":
		if want == nil {
			if string(got) != "null" || encoding != "" {
				t.Errorf("null became %s", text)
			}
			return
		}
		if (encoding == "json") != (string(got) == "null") {
			t.Errorf("JSON's null isn't told from none: %s", text)
		}
		if got, want := compact(t, got), compact(t, want); got != want {
			t.Errorf("%q became %q", want, got)
		}
	default:
		var s string
		if err := json.Unmarshal(got, &s); err != nil || decode(t, s, encoding) != string(want) {
			t.Errorf("%q became %s: %v", want, text, err)
		}
	}
}

func decode(t *testing.T, s, encoding string) string {
	t.Helper()
	switch encoding {
	case "text":
		return s
	case "base64":
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Errorf("%q isn't base64: %v", s, err)
		}
		return string(b)
	default:
		t.Errorf("%q is an unknown encoding", encoding)
		return ""
	}
}

func compact(t *testing.T, value []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, value); err != nil {
		t.Errorf("%q isn't JSON: %v", value, err)
	}
	return b.String()
}

// asUTF8 replaces each byte that isn't UTF-8.
func asUTF8(s string) string { return string([]rune(s)) }
