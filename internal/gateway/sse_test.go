package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// at is the timestamp of the tests' messages.
var at = time.UnixMilli(1_700_000_000_123)

func message(value string) *stream.Message {
	return &stream.Message{Topic: "orders.order.placed", Partition: 2, Offset: 42, Timestamp: at, Key: []byte("k"), Value: []byte(value)}
}

func typed(eventType, value string) *stream.Message {
	m := message(value)
	m.Headers = []stream.Header{{Name: "event-type", Value: []byte(eventType)}}
	return m
}

func tombstone() *stream.Message {
	m := message("")
	m.Value = nil
	return m
}

func TestSSEValue(t *testing.T) {
	for name, tt := range map[string]struct {
		message *stream.Message
		want    string
	}{
		"json":                {message(`{"a":1}`), "data: {\"a\":1}\nid: P\n\n"},
		"text":                {message("hello"), "data: hello\nid: P\n\n"},
		"leading space":       {message(" hello"), "data:  hello\nid: P\n\n"},
		"lines":               {message("a\nb"), "data: a\ndata: b\nid: P\n\n"},
		"every line end":      {message("a\rb\r\nc\nd"), "data: a\ndata: b\ndata: c\ndata: d\nid: P\n\n"},
		"LF then CR":          {message("a\n\rb"), "data: a\ndata: \ndata: b\nid: P\n\n"},
		"ends in a line end":  {message("a\n"), "data: a\ndata: \nid: P\n\n"},
		"only a CR":           {message("\r"), "data: \ndata: \nid: P\n\n"},
		"forged fields":       {message("x\rid: evil\r\revent: evil"), "data: x\ndata: id: evil\ndata: \ndata: event: evil\nid: P\n\n"},
		"empty":               {message(""), "data: \nid: P\n\n"},
		"NUL":                 {message("a\x00b"), "data: a\x00b\nid: P\n\n"},
		"bytes":               {message("\xff\xfe\n"), "data: //4K\nid: P\n\n"},
		"tombstone":           {tombstone(), `event: streamgw.delete` + "\n" + `data: {"topic":"orders.order.placed","partition":2,"offset":42,"timestamp":1700000000123,"key":"k","keyEncoding":"text"}` + "\nid: P\n\n"},
		"type isn't asked of": {typed("order.placed.v1", "x"), "data: x\nid: P\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(sse{}.AppendMessage(nil, tt.message, "P")); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSSENamedByEventType(t *testing.T) {
	for name, tt := range map[string]struct{ eventType, want string }{
		"plain":               {"order.placed.v1", "event: order.placed.v1\n"},
		"with a space first":  {" x", "event:  x\n"},
		"none":                {"", ""},
		"control name":        {"streamgw.gap", ""},
		"line end":            {"a\nid: evil", ""},
		"carriage return":     {"a\rb", ""},
		"NUL":                 {"a\x00b", ""},
		"not UTF-8":           {"a\xff", ""},
		"EventSource's error": {"error", ""},
		"EventSource's open":  {"open", ""},
	} {
		t.Run(name, func(t *testing.T) {
			want := tt.want + "data: x\nid: P\n\n"
			if got := string(sse{named: true}.AppendMessage(nil, typed(tt.eventType, "x"), "P")); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestSSERecord(t *testing.T) {
	m := typed("order.placed.v1", "{\n  \"a\": 1\n}")
	got := string(sse{record: true, named: true}.AppendMessage([]byte("before\n\n"), m, "P"))
	want := "before\n\nevent: order.placed.v1\n" +
		`data: {"topic":"orders.order.placed","partition":2,"offset":42,"timestamp":1700000000123,"key":"k","keyEncoding":"text",` +
		`"headers":[["event-type","order.placed.v1"]],"value":{"a":1}}` + "\nid: P\n\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := string(sse{record: true}.AppendMessage(nil, tombstone(), "P")); strings.Contains(got, "event:") || !strings.Contains(got, `"value":null}`) {
		t.Errorf("tombstone as record: %q", got)
	}
}

func TestSSEControl(t *testing.T) {
	gap := &stream.Gap{Topic: "t", Partition: 3, From: 5, To: 9, Reason: stream.GapRetention}
	p := problemOf(stream.Errorf(stream.TooSlow, "a\nb"))
	for name, tt := range map[string]struct {
		got  []byte
		want string
	}{
		"open":      {sse{}.appendOpen(nil, "P", 1500*time.Millisecond), "retry: 1500\nid: P\n\n"},
		"position":  {sse{}.appendPosition(nil, "P"), "id: P\n\n"},
		"gap":       {sse{}.appendGap(nil, gap, "P"), "event: streamgw.gap\ndata: {\"topic\":\"t\",\"partition\":3,\"from\":5,\"to\":9,\"reason\":\"retention\"}\n\nid: P\n\n"},
		"heartbeat": {sse{}.appendHeartbeat(nil), ":\n\n"},
		"heartbeat as event": {
			sseEventHeartbeat{}.appendHeartbeat(nil), "event: streamgw.heartbeat\ndata: {}\n\n",
		},
		"restart": {sse{}.appendRestart(nil, 7*time.Second), "retry: 7000\n\n"},
		"error": {
			sse{}.appendError(nil, "P", p),
			"id: P\n\nevent: streamgw.error\ndata: " + `{"type":"urn:streamgw:problem:too-slow","title":"The client was too slow","status":408,"detail":"a\nb"}` + "\n\n",
		},
	} {
		if string(tt.got) != tt.want {
			t.Errorf("%s: got %q, want %q", name, tt.got, tt.want)
		}
	}
}

// TestEmptyValueFiresOnMessage holds the gateway to the standard's example of an event with empty data, and the
// test's own parser too.
func TestEmptyValueFiresOnMessage(t *testing.T) {
	got := parseEventStream(string(sse{}.AppendMessage(nil, message(""), "P")))
	if len(got.events) != 1 || got.events[0] != (sseEvent{"message", "", "P"}) {
		t.Errorf("dispatched %+v", got.events)
	}
	standard := parseEventStream("data\n\ndata\ndata\n\ndata:")
	if len(standard.events) != 2 || standard.events[0].data != "" || standard.events[1].data != "\n" {
		t.Errorf("the standard's example dispatched %+v", standard.events)
	}
}
