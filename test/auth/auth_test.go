//go:build integration

// Package auth shows, with a real gateway and a real Kafka, that nobody is ever given another's events, that keys rotate
// under streams, that tickets work in a real browser, and that no secret is written down.
package auth

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

// subjects is how many there are, each with a key of its own on one topic.
const subjects = 10_000

// TestTenThousandSubjectsGetTheirOwn over SSE and WebSocket: live, after cuts of their own, and from history. A ledger takes the
// numbers of its own key alone, each once and in order: a number of another's, or none, fails the test.
func TestTenThousandSubjectsGetTheirOwn(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	issuer := harness.NewIssuer(t, "")
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{
		Brokers: kafka.Bootstrap, Issuer: issuer, Config: harness.SmallWindows + "cors: {origins: []}\n",
	})
	producer := kafka.NewProducer(topic)
	producer.Keys = subjects

	crowd := func(which func(i int) bool, from string, cut func() func(*rand.Rand) *harness.Cut) *harness.Crowd {
		var clients []*harness.Client
		for i := range subjects {
			if !which(i) {
				continue
			}
			clients = append(clients, &harness.Client{
				Name: fmt.Sprintf("subject k%d", i), Transport: harness.Transports()[i%2], Targets: []string{gateway.URL},
				Query:  harness.Topics([]string{topic}, "from="+from),
				Header: harness.Bearer(issuer.Token(fmt.Sprintf("k%d", i), time.Hour)),
				Ledger: harness.NewLedgerOf(int64(i), subjects), Rand: rand.New(rand.NewPCG(3, uint64(i))), Cut: cut(),
			})
		}
		return harness.StartCrowd(t, clients...)
	}
	// Half of the first connections are cut by their client, some in mid-frame.
	live := crowd(func(int) bool { return true }, "latest", func() func(*rand.Rand) *harness.Cut {
		first := true
		return func(r *rand.Rand) *harness.Cut {
			if !first || r.IntN(2) == 0 {
				return nil
			}
			first = false
			return &harness.Cut{After: 300 + r.Int64N(600), Away: time.Duration(r.IntN(3000)) * time.Millisecond}
		}
	})
	live.WaitStanding(3 * time.Minute)
	start := time.Now()
	const rounds = 2 // numbers of each partition for each subject
	for range rounds {
		producer.SendAll(subjects, 0, 1, 2)
	}
	live.WaitCount(3*rounds, 3*time.Minute)
	tally := live.Tally()
	t.Logf("%d subjects had their %d events each after %.1f s, over %d connections, of which %d resumed", subjects, 3*rounds, time.Since(start).Seconds(), tally.Connected, tally.Resumed)
	if tally.Resumed < subjects/10 {
		t.Errorf("only %d connections resumed", tally.Resumed)
	}
	live.Stop()

	history := crowd(func(i int) bool { return i%20 == 0 }, "earliest", func() func(*rand.Rand) *harness.Cut { return nil })
	history.WaitCount(3*rounds, 2*time.Minute)
	t.Logf("%d subjects had theirs from history", len(history.Clients))

	// Who asks for another's, by key or by position, gets nothing of it.
	other := history.Clients[1].Position()
	token := issuer.Token("k0", time.Hour)
	for query, want := range map[string]int{"key=k20": 403, "key=k20&from=earliest": 403, "key=k20&key=k40": 403} {
		if status, _ := get(t, gateway.URL+"/v1/events?topic="+topic+"&"+query, token); status != want {
			t.Errorf("%s of another's: %d", query, status)
		}
	}
	for _, transport := range harness.Transports() {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		s, err := transport.Open(ctx, harness.Dial{URL: gateway.URL, Query: url.Values{"topic": {topic}}, Position: other, Header: harness.Bearer(token)})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		producer.SendAll(subjects, 0) // one for each
		for {
			e, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind != harness.Message {
				continue
			}
			n, err := harness.ParseNumber(e.Data)
			if err != nil || n.N%subjects != 0 {
				t.Fatalf("at another's position, k0 got %s, %v", e.Data, err)
			}
			break
		}
		s.Close()
	}
	history.Stop()
	harness.Until(t, time.Minute, "no connection is left", func() bool {
		_, body := get(t, gateway.Admin+"/v1/connections?subject=k1", "")
		return bytes.Contains(body, []byte(`"open":0`))
	})
}

func get(t *testing.T, address, token string, headers ...string) (status int, body []byte) {
	t.Helper()
	return do(t, http.MethodGet, address, token, headers...)
}

func do(t *testing.T, method, address, token string, headers ...string) (status int, body []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header = harness.Bearer(token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	piece := make([]byte, 64<<10)
	for { // a stream has no end
		n, err := resp.Body.Read(piece)
		if body = append(body, piece[:n]...); err != nil || bytes.HasPrefix(body, []byte("retry:")) {
			return resp.StatusCode, body
		}
	}
}
