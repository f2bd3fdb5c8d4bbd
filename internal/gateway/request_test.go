package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

var (
	ordersID  = stream.Incarnation{1, 2, 3, 4}
	inOrders  = stream.NewPosition(ordersID, "orders", 7, 42)
	elsewhere = stream.NewPosition(ordersID, "users", 1)
)

func many(n int, parameter string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "&%s=%s%d", parameter, parameter, i)
	}
	return b.String()
}

// TestWrongRequests has every wrong request that the gateway itself finds, before a stream opens.
func TestWrongRequests(t *testing.T) {
	f := newFace(t, Config{Served: func(topic string) bool { return topic != "unserved" }})
	token := inOrders.String()
	for name, tt := range map[string]struct {
		path   string
		header string // name: value
		status int
		typ    string
		field  string
		detail string
	}{
		"no topic":              {"/v1/events", "", 400, "bad-request", "topic", "no topic"},
		"empty topic":           {"/v1/events?topic=", "", 400, "bad-request", "topic", "empty"},
		"bad topic":             {"/v1/events?topic=a%20b", "", 400, "bad-request", "topic", `"a b" can't be`},
		"dots":                  {"/v1/events?topic=..", "", 400, "bad-request", "topic", "can't be"},
		"long topic":            {"/v1/events?topic=" + strings.Repeat("a", 250), "", 400, "bad-request", "topic", "can't be"},
		"topic with a line end": {"/v1/events?topic=a%0d%0aid:%20x", "", 400, "bad-request", "topic", "can't be"},
		"pattern":               {"/v1/events?topic=orders.**", "", 400, "bad-request", "topic", "this version"},
		"internal topic":        {"/v1/events?topic=__consumer_offsets", "", 404, "not-found", "topic", "there is no topic __consumer_offsets"},
		"one of them internal":  {"/v1/events?topic=orders&topic=__x", "", 404, "not-found", "topic", "there is no topic __x"},
		"unserved topic":        {"/v1/events?topic=unserved", "", 404, "not-found", "topic", "there is no topic unserved"},
		"too many topics":       {"/v1/events?" + many(65, "topic")[1:], "", 400, "bad-request", "topic", "65 topics"},
		"too many keys":         {"/v1/events?topic=orders" + many(1001, "key"), "", 400, "bad-request", "key", "1000"},
		"too many types":        {"/v1/events?topic=orders" + many(1001, "type"), "", 400, "bad-request", "type", "1000"},
		"empty type":            {"/v1/events?topic=orders&type=", "", 400, "bad-request", "type", "empty"},
		"unknown parameter":     {"/v1/events?topci=orders", "", 400, "bad-request", "topci", "no such parameter"},
		"upper case":            {"/v1/events?topic=orders&From=latest", "", 400, "bad-request", "From", "no such parameter"},
		"repeated":              {"/v1/events?topic=orders&from=latest&from=earliest", "", 400, "bad-request", "from", "2 times"},
		"bad escape":            {"/v1/events?topic=orders%zz", "", 400, "bad-request", "query", "malformed"},
		"semicolon":             {"/v1/events?topic=orders;from=latest", "", 400, "bad-request", "query", "malformed"},
		"format":                {"/v1/events?topic=orders&format=xml", "", 400, "bad-request", "format", "value or record"},
		"format not yet":        {"/v1/events?topic=orders&format=cloudevents", "", 400, "bad-request", "format", "this version"},
		"empty format":          {"/v1/events?topic=orders&format=", "", 400, "bad-request", "format", "value or record"},
		"slow":                  {"/v1/events?topic=orders&slow=down", "", 400, "bad-request", "slow", "replay or close"},
		"slow not yet":          {"/v1/events?topic=orders&slow=conflate", "", 400, "bad-request", "slow", "this version"},
		"snapshot not yet":      {"/v1/events?topic=orders&snapshot=true", "", 400, "bad-request", "snapshot", "this version"},
		"filter not yet":        {"/v1/events?topic=orders&filter=true", "", 400, "bad-request", "filter", "this version"},
		"heartbeat":             {"/v1/events?topic=orders&heartbeat=yes", "", 400, "bad-request", "heartbeat", "comment or event"},
		"event":                 {"/v1/events?topic=orders&event=name", "", 400, "bad-request", "event", "type or absent"},
		"refuse":                {"/v1/events?topic=orders&refuse=me", "", 400, "bad-request", "refuse", "stream or absent"},
		"event over NDJSON":     {"/v1/events?topic=orders&event=type", "Accept: application/x-ndjson", 400, "bad-request", "event", "text/event-stream"},
		"from":                  {"/v1/events?topic=orders&from=yesterday", "", 400, "bad-position", "from", "neither latest"},
		"empty from":            {"/v1/events?topic=orders&from=", "", 400, "bad-request", "from", "empty"},
		"duration forward":      {"/v1/events?topic=orders&from=5m", "", 400, "bad-position", "from", "neither latest"},
		"duration back and on":  {"/v1/events?topic=orders&from=--5m", "", 400, "bad-request", "from", "duration back"},
		"days":                  {"/v1/events?topic=orders&from=-2d", "", 400, "bad-request", "from", "duration back"},
		"date":                  {"/v1/events?topic=orders&from=2026-01-01", "", 400, "bad-position", "from", "RFC 3339"},
		"truncated position":    {"/v1/events?topic=orders&from=" + token[:len(token)-3], "", 400, "bad-position", "from", "cut"},
		"altered position":      {"/v1/events?topic=orders&lastEventId=" + "AQ" + "ICAg" + token[6:], "", 400, "bad-position", "lastEventId", "altered"},
		"future position":       {"/v1/events?topic=orders&lastEventId=Ag" + token[2:], "", 400, "bad-position", "lastEventId", "format 2"},
		"position of 100 KB":    {"/v1/events?topic=orders&lastEventId=" + strings.Repeat("A", 100<<10), "", 400, "bad-position", "lastEventId", "102400 bytes"},
		"long header":           {"/v1/events?topic=orders", "Last-Event-ID: " + strings.Repeat("A", 100<<10), 400, "bad-position", "Last-Event-ID", "102400 bytes"},
		"header not ours":       {"/v1/events?topic=orders", "Last-Event-ID: 17", 400, "bad-position", "Last-Event-ID", "isn't one of this gateway"},
		"long poll":             {"/v1/events?topic=orders", "Accept: application/json", 406, "not-acceptable", "", "long poll"},
		"other media type":      {"/v1/events?topic=orders", "Accept: text/html;q=0.9, image/*", 406, "not-acceptable", "", "text/event-stream"},
		"media type refused":    {"/v1/events?topic=orders", "Accept: text/event-stream;q=0", 406, "not-acceptable", "", "text/event-stream"},
		"no such path":          {"/v2/events", "", 404, "no-such-path", "", ""},
		"root":                  {"/", "", 404, "no-such-path", "", ""},
		"parameters of topics":  {"/v1/topics?topic=orders", "", 400, "bad-request", "topic", "no such parameter"},
		"no upgrade":            {"/v1/ws?topic=orders", "", 426, "upgrade-required", "", "handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := http.NewRequest("GET", f.url+tt.path, nil)
			if header, value, ok := strings.Cut(tt.header, ": "); ok {
				r.Header.Set(header, value)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			checkProblem(t, resp, tt.status, tt.typ, tt.field, tt.detail)
		})
	}
	if n := len(f.hubs.requests); n != 0 {
		t.Errorf("%d of them reached the hubs", n)
	}
}

func checkProblem(t *testing.T, resp *http.Response, status int, name, field, detail string) {
	t.Helper()
	defer resp.Body.Close()
	var p problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type is %q", got)
	}
	if resp.StatusCode != status || p.Status != status || p.Type != "urn:streamgw:problem:"+name || p.Title == "" {
		t.Errorf("got %d and %+v, want %d and %s", resp.StatusCode, p, status, name)
	}
	if p.Field != field || !strings.Contains(p.Detail, detail) {
		t.Errorf("field %q, detail %q; want %q, and %q in it", p.Field, p.Detail, field, detail)
	}
	if len(p.Detail) > 400 {
		t.Errorf("a detail of %d bytes", len(p.Detail))
	}
}

func TestMethodsThatAPathDoesNotTake(t *testing.T) {
	f := newFace(t, Config{})
	resp, err := http.Post(f.url+"/v1/events?topic=orders", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if allow := resp.Header.Get("Allow"); allow != "GET" {
		t.Errorf("Allow is %q", allow)
	}
	checkProblem(t, resp, 405, "method-not-allowed", "", "")
}

// TestWhatHubsRefuse shows how errors of a subscription reach clients.
func TestWhatHubsRefuse(t *testing.T) {
	f := newFace(t, Config{})
	for name, tt := range map[string]struct {
		err        error
		status     int
		typ        string
		field      string
		detail     string
		retryAfter bool
	}{
		"no such topic":     {stream.Errorf(stream.NotFound, "there is no topic orders"), 404, "not-found", "topic", "there is no topic orders", false},
		"position of other": {stream.Errorf(stream.BadPosition, "it knows none"), 400, "bad-position", "lastEventId", "it knows none", false},
		"Kafka away":        {&stream.Error{Kind: stream.Unavailable, Detail: "can't be read now", Err: fmt.Errorf("dial 10.0.0.1")}, 503, "unavailable", "", "can't be read now", true},
		"too many":          {stream.Errorf(stream.TooMany, "x"), 429, "too-many", "", "x", true},
		"not a stream.Error": {
			fmt.Errorf("password 12345 was refused"), 500, "internal", "", "internal error", false,
		},
		"kind Internal":  {stream.Errorf(stream.Internal, "password 12345"), 500, "internal", "", "internal error", false},
		"kind Overload":  {stream.Errorf(stream.Overloaded, "x"), 503, "overloaded", "", "x", true},
		"kind Forbidden": {stream.Errorf(stream.Forbidden, "x"), 403, "forbidden", "", "x", false},
	} {
		t.Run(name, func(t *testing.T) {
			f.hubs.mu.Lock()
			f.hubs.refusal = tt.err
			f.hubs.mu.Unlock()
			resp, err := http.Get(f.url + "/v1/events?topic=orders&lastEventId=" + elsewhere.String())
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.Header.Get("Retry-After") != ""; got != tt.retryAfter {
				t.Errorf("Retry-After is %q", resp.Header.Get("Retry-After"))
			}
			var p problem
			body := json.NewDecoder(resp.Body)
			defer resp.Body.Close()
			if err := body.Decode(&p); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || p.name() != tt.typ || p.Detail != tt.detail || p.Field != tt.field {
				t.Errorf("got %d %+v", resp.StatusCode, p)
			}
		})
	}
}

func TestWhatARequestAsksFor(t *testing.T) {
	g := newGateway(Config{}, newFakeHubs(), &fakeTopics{}, openAccess(t))
	other := elsewhere.String()
	base := func(change func(*request)) request {
		r := request{topicField: "topic", positionField: "from"}
		r.Topics, r.From, r.Slow = []string{"orders"}, fanout.From{At: stream.Latest}, fanout.SlowReplay
		change(&r)
		return r
	}
	at := func(p stream.Position, field string) func(*request) {
		return func(r *request) { r.From, r.positionField = fanout.From{Position: &p}, field }
	}
	for name, tt := range map[string]struct {
		query, header string
		want          request
	}{
		"defaults":           {"topic=orders", "", base(func(*request) {})},
		"topics, each once":  {"topic=orders&topic=users&topic=orders", "", base(func(r *request) { r.Topics = []string{"orders", "users"} })},
		"keys and types":     {"topic=orders&key=a&key=&type=x.v1", "", base(func(r *request) { r.Filter = stream.Filter{Keys: []string{"a", ""}, Types: []string{"x.v1"}} })},
		"latest":             {"topic=orders&from=latest", "", base(func(*request) {})},
		"earliest":           {"topic=orders&from=earliest", "", base(func(r *request) { r.From.At = stream.Earliest })},
		"time":               {"topic=orders&from=2026-01-02T03:04:05.678Z", "", base(func(r *request) { r.From.At = stream.AtTime(time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)) })},
		"time, + unescaped":  {"topic=orders&from=2026-01-02T03:04:05+02:00", "", base(func(r *request) { r.From.At = stream.AtTime(time.Date(2026, 1, 2, 1, 4, 5, 0, time.UTC)) })},
		"position":           {"topic=orders&from=" + other, "", base(at(elsewhere, "from"))},
		"lastEventId":        {"topic=orders&lastEventId=" + inOrders.String() + "&from=" + other, "", base(at(inOrders, "lastEventId"))},
		"header wins":        {"topic=orders&lastEventId=" + other + "&from=earliest", inOrders.String(), base(at(inOrders, "Last-Event-ID"))},
		"overridden, broken": {"topic=orders&lastEventId=bad&from=worse", inOrders.String(), base(at(inOrders, "Last-Event-ID"))},
		"empty lastEventId":  {"topic=orders&lastEventId=&from=earliest", "", base(func(r *request) { r.From.At = stream.Earliest })},
		"words": {
			"topic=orders&format=record&slow=close&event=type&heartbeat=event&refuse=stream", "",
			base(func(r *request) { r.record, r.Slow, r.named, r.heartbeatEvent = true, fanout.SlowClose, true, true }),
		},
		"words that change nothing": {"topic=orders&format=value&slow=replay&heartbeat=comment", "", base(func(*request) {})},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/v1/events?"+tt.query, nil)
			r.Header["Last-Event-Id"] = []string{tt.header}
			grant, _ := g.access.Admit(r)
			got, err := g.parseRequest(r, grant, true)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestDurationBack(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"-5m":       now.Add(-5 * time.Minute),
		"-1h30m":    now.Add(-90 * time.Minute),
		"-0s":       now,
		"-1000000h": time.Unix(0, 0), // before Kafka's time begins
	} {
		got, err := parseFrom(s, now)
		if err != nil || got.At != stream.AtTime(want) {
			t.Errorf("%s: %v, %v; want %v", s, got, err, want)
		}
	}
}

func TestNegotiation(t *testing.T) {
	for accept, want := range map[string]string{
		"":                                 sseType,
		"*/*":                              sseType,
		"*":                                sseType,
		"text/*":                           sseType,
		"text/event-stream":                sseType,
		"Text/Event-Stream; charset=utf-8": sseType,
		"application/x-ndjson":             ndjsonType,
		"application/*":                    ndjsonType,
		"application/x-ndjson, */*;q=0.1":  ndjsonType,
		"text/event-stream;q=0.5, application/x-ndjson":                   ndjsonType,
		"text/event-stream, application/x-ndjson":                         sseType,
		"text/event-stream;q=0, */*":                                      ndjsonType,
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": sseType,
		"garbage, text/event-stream":                                      sseType,
		"application/json":                                                "",
		"application/json, text/event-stream":                             sseType,
		"image/png":                                                       "",
		"text/event-stream;q=2":                                           "",
	} {
		r := httptest.NewRequest("GET", "/v1/events", nil)
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		if got, err := negotiate(r); got != want || (err != nil) != (want == "") {
			t.Errorf("Accept %q: %q, %v; want %q", accept, got, err, want)
		}
	}
}

// FuzzQuery asks for anything at all: the answer is a request that makes sense, or an error that a client can act on.
func FuzzQuery(f *testing.F) {
	g := newGateway(Config{}, newFakeHubs(), &fakeTopics{}, openAccess(f))
	for _, q := range []string{
		"topic=orders", "topic=orders&from=-5m&key=a&type=b", "topic=__x", "a=%zz", "topic=a;b", "topic=orders&lastEventId=" + inOrders.String(),
		"topic=orders&from=2026-01-02T03:04:05+02:00", "topic=orders&slow=close&format=record&event=type", "snapshot=true", "topic=%00", "%=1", "topic", "&&=&",
	} {
		f.Add(q, "")
		f.Add(q, inOrders.String())
	}
	f.Fuzz(func(t *testing.T, query, lastID string) {
		for _, sse := range []bool{true, false} {
			r := &http.Request{URL: &url.URL{Path: "/v1/events", RawQuery: query}, Header: http.Header{"Last-Event-Id": {lastID}}}
			grant, _ := g.access.Admit(r)
			req, err := g.parseRequest(r, grant, sse)
			if err != nil {
				p := problemOf(err)
				if p.Status < 400 || p.Status >= 500 || p.Field == "" || p.Detail == "" {
					t.Errorf("%q, %q: %v became %+v", query, lastID, err, p)
				}
				continue
			}
			for _, topic := range req.Topics {
				if !stream.ValidTopic(topic) || stream.InternalTopic(topic) {
					t.Errorf("%q: topic %q is let in", query, topic)
				}
			}
			if lastID != "" && req.From.Position == nil {
				t.Errorf("%q: the position %q is ignored", query, lastID)
			}
			if len(req.Topics) == 0 && (len(req.Filter.Keys) > 0 || lastID != "") {
				t.Errorf("%q: a filter without a topic is let in", query)
			}
		}
	})
}

// TestABodyThatNeverEndsKeepsNoAnswerBack: net/http would read on before it answers.
func TestABodyThatNeverEndsKeepsNoAnswerBack(t *testing.T) {
	f := newFace(t, Config{})
	for request, status := range map[string]int{
		"POST /v1/tickets HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n": http.StatusNotFound, // this one has no tickets
		"POST /v1/tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\na":          http.StatusNotFound,
		"GET /v1/events?topic=orders HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\na":       http.StatusBadRequest,
		"GET /v1/topics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n":   http.StatusBadRequest,
		"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n":    http.StatusNotFound,
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%q: %v", request, err)
		}
		if response.StatusCode != status || !response.Close {
			t.Errorf("%q is answered with %s, and the connection is kept: %v", request, response.Status, !response.Close)
		}
	}
}
