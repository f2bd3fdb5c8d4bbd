package gateway

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
)

// unframe takes a text frame apart as RFC 6455 section 5.2 says and returns what follows it.
func unframe(t *testing.T, b []byte) (payload string, rest []byte) {
	t.Helper()
	if len(b) < 2 || b[0] != 0x81 {
		t.Fatalf("not an unfragmented text frame: % x", b[:min(len(b), 16)])
	}
	n, head := uint64(b[1]), 2
	switch b[1] {
	case 126:
		n, head = uint64(binary.BigEndian.Uint16(b[2:])), 4
		if n < 126 {
			t.Fatalf("a length of %d isn't written the shortest way", n)
		}
	case 127:
		n, head = binary.BigEndian.Uint64(b[2:]), 10
		if n < 1<<16 {
			t.Fatalf("a length of %d isn't written the shortest way", n)
		}
	}
	if uint64(len(b)-head) < n {
		t.Fatalf("%d bytes of %d", len(b)-head, n)
	}
	return string(b[head : head+int(n)]), b[head+int(n):]
}

func TestWebSocketFrames(t *testing.T) {
	gap := &stream.Gap{Topic: "t", Partition: 3, From: 5, To: 9, Reason: stream.GapRecreated}
	f, a := webSocketFrames{}, webSocketFrames{id: `a"`}
	for name, tt := range map[string]struct {
		got  []byte
		want string
	}{
		"json":       {f.AppendMessage(nil, message(`{"a":1}`), "P"), `{"type":"event","topic":"orders.order.placed","event":{"a":1},"position":"P"}`},
		"text":       {f.AppendMessage(nil, message("x\n"), "P"), `{"type":"event","topic":"orders.order.placed","event":"x\n","encoding":"text","position":"P"}`},
		"bytes":      {f.AppendMessage(nil, message("\xff"), "P"), `{"type":"event","topic":"orders.order.placed","event":"/w==","encoding":"base64","position":"P"}`},
		"JSON null":  {f.AppendMessage(nil, message("null"), "P"), `{"type":"event","topic":"orders.order.placed","event":null,"encoding":"json","position":"P"}`},
		"tombstone":  {f.AppendMessage(nil, tombstone(), "P"), `{"type":"event","topic":"orders.order.placed","event":null,"deleted":true,"key":"k","keyEncoding":"text","position":"P"}`},
		"record":     {webSocketFrames{record: true}.AppendMessage(nil, message("1"), "P"), `{"type":"event","topic":"orders.order.placed","event":{"topic":"orders.order.placed","partition":2,"offset":42,"timestamp":1700000000123,"key":"k","keyEncoding":"text","headers":[],"value":1},"position":"P"}`},
		"with an id": {a.AppendMessage(nil, message(`1`), "P"), `{"type":"event","topic":"orders.order.placed","event":1,"position":"P","id":"a\""}`},
		"shared, then with an id": {
			a.appendShared(nil, f.AppendMessage(nil, message(`1`), "P")), `{"type":"event","topic":"orders.order.placed","event":1,"position":"P","id":"a\""}`,
		},
		"subscribed": {a.appendOpen(nil, "P", 0), `{"type":"subscribed","position":"P","id":"a\""}`},
		"position":   {f.appendPosition(nil, "P"), `{"type":"position","position":"P"}`},
		"gap":        {a.appendGap(nil, gap, "P"), `{"type":"gap","topic":"t","partition":3,"from":5,"to":9,"reason":"recreated","position":"P","id":"a\""}`},
		"error":      {f.appendError(nil, "", problemOf(stream.BadField("f", "no"))), `{"type":"error","problem":{"type":"urn:streamgw:problem:bad-request","title":"The request can't be understood","status":400,"detail":"no","field":"f"}}`},
		"pong":       {f.appendType(nil, "pong"), `{"type":"pong"}`},
		"heartbeat":  {webSocketFrames{heartbeatEvent: true}.appendHeartbeat(nil), `{"type":"heartbeat"}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got, rest := unframe(t, tt.got); got != tt.want || len(rest) > 0 {
				t.Errorf("got %s, want %s; %d bytes after it", got, tt.want, len(rest))
			}
		})
	}
}

func TestWebSocketFrameLengths(t *testing.T) {
	around := len(appendEvent(nil, message(""), "P", false)) - len(`,"encoding":"text"`)
	for _, n := range []int{0, 1, 30, 125, 126, 127, 65535, 65536, 1 << 20} {
		for _, more := range []int{-1, 0, 1} {
			size := max(n+more-around, 0)
			m := message(`"` + strings.Repeat("x", size) + `"`)
			shared := webSocketFrames{}.AppendMessage([]byte("before"), m, "P")
			if string(shared[:6]) != "before" {
				t.Fatal("what stood before the frame was overwritten")
			}
			payload, rest := unframe(t, shared[6:])
			if len(rest) > 0 || strings.Count(payload, "x") != size {
				t.Errorf("value of %d bytes: %d bytes after the frame, payload of %d", size, len(rest), len(payload))
			}
			withID, _ := unframe(t, webSocketFrames{id: "a"}.appendShared(nil, shared[6:]))
			if want := payload[:len(payload)-1] + `,"id":"a"}`; withID != want {
				t.Errorf("value of %d bytes: with an id %.100s, want %.100s", size, withID, want)
			}
		}
	}
}

func TestNDJSONLines(t *testing.T) {
	f := ndjson{}
	gap := &stream.Gap{Topic: "t", From: 5, To: 9, Reason: stream.GapRetention}
	for name, tt := range map[string]struct {
		got  []byte
		want string
	}{
		"event":     {f.AppendMessage(nil, message("{\n}"), "P"), `{"type":"event","topic":"orders.order.placed","event":{},"position":"P"}`},
		"record":    {ndjson{record: true}.AppendMessage(nil, message("x"), "P"), `{"type":"event","topic":"orders.order.placed","partition":2,"offset":42,"timestamp":1700000000123,"key":"k","keyEncoding":"text","headers":[],"value":"x","valueEncoding":"text","position":"P"}`},
		"open":      {f.appendOpen(nil, "P", 0), `{"type":"position","position":"P"}`},
		"gap":       {f.appendGap(nil, gap, "P"), `{"type":"gap","topic":"t","partition":0,"from":5,"to":9,"reason":"retention","position":"P"}`},
		"heartbeat": {f.appendHeartbeat(nil), `{"type":"heartbeat"}`},
		"restart":   {f.appendRestart(nil, 0), `{"type":"error","problem":{"type":"urn:streamgw:problem:unavailable","title":"Not available now","status":503,"detail":"this gateway is shutting down; another one, or a moment later, will do"}}`},
	} {
		if string(tt.got) != tt.want+"\n" {
			t.Errorf("%s: got %s, want %s", name, tt.got, tt.want)
		}
	}
}
