package bench

import (
	"net/url"
	"strings"
	"testing"
)

func requestOf(t *testing.T, cfg Config, at place) string {
	t.Helper()
	base, err := url.Parse("http://gateway:8080")
	if err != nil {
		t.Fatal(err)
	}
	return string(cfg.withDefaults().request(base, at))
}

func TestRequests(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg   Config
		at    place
		wants []string
	}{
		"an event stream": {
			Config{Topic: "a b"}, place{},
			[]string{"GET /v1/events?topic=a+b HTTP/1.1\r\n", "\r\nHost: gateway:8080\r\n", "\r\nAccept: text/event-stream\r\n"},
		},
		"of one key":      {Config{Topic: "t"}, place{key: "K&1"}, []string{"GET /v1/events?topic=t&key=K%261 "}},
		"from a position": {Config{Topic: "t"}, place{position: "p.1"}, []string{"GET /v1/events?topic=t&lastEventId=p.1 "}},
		"with options": {
			Config{Topic: "t", Path: ssePath + "&format=record"}, place{position: "p"}, []string{"GET /v1/events?topic=t&format=record&lastEventId=p "},
		},
		"a WebSocket": {
			Config{Topic: "t", Transport: WebSocket}, place{},
			[]string{"GET /v1/ws?topic=t ", "\r\nUpgrade: websocket\r\n", "\r\nSec-WebSocket-Protocol: streamgw.v1\r\n", "\r\nSec-WebSocket-Version: 13\r\n"},
		},
		"another server": {
			Config{Topic: "t", Path: "/hub/{topic}/{key}", Headers: []string{"Authorization: Bearer {key}"}}, place{key: "k", position: "p"},
			[]string{"GET /hub/t/k HTTP/1.1\r\n", "\r\nLast-Event-ID: p\r\n", "\r\nAuthorization: Bearer k\r\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := requestOf(t, tt.cfg, tt.at)
			for _, want := range tt.wants {
				if !strings.Contains(got, want) {
					t.Errorf("%q lacks %q", got, want)
				}
			}
			if !strings.HasSuffix(got, "\r\n\r\n") {
				t.Errorf("%q doesn't end", got)
			}
		})
	}
}

func TestResponseHeads(t *testing.T) {
	const (
		handshake = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + webSocketAccept + "\r\n\r\n"
		refusal   = "HTTP/1.1 404 Not Found\r\n\r\n{\"title\":\"no such topic\"}"
	)
	for name, tt := range map[string]struct {
		transport Transport
		head      string
		size      int
		how       framing
		err       string
	}{
		"until the end":         {SSE, "HTTP/1.1 200 OK\r\nX: y\r\n\r\ndata", 25, plain, ""},
		"chunked":               {SSE, "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", 47, chunked, ""},
		"not whole":             {SSE, "HTTP/1.1 200 OK\r\n", 0, plain, ""},
		"refused":               {SSE, refusal, 0, plain, "no such topic"},
		"compressed":            {SSE, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", 0, plain, "gzip"},
		"not HTTP":              {SSE, "SSH-2.0 200\r\n\r\n", 0, plain, "SSH"},
		"no WebSocket":          {WebSocket, "HTTP/1.1 200 OK\r\n\r\n", 0, plain, "200 OK"},
		"a WebSocket":           {WebSocket, handshake, len(handshake), frames, ""},
		"another's WebSocket":   {WebSocket, strings.Replace(handshake, "s3p", "xyz", 1), 0, plain, "Sec-WebSocket-Accept"},
		"a head without an end": {SSE, strings.Repeat("x", maxHead+1), 0, plain, "no end"},
	} {
		t.Run(name, func(t *testing.T) {
			size, how, err := responseHead([]byte(tt.head), tt.transport)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
			if err == nil && (size != tt.size || how != tt.how) {
				t.Errorf("size %d and framing %d, want %d and %d", size, how, tt.size, tt.how)
			}
		})
	}
}

func TestSettingsThatCannotBe(t *testing.T) {
	good := Config{URLs: []string{"http://127.0.0.1:8080"}, Conns: 1}
	if err := good.withDefaults().validate(); err != nil {
		t.Fatal(err)
	}
	for flag, change := range map[string]func(*Config){
		"--url: say":     func(c *Config) { c.URLs = nil },
		"--url: \"x\"":   func(c *Config) { c.URLs = []string{"x"} },
		"--url: https":   func(c *Config) { c.URLs = []string{"https://x"} },
		"--conns":        func(c *Config) { c.Conns = 0 },
		"--rate":         func(c *Config) { c.Rate = -1 },
		"--connect-rate": func(c *Config) { c.ConnectRate = -1 },
		"--size":         func(c *Config) { c.Size = MinSize - 1 },
		"--readers":      func(c *Config) { c.Readers = 65 },
		"--duration":     func(c *Config) { c.Duration = -1 },
		"--path":         func(c *Config) { c.Path = "x" },
		"--header":       func(c *Config) { c.Headers = []string{"x"} },
	} {
		c := good
		change(&c)
		if err := c.withDefaults().validate(); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%s: got %v", flag, err)
		}
	}
}

func TestCountersOfAServer(t *testing.T) {
	before, err := readCounters(strings.NewReader("# TYPE streamgw_a_total counter\nstreamgw_a_total{s=\"x y\"} 3\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := readCounters(strings.NewReader(`# HELP streamgw_a_total Help.
# TYPE streamgw_a_total counter
streamgw_a_total{s="x y"} 5
streamgw_a_total{s="z"} 1e+06
# TYPE streamgw_g gauge
streamgw_g 7
# TYPE go_total counter
go_total 9
# TYPE streamgw_still_total counter
streamgw_still_total 0
`))
	if err != nil {
		t.Fatal(err)
	}
	by := before.grown(after)
	if len(by) != 2 || by[`streamgw_a_total{s="x y"}`] != 2 || by[`streamgw_a_total{s="z"}`] != 1e6 {
		t.Errorf("%v", by)
	}
}
