package bench

import (
	"fmt"
	"slices"
	"testing"
)

func TestWhereATappedClientIs(t *testing.T) {
	value := func(stream, number uint32) string {
		return string(eventValue(t, Mark{testRun, stream, number, 1}, 100))
	}
	for name, tt := range map[string]struct {
		transport Transport
		text      string
		position  string
		next      []uint32
	}{
		"only the position at the start": {SSE, ": hi\n\nid: p0\n\n", "p0", []uint32{0, 0}},
		"the id after the event": {
			SSE, "id: p0\n\ndata: " + value(0, 0) + "\nid: p1\n\ndata: " + value(1, 0) + "\nid: p2\n\n", "p2", []uint32{1, 1},
		},
		"the id before the event": {SSE, "id: p1\r\ndata: " + value(0, 0) + "\r\n\r\n", "p1", []uint32{1, 0}},
		"an event that isn't whole": {
			SSE, "data: " + value(0, 0) + "\nid: p1\n\ndata: " + value(0, 1) + "\nid: p2\n", "p1", []uint32{1, 0},
		},
		"messages": {
			WebSocket, `{"type":"subscribed","position":"p0"}{"type":"event","event":` + value(1, 0) + `,"position":"p1"}{"type":"pong"}`, "p1", []uint32{0, 1},
		},
		"a message that isn't whole": {
			WebSocket, `{"type":"subscribed","position":"p0"}{"type":"event","position":"p1","event":` + value(1, 0), "p0", []uint32{0, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, step := range []int{1, 7, 100_000} {
				tp := tap{transport: tt.transport, run: textOf(testRun), next: make([]uint32, 2)}
				for piece := range slices.Chunk([]byte(tt.text), step) {
					tp.take(piece)
				}
				if position, next, _ := tp.at(); position != tt.position || !slices.Equal(next, tt.next) {
					t.Errorf("pieces of %d: it is at %q, %v; want %q, %v", step, position, next, tt.position, tt.next)
				}
			}
		})
	}
}

func TestATapStopsWhereItShould(t *testing.T) {
	tp := tap{transport: SSE, run: textOf(testRun), next: make([]uint32, 1), stop: 3}
	text := ""
	for i := range uint32(10) {
		text += fmt.Sprintf("data: %s\nid: p%d\n\n", eventValue(t, Mark{testRun, 0, i, 1}, 100), i+1)
	}
	tp.take([]byte(text))
	tp.take([]byte(text))
	if position, next, events := tp.at(); position != "p3" || next[0] != 3 || events != 3 {
		t.Errorf("it is at %q, %v, after %d events", position, next, events)
	}
}
