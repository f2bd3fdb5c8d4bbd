package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// transport answers requests without a network, so that time can be a bubble's.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// bubbleIssuer publishes a set, unless it is away, and remembers when it was asked.
type bubbleIssuer struct {
	mu    sync.Mutex // guards what follows
	set   string     // "" while it is away
	asked []time.Time
}

func (b *bubbleIssuer) publish(set string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set = set
}

func (b *bubbleIssuer) requests() []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

func (b *bubbleIssuer) client() *http.Client {
	return &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.asked = append(b.asked, time.Now()); b.set == "" {
			return nil, errors.New("away")
		}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(b.set))}, nil
	})}
}

func remoteIssuer() Issuer {
	return Issuer{Issuer: issuerName, Audience: []string{audience}, Algorithms: []string{"EdDSA"}, JWKS: "https://id.example/keys"}
}

// TestFloodOfUnknownKeys counts what it costs the issuer, and what it does to a new key.
func TestFloodOfUnknownKeys(t *testing.T) {
	one, two := newSigner(t, "EdDSA", "one"), newSigner(t, "EdDSA", "two")
	oneSet, bothSet := jwks(t, one.jwk()), jwks(t, one.jwk(), two.jwk())
	synctest.Test(t, func(t *testing.T) {
		is := bubbleIssuer{set: oneSet}
		v := running(t, newVerifierWith(t, VerifierConfig{Refresh: 24 * time.Hour, HTTPClient: is.client()}, remoteIssuer()))
		begin := time.Now()
		for i := range 600 { // a minute of ten a second
			bad := signer{"EdDSA", fmt.Sprint("bad", i), two.private}
			wantRefused(t, v, bad.token(t, goodClaims()), stream.Unauthorized, "doesn't have")
			wantAccepted(t, v, one.token(t, goodClaims()))
			time.Sleep(100 * time.Millisecond)
		}
		requests := is.requests()
		if len(requests) < 5 || len(requests) > 7 {
			t.Errorf("%d requests in a minute", len(requests))
		}
		for i := range requests[1:] {
			if apart := requests[i+1].Sub(requests[i]); apart < 10*time.Second {
				t.Errorf("two requests %s apart", apart)
			}
		}
		if waited := time.Since(begin); waited > time.Minute+time.Second {
			t.Errorf("they waited: %s for a minute of them", waited)
		}
		// A new key is known once the cool-down allows.
		is.publish(bothSet)
		time.Sleep(10 * time.Second)
		wantAccepted(t, v, two.token(t, goodClaims()))
	})
}

// A fetch nobody asked for counts too, and one that is wanted while another begins isn't made twice.
func TestRegularRefresh(t *testing.T) {
	one, two := newSigner(t, "EdDSA", "one"), newSigner(t, "EdDSA", "two")
	oneSet, twoSet := jwks(t, one.jwk()), jwks(t, two.jwk())
	synctest.Test(t, func(t *testing.T) {
		is := bubbleIssuer{set: oneSet}
		v := running(t, newVerifierWith(t, VerifierConfig{HTTPClient: is.client()}, remoteIssuer()))
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(is.requests()); n < 9 || n > 17 { // 12 on the average, give or take a quarter each
			t.Errorf("%d requests in an hour", n)
		}
		is.publish("")
		time.Sleep(24 * time.Hour)
		wantAccepted(t, v, one.token(t, goodClaims())) // the last good keys serve
		is.publish(twoSet)
		time.Sleep(10*time.Second + time.Millisecond) // once there was an answer again, the rest is regular
		synctest.Wait()
		wantAccepted(t, v, two.token(t, goodClaims()))
		wantRefused(t, v, one.token(t, goodClaims()), stream.Unauthorized, "doesn't have")
	})
}

// TestCrowdThatWaits shows the bound of who waits for an issuer that hangs, and that they all go in the end.
func TestCrowdThatWaits(t *testing.T) {
	one := newSigner(t, "EdDSA", "one")
	token := one.token(t, goodClaims())
	synctest.Test(t, func(t *testing.T) {
		v := running(t, newVerifierWith(t, VerifierConfig{HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}}, remoteIssuer()))
		begin := time.Now()
		var atOnce, later atomic.Int64
		for range maxWaiting + 76 {
			go func() {
				_, err := v.Verify(t.Context(), token)
				if e, ok := errors.AsType[*stream.Error](err); !ok || e.Kind != stream.Unavailable {
					t.Errorf("refused with %v", err)
				}
				if time.Now().Equal(begin) {
					atOnce.Add(1)
				} else {
					later.Add(1)
				}
			}()
		}
		synctest.Wait()
		if n := atOnce.Load(); n != 76 {
			t.Errorf("%d were refused at once, want those beyond %d", n, maxWaiting)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := later.Load(); n != maxWaiting {
			t.Errorf("%d are through after the time for a fetch, want %d", n, maxWaiting)
		}
	})
}

// After Run nobody waits for what will not come.

func TestVerifyAfterRun(t *testing.T) {
	one := newSigner(t, "EdDSA", "one")
	synctest.Test(t, func(t *testing.T) {
		v := newVerifierWith(t, VerifierConfig{HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}}, remoteIssuer())
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- v.Run(ctx) }()
		begin := time.Now()
		go func() {
			time.Sleep(time.Second)
			stop()
		}()
		wantRefused(t, v, one.token(t, goodClaims()), stream.Unavailable, "can't be had")
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		wantRefused(t, v, one.token(t, goodClaims()), stream.Unavailable, "can't be had")
		if waited := time.Since(begin); waited != time.Second {
			t.Errorf("waited %s, want until Run ended and no longer", waited)
		}
	})
}
