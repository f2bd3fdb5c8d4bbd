//go:build integration

package auth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

// TestARevocationReachesEveryReplica through a compacted topic: those that run, and one that starts later.
func TestARevocationReachesEveryReplica(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(1)
	revocations := topic + ".revocations"
	kafka.CreateTopic(revocations, 1, "cleanup.policy=compact")
	t.Cleanup(func() { kafka.DeleteTopic(revocations) })
	issuer := harness.NewIssuer(t, "  revocations: "+revocations+"\n")
	start := func(name string) *harness.Gateway {
		return harness.StartGateway(t, name, harness.GatewayOptions{Brokers: kafka.Bootstrap, Issuer: issuer})
	}
	a, b := start("gateway-a"), start("gateway-b")
	ann, bob := issuer.Token("ann", time.Hour), issuer.Token("bob", time.Hour)
	open := func(g *harness.Gateway, transport harness.Transport, token string) harness.Stream {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s, err := transport.Open(ctx, harness.Dial{URL: g.URL, Query: url.Values{"topic": {topic}}, Header: harness.Bearer(token)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	streams := map[string]harness.Stream{}
	for _, transport := range harness.Transports() {
		streams[fmt.Sprint("a ", transport)], streams[fmt.Sprint("b ", transport)] = open(a, transport, ann), open(b, transport, ann)
	}
	others := open(b, harness.OverSSE, bob)
	if status, body := do(t, http.MethodDelete, a.Admin+"/v1/connections?subject=ann", ""); status != http.StatusOK || !strings.Contains(string(body), `"closed":2`) {
		t.Fatalf("%d %s", status, body)
	}
	for name, s := range streams {
		for {
			if _, err := s.Next(); err != nil {
				break // it has ended; a stream that lasts would hold the test up
			}
		}
		t.Log("ended:", name)
	}
	late := start("gateway-c") // it isn't ready before it knows
	for _, g := range []*harness.Gateway{a, b, late} {
		if status, body := get(t, g.URL+"/v1/events?topic="+topic, ann); status != http.StatusUnauthorized || !strings.Contains(string(body), "revoked") {
			t.Errorf("%s: %d %s", g.URL, status, body)
		}
		if status, _ := get(t, g.URL+"/v1/events?topic="+topic, bob); status != http.StatusOK {
			t.Errorf("bob at %s: %d", g.URL, status)
		}
		if status, _ := get(t, g.URL+"/v1/events?topic="+revocations, issuer.Token("ops", time.Hour, "all", true)); status != http.StatusNotFound {
			t.Errorf("the topic of revocations is served: %d", status)
		}
	}
	done := make(chan error, 1)
	go func() { _, err := others.Next(); done <- err }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("bob's stream ended: %v", err)
		}
	case <-time.After(time.Second): // nothing came, and it lasts
	}
}
