package harness

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// fakeGateway serves the numbers 0 to count-1 of one partition; a position is the next number. resumeAt spoils where a
// resumed stream goes on.
type fakeGateway struct {
	count    int64
	resumeAt func(n int64) int64
}

func (g fakeGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	token := cmp.Or(r.Header.Get("Last-Event-ID"), q.Get("lastEventId"), q.Get("from"))
	next := int64(0)
	if token != "earliest" {
		n, err := strconv.ParseInt(token, 10, 64)
		if err != nil {
			http.Error(w, "no such position: "+token, http.StatusBadRequest)
			return
		}
		next = g.resumeAt(n)
	}
	if r.URL.Path == "/v1/ws" {
		g.webSocket(w, r, next)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(w, "retry: 100\nid: %d\n\n", next)
	for ; next < g.count; next++ {
		fmt.Fprintf(w, "data: %s\nid: %d\n\n: beat\n\n", AppendNumber(nil, Number{0, 0, next}, 200), next+1)
	}
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func (g fakeGateway) webSocket(w http.ResponseWriter, r *http.Request, next int64) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"streamgw.v1"}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(r.Context())
	write := func(frame string) { _ = conn.Write(ctx, websocket.MessageText, []byte(frame)) }
	write(fmt.Sprintf(`{"type":"subscribed","position":"%d"}`, next))
	for ; next < g.count; next++ {
		write(fmt.Sprintf(`{"type":"event","topic":"t","event":%s,"position":"%d"}`, AppendNumber(nil, Number{0, 0, next}, 200), next+1))
	}
	<-ctx.Done()
}

// crowdOf runs clients of a fake gateway that cut their connections every few events.
func crowdOf(t *testing.T, g fakeGateway, transport Transport) *Crowd {
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	var clients []*Client
	for i := range 5 {
		clients = append(clients, &Client{
			Name: fmt.Sprintf("%s %d", transport, i), Transport: transport, Targets: []string{server.URL},
			Query: Topics([]string{"t"}, "from=earliest"), Ledger: NewLedger(), Rand: rand.New(rand.NewPCG(1, uint64(i))),
			Cut: func(r *rand.Rand) *Cut { return &Cut{After: r.Int64N(5000)} },
		})
	}
	return StartCrowd(t, clients...)
}

func TestClientsThatCutThemselvesGetEveryNumberOnce(t *testing.T) {
	for _, transport := range Transports() {
		t.Run(string(transport), func(t *testing.T) {
			crowd := crowdOf(t, fakeGateway{300, func(n int64) int64 { return n }}, transport)
			crowd.WaitCount(300, 30*time.Second)
			if sum := crowd.Tally(); sum.Cuts == 0 || sum.Resumed == 0 || sum.Broken != 0 || sum.Refused != 0 {
				t.Errorf("%+v", sum)
			}
		})
	}
}

func TestClientsSeeWhatAGatewayDoesWrong(t *testing.T) {
	for name, resumeAt := range map[string]func(n int64) int64{
		"repeats": func(n int64) int64 { return max(0, n-1) },
		"loses":   func(n int64) int64 { return n + 1 },
	} {
		for _, transport := range Transports() {
			t.Run(name+" over "+string(transport), func(t *testing.T) {
				crowd := crowdOf(t, fakeGateway{300, resumeAt}, transport)
				Until(t, 30*time.Second, "each client sees it", func() bool {
					for _, c := range crowd.Clients {
						if c.Fault() == nil {
							return false
						}
					}
					return true
				})
			})
		}
	}
}

func TestRefusedPositionIsAFault(t *testing.T) {
	server := httptest.NewServer(fakeGateway{})
	defer server.Close()
	for _, transport := range Transports() {
		c := &Client{Transport: transport, Targets: []string{server.URL}, Query: Topics([]string{"t"}, "from=nowhere"), Rand: rand.New(rand.NewPCG(1, 1))}
		c.Run(t.Context())
		if err := c.Fault(); err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("%s: %v", transport, err)
		}
	}
}

func TestServerSentEventsAreReadAsTheStandardSays(t *testing.T) {
	const stream = ":hello\nretry: 5\nid: p0\n\n" + // id only
		"data: one\ndata:two\ndata:  three\nid: p1\n\n" +
		": beat\n\n" +
		"event: streamgw.gap\ndata: {\"topic\":\"t\",\"partition\":2,\"from\":3,\"to\":9,\"reason\":\"retention\"}\n\n" +
		"data: a\rdata: b\r\ndata: c\nid: p2\n\r\n" +
		"data\nid: p3\n\n" +
		"data: cut"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte(stream))
	}))
	defer server.Close()
	s, err := OpenSSE(t.Context(), Dial{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, want := range []Event{
		{Kind: Position, Position: []byte("p0")},
		{Data: []byte("one\ntwo\n three"), Position: []byte("p1")},
		{Kind: Gap, Name: "streamgw.gap", Data: []byte(`{"topic":"t","partition":2,"from":3,"to":9,"reason":"retention"}`)},
		{Data: []byte("a\nb\nc"), Position: []byte("p2")},
		{Data: []byte(""), Position: []byte("p3")},
	} {
		e, err := s.Next()
		if err != nil || e.Kind != want.Kind || e.Name != want.Name || string(e.Data) != string(want.Data) || string(e.Position) != string(want.Position) {
			t.Fatalf("event %d: %d %q %q %q, %v", i, e.Kind, e.Name, e.Data, e.Position, err)
		}
		if g, err := e.Gap(); e.Kind == Gap && (err != nil || g != GapData{"t", 2, 3, 9, "retention"}) {
			t.Errorf("gap %+v, %v", g, err)
		}
	}
	if e, err := s.Next(); err == nil {
		t.Errorf("half a block is an event: %q", e.Data)
	}
	if s.Comments != 2 {
		t.Errorf("%d comments", s.Comments)
	}
}

func TestFramesAreReadWhereverTheirFieldsStand(t *testing.T) {
	for frame, want := range map[string]Event{
		`{"type":"event","topic":"t","event":{"a":1},"position":"P"}`:            {Position: []byte("P"), Data: []byte(`{"a":1}`)},
		`{"type":"event","topic":"t","event":{"a":1},"position":"P","id":"i"}`:   {Position: []byte("P"), Data: []byte(`{"a":1}`)},
		`{"type":"event","topic":"t","position":"P","event":{"a":1}}`:            {Position: []byte("P"), Data: []byte(`{"a":1}`)},
		`{"type":"event","event":{"a":",\"position\":\"X\""},"position":"P"}`:    {Position: []byte("P"), Data: []byte(`{"a":",\"position\":\"X\""}`)},
		`{"type":"event","position":"P","event":{"x":[{"y":",\"event\":"}]}}`:    {Position: []byte("P"), Data: []byte(`{"x":[{"y":",\"event\":"}]}`)},
		`{"type":"subscribed","position":"P"}`:                                   {Kind: Position, Position: []byte("P"), Data: []byte(`{"type":"subscribed","position":"P"}`)},
		`{"type":"gap","topic":"t","partition":1,"from":2,"to":3,"reason":"re"}`: {Kind: Gap, Data: []byte(`{"type":"gap","topic":"t","partition":1,"from":2,"to":3,"reason":"re"}`)},
		`{"type":"pong"}`: {Kind: Control, Data: []byte(`{"type":"pong"}`)},
	} {
		e, err := parseFrame([]byte(frame))
		if err != nil || e.Kind != want.Kind || string(e.Data) != string(want.Data) || string(e.Position) != string(want.Position) {
			t.Errorf("%s: %d %q %q, %v", frame, e.Kind, e.Data, e.Position, err)
		}
	}
	if _, err := parseFrame([]byte(`{"type":"error","title":"no"}`)); err == nil {
		t.Error("an error frame is no error")
	}
}

func TestStreamEndsWhenItsClientIsTold(t *testing.T) {
	server := httptest.NewServer(fakeGateway{1, func(n int64) int64 { return n }})
	defer server.Close()
	for _, transport := range Transports() {
		ctx, cancel := context.WithCancel(t.Context())
		c := &Client{Transport: transport, Targets: []string{server.URL}, Query: Topics([]string{"t"}, "from=earliest"), Ledger: NewLedger(), Rand: rand.New(rand.NewPCG(1, 1))}
		ended := make(chan struct{})
		go func() { defer close(ended); c.Run(ctx) }()
		Until(t, 10*time.Second, "the number has come", func() bool { return c.Ledger.Count() == 1 })
		cancel()
		<-ended
		if err := c.Fault(); err != nil {
			t.Error(err)
		}
	}
}
