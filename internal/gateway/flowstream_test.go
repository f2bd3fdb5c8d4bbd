package gateway

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/stream"
)

// headers are those of TestAnyRecord's records.
var headers = []stream.Header{{Name: "h", Value: []byte{0xfd}}, {Name: "h"}}

// recordStream reads objects of type event.
type recordStream struct {
	t    *testing.T
	read func() ([]byte, error)
	// inside says that the record is the member event, not the object itself.
	inside bool
}

func (s *recordStream) next() []byte {
	s.t.Helper()
	for {
		text, err := s.read()
		if err != nil {
			s.t.Fatal(err)
		}
		var frame struct {
			Type  string
			Event json.RawMessage
		}
		if err := json.Unmarshal(text, &frame); err != nil {
			s.t.Fatalf("%.200q: %v", text, err)
		}
		switch {
		case frame.Type == "error":
			s.t.Fatalf("%s", text)
		case frame.Type == "event" && s.inside:
			return frame.Event
		case frame.Type == "event":
			return text
		}
	}
}

func (r *replica) ndjson(t *testing.T, query string) *recordStream {
	t.Helper()
	resp := get(t, r.url+"/v1/events?topic="+topic+query, "Accept", "application/x-ndjson")
	lines := bufio.NewReader(resp.Body)
	return &recordStream{t: t, read: func() ([]byte, error) { return lines.ReadBytes('\n') }}
}

func (r *replica) webSocket(t *testing.T, query string) *recordStream {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), strings.Replace(r.url, "http", "ws", 1)+"/v1/ws?topic="+topic+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(16 << 20)
	t.Cleanup(func() { c.CloseNow() })
	if _, _, err := c.Read(t.Context()); err != nil { // subscribed
		t.Fatal(err)
	}
	return &recordStream{t: t, inside: true, read: func() ([]byte, error) {
		_, b, err := c.Read(t.Context())
		return b, err
	}}
}
