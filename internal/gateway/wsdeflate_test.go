package gateway

import (
	"bufio"
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// inflateFrame takes one frame apart and returns the message, as RFC 7692 section 7.2.2 says if it is compressed.
func inflateFrame(t *testing.T, frame []byte) string {
	t.Helper()
	isDeflated := frame[0]&rsv1 != 0
	payload, rest := unframe(t, append([]byte{frame[0] &^ rsv1}, frame[1:]...))
	if len(rest) > 0 {
		t.Fatalf("% x follows", rest)
	}
	if !isDeflated {
		return payload
	}
	const tail = "\x00\x00\xff\xff" + "\x01\x00\x00\xff\xff" // what isn't sent, and an end for Go's reader
	b, err := io.ReadAll(flate.NewReader(strings.NewReader(payload + tail)))
	if err != nil {
		t.Fatalf("%v after %q", err, b)
	}
	return string(b)
}

func TestDeflatedFramesSayWhatPlainOnesSay(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 150 {
		m := message(string(someText(rng, rng.IntN(1<<(4+i%15)))))
		before := []byte("before")
		for _, record := range []bool{false, true} {
			for _, id := range []string{"", `a"`} {
				plain, deflated := webSocketFrames{record: record, id: id}, webSocketFrames{record: record, id: id, deflate: leastShared}
				want, _ := unframe(t, plain.AppendMessage(nil, m, "P"))
				own := deflated.AppendMessage(before, m, "P")
				if got := inflateFrame(t, own[len(before):]); got != want {
					t.Fatalf("own: got %q, want %q", got, want)
				}
				hubs := webSocketFrames{record: record, deflate: leastShared}.AppendMessage(nil, m, "P")
				shared := deflated.appendRun(before, hubs)
				if got := inflateFrame(t, shared[len(before):]); got != want {
					t.Fatalf("shared: got %q, want %q", got, want)
				}
				if len(own)-len(before) > len(plain.AppendMessage(nil, m, "P")) {
					t.Fatalf("compressed to %d bytes: %q", len(own), want)
				}
			}
		}
	}
}

// FuzzDeflatedFrames: whatever an event and an id are, a compressed frame unpacks to what the plain one has.
func FuzzDeflatedFrames(f *testing.F) {
	f.Add([]byte(`{"a":"}}}}}}}}}}}}}}}}}}}}}}"}`), "a")
	f.Add([]byte("\xff\x00}"), `"}`)
	f.Add(bytes.Repeat([]byte("}"), 40_000), "")
	f.Fuzz(func(t *testing.T, value []byte, id string) {
		m := message(string(value))
		plain, deflated := webSocketFrames{id: id}, webSocketFrames{id: id, deflate: 1}
		want, _ := unframe(t, plain.AppendMessage(nil, m, "P"))
		shared := deflated.appendShared(nil, webSocketFrames{deflate: 1}.AppendMessage(nil, m, "P"))
		for how, frame := range map[string][]byte{"own": deflated.AppendMessage(nil, m, "P"), "shared": shared} {
			if got := inflateFrame(t, frame); got != want {
				t.Errorf("%s: got %q, want %q", how, got, want)
			}
		}
	})
}

func TestRunsOfDeflatedFramesAreGivenAnID(t *testing.T) {
	hubs, mine := webSocketFrames{deflate: leastShared}, webSocketFrames{id: "a", deflate: leastShared}
	var run, want []byte
	for _, value := range []string{"1", strings.Repeat("ab", 500), "2", strings.Repeat("cd", 50_000)} {
		run = hubs.AppendMessage(run, message(value), "P")
		want = append(want, inflateFrame(t, webSocketFrames{id: "a"}.AppendMessage(nil, message(value), "P"))...)
	}
	var got []byte
	for run = mine.appendRun(nil, run); len(run) > 0; {
		n := frameLength(run)
		got = append(got, inflateFrame(t, run[:n])...)
		run = run[n:]
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %.300q, want %.300q", got, want)
	}
}

// hijackless is a response that can't be taken over, which websocket.Accept finds out when it has answered.
type hijackless struct{ *httptest.ResponseRecorder }

func (hijackless) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, net.ErrClosed }

// agreed returns the extensions that the library agrees to.
func agreed(offer string) string {
	r := httptest.NewRequest("GET", "/v1/ws", nil)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
		"Sec-WebSocket-Extensions": offer,
	} {
		r.Header.Set(name, value)
	}
	w := hijackless{httptest.NewRecorder()}
	_, _ = websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	return w.Header().Get("Sec-WebSocket-Extensions")
}

func offer(s string) *http.Request {
	return &http.Request{Header: http.Header{"Sec-Websocket-Extensions": {s}}}
}

func TestOffersDeflate(t *testing.T) {
	for s, want := range map[string]bool{
		"":                   false,
		"permessage-deflate": true,
		"permessage-deflate; client_max_window_bits":                                 true, // Chromium
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover": true,
		"permessage-deflate; client_max_window_bits=10; server_max_window_bits=15":   true,
		"permessage-deflate; server_max_window_bits=10":                              false,
		"permessage-deflate; server_max_window_bits=10, permessage-deflate":          true,
		"x-webkit-deflate-frame":               false,
		"permessage-bzip2, permessage-deflate": true,
		"permessage-deflate; nonsense":         false,
		"permessage-deflate;":                  false,
	} {
		if got := offersDeflate(offer(s)); got != want {
			t.Errorf("%q: %v", s, got)
		}
		if got := agreed(s) != ""; got != want {
			t.Errorf("%q: the library says %v", s, got)
		}
	}
}

// FuzzOffersDeflate: what we take for agreed is agreed, with no context kept on either side.
func FuzzOffersDeflate(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits")
	f.Add(`permessage-deflate; client_max_window_bits="10", x;y=z`)
	f.Add("permessage-deflate ; server_max_window_bits=15;client_no_context_takeover")
	f.Fuzz(func(t *testing.T, s string) {
		if offersDeflate(offer(s)) && agreed(s) != "permessage-deflate; client_no_context_takeover; server_no_context_takeover" {
			t.Errorf("%q: agreed is %q", s, agreed(s))
		}
	})
}
