package gateway

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
)

// gunzip returns what a reader has that got so much of a stream, and fails if more of it couldn't follow.
func gunzip(t testing.TB, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("after %d bytes: %v", len(plain), err)
	}
	return plain
}

// TestGzippedBlocksFollowOneAnother: whatever one client is given, in blocks that are shared or its own, is one stream to
// a reader that we didn't write, and each block can be read once it has come.
func TestGzippedBlocksFollowOneAnother(t *testing.T) {
	f := gzipped{sse{}}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		got, want := []byte(gzipHead), []byte(nil)
		for range 1 + rng.IntN(20) {
			plain := someText(rng, rng.IntN(3000))
			if rng.IntN(20) == 0 {
				plain = someText(rng, rng.IntN(200_000))
			}
			want = append(want, plain...)
			if rng.IntN(2) == 0 {
				got = f.AppendBlock(got, plain)
			} else {
				from := len(got)
				got = f.pack(append(got, plain...), from)
			}
			if has := gunzip(t, got); !bytes.Equal(has, want) {
				t.Fatalf("%d bytes are read, not %d", len(has), len(want))
			}
		}
	}
}

// someText is text of n bytes that is repetitive, or noise.
func someText(rng *rand.Rand, n int) (b []byte) {
	noise := rng.IntN(4) == 0
	for len(b) < n {
		if noise {
			b = append(b, byte(rng.Uint32()))
		} else {
			b = fmt.Appendf(b, `{"orderId":%d,"state":"shipped"}`+"\n", rng.IntN(1000))
		}
	}
	return b[:n]
}

func TestGzippedSaysWhatThePlainStreamSays(t *testing.T) {
	plain, f := frames(sseEventHeartbeat{sse{}}), gzipped{sseEventHeartbeat{sse{}}}
	got, want := []byte(gzipHead), []byte(nil)
	for _, step := range []func(f frames, dst []byte) []byte{
		func(f frames, dst []byte) []byte { return f.appendOpen(dst, "P0", time.Second) },
		func(f frames, dst []byte) []byte { return f.appendHeartbeat(dst) },
		func(f frames, dst []byte) []byte { return f.appendPosition(dst, "P1") },
		func(f frames, dst []byte) []byte { return f.appendError(dst, "P2", problemOf(errOverloaded)) },
		func(f frames, dst []byte) []byte { return f.appendRestart(dst, time.Second) },
		func(f frames, dst []byte) []byte {
			return f.pack(f.AppendMessage(dst, message(strings.Repeat("ab", 1000)), "P3"), len(dst))
		},
	} {
		got, want = step(f, got), step(plain, want)
		if has := gunzip(t, got); !bytes.Equal(has, want) {
			t.Fatalf("got %q, want %q", has, want)
		}
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"":                                    false,
		"gzip":                                true,
		"gzip, deflate, br, zstd":             true, // Chromium
		"GZIP ; Q=0.5":                        true,
		"x-gzip":                              true,
		"*":                                   true,
		"identity":                            false,
		"br":                                  false,
		"gzip;q=0":                            false,
		"gzip;q=0, *":                         false,
		"gzip;q=0.000":                        false,
		"gzip;q=2":                            false,
		"*;q=0":                               false,
		"identity;q=1, gzip;q=0.5":            false,
		"identity;q=0.5, gzip;q=1.0, *;q=0":   true,
		"deflate;q=1,gzip;q=0.1,identity;q=0": true,
	} {
		r := &http.Request{Header: http.Header{"Accept-Encoding": {header}}}
		if got := acceptsGzip(r); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
	two := &http.Request{Header: http.Header{"Accept-Encoding": {"br", "gzip"}}}
	if !acceptsGzip(two) {
		t.Error("of two headers the second isn't seen")
	}
}

// TestStreamsAreGzippedForThoseWhoAcceptIt looks at both ways to drive a connection: the bytes are read as they came.
func TestStreamsAreGzippedForThoseWhoAcceptIt(t *testing.T) {
	for driven, newFace := range faces {
		t.Run(driven, func(t *testing.T) {
			for name, tt := range map[string]struct {
				on           bool
				accept       string
				want, wanted string // Content-Encoding, Vary
				format       int
			}{
				"accepted":     {true, "gzip", "gzip", "Accept-Encoding", compressed + sseValue},
				"not accepted": {true, "identity", "", "Accept-Encoding", sseValue},
				"off":          {false, "gzip", "", "", sseValue},
			} {
				t.Run(name, func(t *testing.T) {
					f := newFace(t, Config{Compression: tt.on})
					resp := get(t, f.url+"/v1/events?topic=orders", "Accept-Encoding", tt.accept)
					for header, want := range map[string]string{"Content-Encoding": tt.want, "Vary": tt.wanted, "Content-Type": sseType} {
						if got := resp.Header.Get(header); got != want {
							t.Errorf("%s is %q, want %q", header, got, want)
						}
					}
					sub := f.sub(t, 0)
					if sub.req.Format != tt.format {
						t.Errorf("format %d, want %d", sub.req.Format, tt.format)
					}
					var body io.Reader = resp.Body
					if tt.want == "gzip" {
						var err error
						if body, err = gzip.NewReader(body); err != nil {
							t.Fatal(err)
						}
					}
					shared := sharedItem(Formats()[tt.format], "b", 2)
					if blocks, ok := Formats()[tt.format].(fanout.BlockFormat); ok {
						shared.Frame = blocks.AppendBlock(nil, shared.Frame)
					}
					sub.push(item("a", 1), shared, item("c", 3), item(strings.Repeat("d", 5000), 4))
					var got []byte
					for !bytes.Contains(got, []byte("id: P4\n\n")) { // comes at once
						b := make([]byte, 1000)
						n, err := body.Read(b)
						if got = append(got, b[:n]...); err != nil {
							t.Fatalf("%v after %q", err, got)
						}
					}
					if want := "id: P0\n\ndata: a\nid: P1\n\ndata: b\nid: P2\n\ndata: c\nid: P3\n\ndata: ddd"; !bytes.Contains(got, []byte(want)) {
						t.Errorf("got %q", got)
					}
				})
			}
		})
	}
}

// A refusal isn't compressed, and doesn't say that it is.
func TestRefusalsAreNotGzipped(t *testing.T) {
	f := newFace(t, Config{Compression: true})
	resp := get(t, f.url+"/v1/events?topic=orders&nonsense=1", "Accept-Encoding", "gzip")
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 400 || resp.Header.Get("Content-Encoding") != "" || !bytes.Contains(body, []byte(`"field":"nonsense"`)) {
		t.Errorf("%d %v %q (%v)", resp.StatusCode, resp.Header, body, err)
	}
}
