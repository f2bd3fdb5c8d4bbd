package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// connection is one answer of a gateway played by a test: a status and a body, and then the end.
type connection struct {
	status int
	header map[string]string
	body   string
	hold   bool // the stream stays open and silent until the client goes
}

// playGateway answers requests with connections in turn, and says what ids clients came with.
func playGateway(t *testing.T, connections ...connection) (url string, lastIDs func() []string) {
	t.Helper()
	requests := make(chan *http.Request, 100)
	turn := make(chan connection, len(connections))
	for _, c := range connections {
		turn <- c
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		c := connection{status: http.StatusNoContent}
		select {
		case c = <-turn:
		default:
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for name, v := range c.header {
			w.Header().Set(name, v)
		}
		w.WriteHeader(c.status)
		fmt.Fprint(w, c.body)
		_ = http.NewResponseController(w).Flush()
		if c.hold {
			<-r.Context().Done()
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() (ids []string) {
		close(requests)
		for r := range requests {
			ids = append(ids, r.Header.Get("Last-Event-ID"))
		}
		return ids
	}
}

const ok = http.StatusOK

// tailWith runs a tail against a played gateway. It ends by --max or by what the gateway answers.
func tailWith(t *testing.T, url string, change func(*tailing)) (out, notices string, err error) {
	t.Helper()
	var o, n bytes.Buffer
	tail := tailing{gateway: url, topics: []string{"a.b"}, json: true, out: &o, notices: &n, firstRetry: time.Millisecond, longSilence: time.Minute}
	if change != nil {
		change(&tail)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = tail.run(ctx)
	if ctx.Err() != nil {
		t.Error("it didn't end by itself")
	}
	return o.String(), n.String(), err
}

func TestTailGoesOnWhereItWas(t *testing.T) {
	url, lastIDs := playGateway(t,
		connection{status: ok, body: "retry: 1\nid: p0\n\ndata: {\"value\":1}\nid: p1\n\ndata: {\"value\":2}\nid: p2"}, // cut in mid-event
		connection{status: ok, body: ":\n\n"}, // and before anything
		connection{status: ok, body: "id: p1\n\ndata: {\"value\":2}\nid: p2\n\nid: p3\n\n"},
		connection{status: ok, body: "event: streamgw.heartbeat\ndata: {}\n\ndata: {\"value\":3}\nid: p4\n\ndata: {\"value\":4}\nid: p5\n\n"},
	)
	out, _, err := tailWith(t, url, func(tail *tailing) { tail.max = 3 })
	if err != nil {
		t.Fatal(err)
	}
	if want := "{\"value\":1}\n{\"value\":2}\n{\"value\":3}\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if got, want := lastIDs(), []string{"", "p1", "p1", "p3"}; !slices.Equal(got, want) {
		t.Errorf("it came with %q, want %q", got, want)
	}
}

func TestTailRemembersInAFile(t *testing.T) {
	state := filepath.Join(t.TempDir(), "position")
	url, lastIDs := playGateway(t,
		connection{status: ok, body: "id: p0\n\ndata: {\"value\":1}\nid: p1\n\ndata: {\"value\":2}\nid: p2\n\n"},
		connection{status: ok, body: "data: {\"value\":2}\nid: p2\n\nid: p3\n\n"},
		connection{status: http.StatusNoContent},
	)
	for _, want := range []string{"p1", "p3"} {
		_, _, err := tailWith(t, url, func(tail *tailing) {
			if tail.state = state; want == "p1" {
				tail.max = 1
			}
		})
		if want == "p1" && err != nil {
			t.Fatal(err)
		}
		if raw, err := os.ReadFile(state); err != nil || string(raw) != want+"\n" {
			t.Errorf("the file holds %q (%v), want %q", raw, err, want)
		}
	}
	if got, want := lastIDs(), []string{"", "p1", "p3"}; !slices.Equal(got, want) {
		t.Errorf("it came with %q, want %q", got, want)
	}
	files, err := os.ReadDir(filepath.Dir(state))
	if err != nil || len(files) != 1 {
		t.Errorf("%d files are left (%v), want the one", len(files), err)
	}
}

func TestTailStopsWhenComingBackWontHelp(t *testing.T) {
	problem := map[string]string{"Content-Type": "application/problem+json"}
	for name, tt := range map[string]struct {
		connection
		want string
	}{
		"no such topic":       {connection{status: 404, header: problem, body: `{"title":"x","detail":"there is no topic a.b"}`}, "the gateway refuses (404): there is no topic a.b"},
		"a bad position":      {connection{status: 400, header: problem, body: `{"title":"x","detail":"was cut","field":"from"}`}, "the gateway refuses (400): from: was cut"},
		"some other server":   {connection{status: 403, body: "<h1>\x1b[2Jno</h1>"}, `the gateway refuses (403): 403 Forbidden <h1>\x1b[2Jno</h1>`},
		"no stream":           {connection{status: ok, header: map[string]string{"Content-Type": "text/html"}}, `this isn't a stream of events but "text/html": is the URL that of a gateway?`},
		"nothing left":        {connection{status: http.StatusNoContent}, "the gateway refuses (204): there is nothing to read any more"},
		"what isn't a record": {connection{status: ok, body: "data: hello\n\n"}, "the gateway sent what isn't a record: invalid character 'h' looking for beginning of value"},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := playGateway(t, tt.connection)
			_, _, err := tailWith(t, url, nil)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestTailComesBackWhenItMayHelp(t *testing.T) {
	problem := map[string]string{"Content-Type": "application/problem+json"}
	event := connection{status: ok, body: "data: {\"value\":1}\nid: p1\n\n"}
	for name, tt := range map[string]struct {
		before connection
		told   string
	}{
		"kafka is away":       {connection{status: 503, header: problem, body: `{"detail":"Kafka doesn't answer"}`}, "the gateway refuses (503): Kafka doesn't answer; again in "},
		"too many":            {connection{status: 429, header: problem, body: `{"title":"Over a limit"}`}, "the gateway refuses (429): Over a limit; again in "},
		"a refusal as stream": {connection{status: ok, body: "retry: 1\n\nevent: streamgw.error\ndata: {\"status\":503}\n\n"}, `{"status":503}`},
		"a gap":               {connection{status: ok, body: "event: streamgw.gap\ndata: {\"topic\":\"a.b\",\"partition\":2,\"from\":5,\"to\":9,\"reason\":\"retention\"}\n\n"}, "gap: a.b partition 2: offsets from 5 are gone (retention); it goes on at 9"},
		"silence":             {connection{status: ok, body: ":\n\n", hold: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := playGateway(t, tt.before, event)
			out, notices, err := tailWith(t, url, func(tail *tailing) {
				tail.max = 1
				if tt.before.hold {
					tail.longSilence = 20 * time.Millisecond
				}
			})
			if err != nil || out != "{\"value\":1}\n" {
				t.Errorf("got %q, %v", out, err)
			}
			if !strings.Contains(notices, tt.told) {
				t.Errorf("told %q, want %q", notices, tt.told)
			}
		})
	}
}

func TestBackOffGrowsAndIsBounded(t *testing.T) {
	s := eventSource{retry: time.Second}
	for failures, most := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		most *= time.Second
		for range 100 {
			if got := s.backOff(failures, errors.New("down")); got < most/2 || got > most {
				t.Fatalf("after %d failures it waits %v, want from %v to %v", failures, got, most/2, most)
			}
		}
	}
	if got := s.backOff(0, &laterError{errors.New("busy"), 20 * time.Second}); got < 10*time.Second || got > 20*time.Second {
		t.Errorf("told to wait 20s it waits %v", got)
	}
	if got := s.backOff(0, &laterError{errors.New("busy"), 24 * time.Hour}); got > longestWait {
		t.Errorf("told to wait a day it waits %v", got)
	}
}

func TestReadableRecords(t *testing.T) {
	stamp := time.UnixMilli(1767225600123).Local().Format("2006-01-02 15:04:05.000")
	for name, tt := range map[string]struct{ data, want string }{
		"JSON":      {`"key":"k","keyEncoding":"text","value":{"a": 1}`, `k  {"a":1}`},
		"text":      {`"key":"k","keyEncoding":"text","value":"two\nlines","valueEncoding":"text"`, `k  two\nlines`},
		"a string":  {`"key":"k","keyEncoding":"text","value":"s"`, `k  "s"`},
		"bytes":     {`"key":"/w==","keyEncoding":"base64","value":"AQID","valueEncoding":"base64"`, `(1 bytes) /w==  (3 bytes) AQID`},
		"tombstone": {`"key":"k","keyEncoding":"text","value":null`, `k  (deleted)`},
		"JSON null": {`"key":null,"value":null,"valueEncoding":"json"`, `-  null`},
		"empty":     {`"key":"","keyEncoding":"text","value":"","valueEncoding":"text"`, `  `},
		"a terminal's orders": {`"key":"\u001b[2J","keyEncoding":"text","value":"\u001b]0;x\u0007","valueEncoding":"text"`,
			`\x1b[2J  \x1b]0;x\a`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			tail, n := tailing{out: &out}, 0
			data := `{"topic":"a.b","partition":2,"offset":7,"timestamp":1767225600123,` + tt.data + `}`
			if err := tail.print(event{data: []byte(data)}, &n); err != nil {
				t.Fatal(err)
			}
			if want := stamp + "  a.b  2:7  " + tt.want + "\n"; out.String() != want {
				t.Errorf("got  %q\nwant %q", out.String(), want)
			}
		})
	}
}

// eventsOf reads a stream's bytes, whole or one at a time, and returns what was dispatched.
func eventsOf(t *testing.T, stream string, oneByOne bool) (events []string) {
	t.Helper()
	s := eventSource{retry: time.Second, idle: func(string) {}, onEvent: func(e event) error {
		events = append(events, fmt.Sprintf("%q %q %q", e.name, e.data, e.id))
		return nil
	}}
	body := strings.NewReader(stream)
	var err error
	if oneByOne {
		err = s.read(iotest.OneByteReader(body))
	} else {
		err = s.read(body)
	}
	if err != nil {
		t.Fatalf("%q: %v", stream, err)
	}
	return append(events, s.retry.String(), s.lastID)
}

func TestStreamsAreReadAsBrowsersDo(t *testing.T) {
	for name, tt := range map[string]struct {
		stream string
		want   []string
	}{
		"line ends of all kinds":      {"data: a\rdata: b\ndata: c\r\n\rdata: d\n\r\n", []string{`"" "a\nb\nc" ""`, `"" "d" ""`}},
		"one space is taken away":     {"data:a\ndata: b\ndata:  c\n\n", []string{`"" "a\nb\n c" ""`}},
		"names and ids":               {"event: x\ndata: 1\nid: p\n\ndata: 2\n\n", []string{`"x" "1" "p"`, `"" "2" "p"`}},
		"only an id":                  {"id: p\n\ndata: 1\n\n", []string{`"" "1" "p"`}},
		"an empty id":                 {"id: p\n\nid\ndata: 1\n\n", []string{`"" "1" ""`}},
		"an id with a NUL":            {"id: p\x00q\ndata: 1\n\n", []string{`"" "1" ""`}},
		"empty data":                  {"data\n\ndata:\n\n", []string{`"" "" ""`, `"" "" ""`}},
		"an event without data":       {"event: x\n\ndata: 1\n\n", []string{`"" "1" ""`}},
		"comments and unknown fields": {":x\nnope: y\ndata: 1\n\n", []string{`"" "1" ""`}},
		"a byte order mark":           {"\uFEFFdata: 1\n\n", []string{`"" "1" ""`}},
		"cut in mid-event":            {"data: 1\n\ndata: 2\nid: p\n", []string{`"" "1" ""`}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, oneByOne := range []bool{false, true} {
				got := eventsOf(t, tt.stream, oneByOne)
				if got = got[:len(got)-2]; !slices.Equal(got, tt.want) {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			}
		})
	}
	if got := eventsOf(t, "retry: 1234\nretry: x\nretry: -1\n\n", false); got[0] != "1.234s" {
		t.Errorf("retry is %s", got[0])
	}
	if got := eventsOf(t, "retry: 0\n\n", false); got[0] != leastRetry.String() {
		t.Errorf("retry is %s, want no less than %s", got[0], leastRetry)
	}
}

func FuzzStreamReadInPieces(f *testing.F) {
	f.Add("retry: 1\nid: p\n\nevent: x\rdata: 1\r\n\r\n:c\n\n")
	f.Add("\uFEFFdata\n\ndata:\x00\rid: a\x00\n\n")
	f.Fuzz(func(t *testing.T, stream string) {
		whole, pieces := eventsOf(t, stream, false), eventsOf(t, stream, true)
		if !slices.Equal(whole, pieces) {
			t.Errorf("%q: read whole %s, in pieces %s", stream, whole, pieces)
		}
	})
}
