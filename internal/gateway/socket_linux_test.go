package gateway

import (
	"bufio"
	"context"
	"io"
	"runtime"
	"testing"
	"time"
)

// TestIdleWebSocketsHaveNoGoroutine though their clients answer pings.
func TestIdleWebSocketsHaveNoGoroutine(t *testing.T) {
	c := newCrowd(t)
	for range 50 {
		c.join(t, streamRequests["websocket"])
	}
	idle := func() bool { return runtime.NumGoroutine() < 40 }
	eventually(t, "there are fewer goroutines than connections", idle)
	each := func(do func(*taken)) {
		w := c.writers.Load().watch
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, t := range w.slots {
			do(t)
		}
	}
	pong := []byte{final | 0xa, 0x80, 1, 2, 3, 4}
	for range 3 {
		for _, conn := range c.conns {
			if _, err := conn.Write(pong); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all were heard", func() bool {
			heard := 0
			each(func(t *taken) {
				if t.socket.heard.Load() && !t.socket.reading.Load() {
					heard++
				}
			})
			return heard == len(c.conns)
		})
		eventually(t, "there are fewer goroutines than connections", idle)
		each(func(t *taken) { t.socket.heard.Store(false) })
	}
}

// TestAWebSocketMessageMayComeInAnyPieces: of frames, and of their bytes.
func TestAWebSocketMessageMayComeInAnyPieces(t *testing.T) {
	f := newFace(t, Config{})
	conn := stall(t, f.url, streamRequests["websocket"])
	body := bufio.NewReader(conn)
	readBlockOf(t, body, "\r\n")
	masked := func(first byte, payload string) []byte {
		return append([]byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	}
	var all []byte
	for range 5 {
		all = append(all, masked(opText, `{"type":`)...)
		all = append(all, masked(final|opPing, "now")...)
		all = append(all, masked(0, `"pi`)...)
		all = append(all, masked(final, `ng"}`)...)
		all = append(all, masked(final|0xa, "")...)
	}
	for i := 0; i < len(all); {
		n := min(1+i%3, len(all)-i)
		if _, err := conn.Write(all[i : i+n]); err != nil {
			t.Fatal(err)
		}
		i += n
		runtime.Gosched()
	}
	var got []string
	for len(got) < 11 {
		header := make([]byte, 2)
		if _, err := io.ReadFull(body, header); err != nil {
			t.Fatal(err)
		}
		payload := make([]byte, header[1])
		if _, err := io.ReadFull(body, payload); err != nil {
			t.Fatal(err)
		}
		got = append(got, string(payload))
	}
	counts := map[string]int{}
	for _, s := range got {
		counts[s]++
	}
	if counts["now"] != 5 || counts[`{"type":"pong"}`] != 5 || counts[`{"type":"subscribed","position":"P0"}`] != 1 {
		t.Errorf("got %q", got)
	}
}

// TestAWebSocketThatAnswersNoCloseIsCut after a while that is bounded.
func TestAWebSocketThatAnswersNoCloseIsCut(t *testing.T) {
	f := newFace(t, Config{})
	stall(t, f.url, streamRequests["websocket"])
	f.sub(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), closeTimeout+5*time.Second)
	defer cancel()
	begun := time.Now()
	if err := f.Shutdown(ctx); err != nil || time.Since(begun) < closeTimeout {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
}

func TestInboundKnowsWhereNoMessageIsBegun(t *testing.T) {
	frame := func(first byte, length int) []byte {
		b := appendFrameHeader(nil, length)
		b[0] = first
		b[1] |= 0x80
		return append(b, make([]byte, 4+length)...)
	}
	for name, frames := range map[string][][]byte{
		"short":       {frame(final|opText, 3)},
		"empty":       {frame(final|opText, 0)},
		"medium":      {frame(final|opText, 300)},
		"long":        {frame(final|opText, 70_000)},
		"pong":        {frame(final|0xa, 0)},
		"in pieces":   {frame(opText, 5), frame(0, 0), frame(final, 2)},
		"with a ping": {frame(opText, 5), frame(final|opPing, 4), frame(final, 2)},
	} {
		var all []byte
		for _, f := range frames {
			all = append(all, f...)
		}
		for _, step := range []int{1, 2, 7, len(all)} {
			var in inbound
			for i := 0; i < len(all); i += step {
				if i > 0 && in.idle() {
					t.Errorf("%s, %d at a time: idle after %d of %d bytes", name, step, i, len(all))
				}
				in.follow(all[i:min(i+step, len(all))])
			}
			if !in.idle() {
				t.Errorf("%s, %d at a time: %+v isn't idle at its end", name, step, in)
			}
		}
	}
}
