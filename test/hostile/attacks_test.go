//go:build integration

package hostile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// connections are what attackers leave open.
type connections struct {
	mu  sync.Mutex
	all []net.Conn
}

var opened connections

func (cs *connections) add(c net.Conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.all = append(cs.all, c)
}

func (cs *connections) take() []net.Conn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := cs.all
	cs.all = nil
	return all
}

type attack struct {
	name string
	do   func(a attacker) (ended string)
}

func attacks() []attack {
	return []attack{
		{"headers that never end", func(a attacker) string {
			return a.many(200, func(c net.Conn) string {
				a.write(c, "GET /v1/events?topic=x HTTP/1.1\r\nHost: x\r\n")
				for range 150 { // for 15 s at most
					if _, err := io.WriteString(c, "a"); err != nil {
						return "cut"
					}
					time.Sleep(100 * time.Millisecond) // that is the attack
				}
				return "never ended"
			}, "cut")
		}},
		{"silence", func(a attacker) string {
			return a.many(200, func(c net.Conn) string { return ending(c) }, "closed", "408")
		}},
		{"bodies that never end", func(a attacker) string {
			return a.many(100, func(c net.Conn) string {
				a.write(c, "POST /v1/tickets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+a.token+"\r\nTransfer-Encoding: chunked\r\n\r\n")
				for range 20 {
					if _, err := io.WriteString(c, "1\r\na\r\n"); err != nil {
						break
					}
				}
				return ending(c)
			}, "200", "413")
		}},
		{"a GET with a body", func(a attacker) string {
			return a.many(100, func(c net.Conn) string {
				a.write(c, "GET /v1/events?topic="+a.topic+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+a.token+"\r\nContent-Length: 100\r\n\r\na")
				return ending(c)
			}, "400")
		}},
		{"bodies of a gigabyte", func(a attacker) string {
			return a.many(100, func(c net.Conn) string {
				a.write(c, "POST /v1/tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
				go flood(c, 8<<20)
				return ending(c)
			}, "401", "cut")
		}},
		{"20,000 headers", func(a attacker) string {
			return a.many(20, func(c net.Conn) string {
				a.write(c, "GET /v1/topics HTTP/1.1\r\nHost: x\r\n")
				go a.write(c, strings.Repeat("A: b\r\n", 20_000)+"\r\n")
				return ending(c)
			}, "431", "401", "cut")
		}},
		{"a header of 10 MB", func(a attacker) string {
			return a.many(20, func(c net.Conn) string {
				a.write(c, "GET /v1/topics HTTP/1.1\r\nHost: x\r\nA: ")
				go flood(c, 10<<20)
				return ending(c)
			}, "431", "cut")
		}},
		{"an address of 1 MB", func(a attacker) string {
			return a.many(20, func(c net.Conn) string {
				go func() { a.write(c, "GET /v1/events?topic="); flood(c, 1<<20) }()
				return ending(c)
			}, "431", "cut")
		}},
		{"10,000 keys", func(a attacker) string {
			return a.many(20, func(c net.Conn) string {
				a.write(c, "GET /v1/events?topic="+a.topic+strings.Repeat("&key=a", 10_000)+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+a.token+"\r\n\r\n")
				return ending(c)
			}, "400")
		}},
		{"streams that nobody reads", func(a attacker) string {
			return a.many(200, func(c net.Conn) string {
				_ = c.(*net.TCPConn).SetReadBuffer(1 << 10)
				a.write(c, "GET /v1/events?topic="+a.topic+"&format=record HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+a.token+"\r\n\r\n")
				opened.add(c)
				return "left open"
			}, "left open")
		}},
		{"WebSocket: frames of 2^62", a(func(w *socket) string {
			w.frame(0x81, 1<<62, []byte("a"))
			return w.ending()
		}, "1009")},
		{"WebSocket: messages of 1 MB", a(func(w *socket) string {
			w.frame(0x81, 1<<20, nil)
			go flood(w.Conn, 1<<20)
			return w.ending()
		}, "1009", "cut")},
		{"WebSocket: pieces that never end", a(func(w *socket) string {
			w.frame(0x01, 100, bytes.Repeat([]byte{'a'}, 100))
			for n := range 3000 {
				pace(n)
				if w.frame(0x00, 100, bytes.Repeat([]byte{'a'}, 100)) != nil {
					break
				}
			}
			return w.ending()
		}, "1009", "cut")},
		{"WebSocket: unmasked", a(func(w *socket) string {
			_, _ = w.Write([]byte{0x81, 2, '{', '}'})
			return w.ending()
		}, "1002", "cut")},
		{"WebSocket: not UTF-8", a(func(w *socket) string {
			for range 12 {
				w.frame(0x81, 2, []byte{0xff, 0xfe})
			}
			return w.ending()
		}, "1008", "1007", "cut")},
		{"WebSocket: nonsense", a(func(w *socket) string {
			for n := range 500 {
				pace(n)
				if w.frame(0x81, 8, []byte(`{"a":1}}`)) != nil {
					break
				}
			}
			return w.ending()
		}, "1008", "cut")},
		{"WebSocket: 40,000 pings", a(func(w *socket) string {
			for n := range 2000 {
				pace(n)
				if w.frame(0x89, 100, bytes.Repeat([]byte{'a'}, 100)) != nil {
					break
				}
			}
			w.frame(0x88, 2, []byte{3, 0xe8})
			return w.ending()
		}, "1000", "cut")},
		{"WebSocket: pings in pieces", a(func(w *socket) string {
			w.frame(0x09, 1, []byte("a"))
			return w.ending()
		}, "1002", "cut")},
		{"HTTP/2: rapid reset", func(a attacker) string { return a.many(5, a.rapidReset, "cut", "GOAWAY", "all answered") }},
		{"HTTP/2: CONTINUATION", func(a attacker) string { return a.many(10, a.continuation, "cut", "GOAWAY") }},
	}
}

// many attacks over so many connections at once, and counts how they ended. Another end than those expected fails the test.
func (a attacker) many(n int, do func(net.Conn) string, want ...string) string {
	var mu sync.Mutex
	ends := map[string]int{}
	var all sync.WaitGroup
	for range n {
		time.Sleep(time.Second / time.Duration(n)) // see pace
		all.Go(func() {
			c, err := net.Dial("tcp", a.addr)
			if err != nil {
				a.t.Error(err)
				return
			}
			_ = c.SetDeadline(time.Now().Add(25 * time.Second))
			end := do(c)
			if end != "left open" {
				c.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			ends[end]++
		})
	}
	all.Wait()
	var text []string
	for _, end := range slices.Sorted(maps.Keys(ends)) {
		if !slices.Contains(want, end) {
			a.t.Errorf("%d ended so: %s; want one of %s", ends[end], end, want)
		}
		text = append(text, fmt.Sprintf("%d × %s", ends[end], end))
	}
	return strings.Join(text, ", ")
}

// write sends a text. That it can't be is an end like others.
func (a attacker) write(c net.Conn, text string) { _, _ = io.WriteString(c, text) }

func flood(c net.Conn, n int) {
	piece := bytes.Repeat([]byte{'a'}, 64<<10)
	for ; n > 0; n -= len(piece) {
		time.Sleep(20 * time.Millisecond) // see pace
		if _, err := c.Write(piece); err != nil {
			return
		}
	}
}

// ending waits for an answer, and then for the end: its status, "closed" without one, or "cut".
func ending(c net.Conn) string {
	answer, err := io.ReadAll(io.LimitReader(c, 1<<20))
	if line, _, ok := strings.Cut(string(answer), "\r\n"); ok && strings.HasPrefix(line, "HTTP/1.1 ") {
		return line[len("HTTP/1.1 "):][:3]
	}
	switch {
	case err == nil:
		return "closed"
	case isTimeout(err):
		return "never ended"
	default:
		return "cut"
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// socket is a WebSocket by hand.
type socket struct {
	net.Conn
	r *bufio.Reader
}

// a makes an attack over WebSockets.
func a(do func(w *socket) string, want ...string) func(attacker) string {
	return func(a attacker) string {
		return a.many(20, func(c net.Conn) string {
			a.write(c, "GET /v1/ws?topic="+a.topic+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
				"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer "+a.token+"\r\n\r\n")
			w := &socket{c, bufio.NewReader(c)}
			for {
				line, err := w.r.ReadString('\n')
				if err != nil {
					return "refused: " + err.Error()
				}
				if line == "\r\n" {
					return do(w)
				}
			}
		}, want...)
	}
}

// frame sends a masked frame that claims a length.
func (w *socket) frame(first byte, length uint64, payload []byte) error {
	b := []byte{first}
	switch {
	case length < 126:
		b = append(b, 0x80|byte(length))
	case length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), length)
	}
	b = append(append(b, 0, 0, 0, 0), payload...)
	_, err := w.Write(b)
	return err
}

// ending reads up to a close frame and returns its code, or "cut".
func (w *socket) ending() string {
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(w.r, head); err != nil {
			if isTimeout(err) {
				return "never ended"
			}
			return "cut"
		}
		length := uint64(head[1] & 0x7f)
		switch length {
		case 126:
			ext := make([]byte, 2)
			_, _ = io.ReadFull(w.r, ext)
			length = uint64(binary.BigEndian.Uint16(ext))
		case 127:
			ext := make([]byte, 8)
			_, _ = io.ReadFull(w.r, ext)
			length = binary.BigEndian.Uint64(ext)
		}
		payload := make([]byte, length)
		if _, err := io.ReadFull(w.r, payload); err != nil {
			return "cut"
		}
		if head[0]&0xf == 8 && len(payload) >= 2 {
			return fmt.Sprint(binary.BigEndian.Uint16(payload))
		}
	}
}

// pace keeps attackers, which share two cores with what they attack, from being the load themselves: 20 at once, a thousand
// times a second.
func pace(n int) {
	if n%20 == 19 {
		time.Sleep(20 * time.Millisecond)
	}
}

// http2To begins HTTP/2 without TLS.
func http2To(c net.Conn) (*http2.Framer, error) {
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	f := http2.NewFramer(c, c)
	return f, f.WriteSettings()
}

func headers() []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", "/v1/events?topic=x"}} {
		_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}) // to memory
	}
	return b.Bytes()
}

// rapidReset opens streams and takes them back at once (CVE-2023-44487).
func (a attacker) rapidReset(c net.Conn) string {
	f, err := http2To(c)
	if err != nil {
		return "cut"
	}
	go func() { _, _ = io.Copy(io.Discard, c) }()
	for id := uint32(1); id < 2000; id += 2 {
		pace(int(id / 2))
		if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers(), EndStream: true, EndHeaders: true}) != nil || f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			return "cut"
		}
	}
	return "all answered"
}

// continuation sends headers that never end (CVE-2023-45288).
func (a attacker) continuation(c net.Conn) string {
	f, err := http2To(c)
	if err != nil {
		return "cut"
	}
	if f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers()}) != nil {
		return "cut"
	}
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	_ = e.WriteField(hpack.HeaderField{Name: "a", Value: strings.Repeat("b", 4000)}) // to memory
	for range 10_000 {
		if f.WriteContinuation(1, false, b.Bytes()) != nil {
			return "cut"
		}
	}
	return "never ended"
}
