package auth

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/goodgo/streamgw/internal/stream"
)

// publisher is an issuer's server, over TCP. What it does with a request can be changed while it runs.
type publisher struct {
	*httptest.Server
	requests atomic.Int64
	answer   atomic.Pointer[http.HandlerFunc]
}

func newPublisher(t testing.TB, answer http.HandlerFunc) *publisher {
	t.Helper()
	p := &publisher{}
	p.answer.Store(&answer)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		(*p.answer.Load())(w, r)
	}))
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

func (p *publisher) does(answer http.HandlerFunc) { p.answer.Store(&answer) }

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func publishes(t testing.TB, signers ...signer) http.HandlerFunc {
	t.Helper()
	var keys []members
	for _, s := range signers {
		keys = append(keys, s.jwk())
	}
	return says(jwks(t, keys...))
}

func (p *publisher) issuer() Issuer {
	return Issuer{Issuer: issuerName, Audience: []string{audience}, Algorithms: []string{"EdDSA", "ES256"}, JWKS: p.URL + "/keys"}
}

// soon asks often enough for a test that waits for it, and at no time that it depends on.
func soon() VerifierConfig {
	return VerifierConfig{CoolDown: time.Nanosecond, Refresh: time.Hour, FetchTimeout: 10 * time.Second}
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func TestPublishedKeysThatRotate(t *testing.T) {
	one, two := newSigner(t, "EdDSA", "one"), newSigner(t, "ES256", "two")
	p := newPublisher(t, publishes(t, one))
	v := newVerifierWith(t, soon(), p.issuer())
	if n := p.requests.Load(); n != 0 {
		t.Errorf("%d requests before Run", n)
	}
	running(t, v)
	if got := wantAccepted(t, v, one.token(t, goodClaims())); got.KeyID != "one" {
		t.Errorf("verified by %q", got.KeyID)
	}
	wantRefused(t, v, two.token(t, goodClaims()), stream.Unauthorized, "key that its issuer doesn't have")
	p.does(publishes(t, one, two))
	wantAccepted(t, v, two.token(t, goodClaims()))
	wantAccepted(t, v, one.token(t, goodClaims()))
	p.does(publishes(t, two))
	wantRefused(t, v, newSigner(t, "EdDSA", "three").token(t, goodClaims()), stream.Unauthorized, "doesn't have")
	wantRefused(t, v, one.token(t, goodClaims()), stream.Unauthorized, "doesn't have")
	wantAccepted(t, v, two.token(t, goodClaims()))
}

// An issuer with one key and no ids may change it too.
func TestPublishedKeyWithoutID(t *testing.T) {
	one, two := newSigner(t, "EdDSA", ""), newSigner(t, "EdDSA", "")
	p := newPublisher(t, publishes(t, one))
	v := running(t, newVerifierWith(t, soon(), p.issuer()))
	wantAccepted(t, v, one.token(t, goodClaims()))
	p.does(publishes(t, two))
	wantAccepted(t, v, one.token(t, goodClaims())) // nobody had a reason to ask
	wantAccepted(t, v, two.token(t, goodClaims()))
	wantRefused(t, v, one.token(t, goodClaims()), stream.Unauthorized, "signature")
}

func TestIssuerThatIsAway(t *testing.T) {
	one, two := newSigner(t, "EdDSA", "one"), newSigner(t, "EdDSA", "two")
	both := publishes(t, one, two)
	elsewhere := httptest.NewTLSServer(both)
	t.Cleanup(elsewhere.Close)
	var sent atomic.Int64
	for name, answer := range map[string]http.HandlerFunc{
		"status 500": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); both(w, r) },
		"status 404": http.NotFound,
		"status 204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"cuts the connection": func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		},
		"cuts the answer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			both(w, r)
		},
		"nothing":            says(""),
		"garbage":            says("<html>502 Bad Gateway</html>"),
		"another JSON":       says(`{"error":"later"}`),
		"keys that are text": says(`{"keys":["a"]}`),
		"no key that fits":   says(jwks(t, newSigner(t, "RS256", "two").jwk())),
		"garbage after":      func(w http.ResponseWriter, r *http.Request) { both(w, r); both(w, r) },
		"100 MB": func(w http.ResponseWriter, _ *http.Request) {
			sent.Store(0)
			block := bytes.Repeat([]byte(" "), 64<<10)
			for range 1600 {
				n, err := w.Write(block)
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		},
		"a hundred thousand keys": says(`{"keys":[` + strings.Repeat(`{},`, 100_000) + `{}]}`),
		"a redirect in a circle":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) },
		"a redirect to another scheme": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		},
		"a redirect to a file": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		},
		"never": func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done() // the gateway gives up
		},
		"a header that never ends": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for err == nil {
				_, err = fmt.Fprintf(conn, "X-More: %0128d\r\n", 0)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPublisher(t, publishes(t, one))
			var log logLines
			cfg := soon()
			cfg.Log = log.logger()
			if name == "never" {
				cfg.FetchTimeout = 50 * time.Millisecond
			}
			v := running(t, newVerifierWith(t, cfg, p.issuer()))
			wantAccepted(t, v, one.token(t, goodClaims()))
			p.does(answer)
			for range 3 {
				wantRefused(t, v, two.token(t, goodClaims()), stream.Unavailable, "can't be asked")
				wantAccepted(t, v, one.token(t, goodClaims()))
			}
			if n := strings.Count(log.text(), "\n"); n != 1 {
				t.Errorf("told %d times, want once:\n%s", n, log.text())
			}
			if strings.Contains(log.text(), "/keys") {
				t.Errorf("the log tells the URL's path:\n%s", log.text())
			}
			if n := sent.Swap(0); n > 32<<20 { // what the sockets hold beside the 1 MiB that is read
				t.Errorf("took %d MB", n>>20)
			}
			p.does(both)
			eventually(t, "the issuer is back", func() bool {
				_, err := v.Verify(t.Context(), two.token(t, goodClaims()))
				return err == nil
			})
			wantAccepted(t, v, one.token(t, goodClaims()))
		})
	}
}

// TestIssuerThatTakesBackAll: a list without keys is an answer, unlike one with none that can be used.
func TestIssuerThatTakesBackAll(t *testing.T) {
	one := newSigner(t, "EdDSA", "one")
	p := newPublisher(t, publishes(t, one))
	var log logLines
	cfg := soon()
	cfg.Log = log.logger()
	v := running(t, newVerifierWith(t, cfg, p.issuer()))
	wantAccepted(t, v, one.token(t, goodClaims()))
	p.does(says(`{"keys":[]}`))
	_, _ = v.Verify(t.Context(), newSigner(t, "EdDSA", "unknown").token(t, goodClaims())) // has it fetched
	eventually(t, "the key is taken back", func() bool {
		_, err := v.Verify(t.Context(), one.token(t, goodClaims()))
		return err != nil
	})
	wantRefused(t, v, one.token(t, goodClaims()), stream.Unauthorized, "doesn't have")
	if !strings.Contains(log.text(), "publishes no keys") {
		t.Errorf("nothing is said of it:\n%s", log.text())
	}
	p.does(publishes(t, one))
	eventually(t, "it is back", func() bool {
		_, err := v.Verify(t.Context(), one.token(t, goodClaims()))
		return err == nil
	})
}

func TestIssuerThatWasNeverThere(t *testing.T) {
	one := newSigner(t, "EdDSA", "one")
	p := newPublisher(t, says(""))
	cfg := soon()
	cfg.FetchTimeout = 50 * time.Millisecond
	other := issuerOf(t, newSigner(t, "ES256", ""))
	other.Issuer = "https://other.example"
	v := newVerifierWith(t, cfg, p.issuer(), other)
	t.Run("without Run", func(t *testing.T) {
		wantRefused(t, v, one.token(t, goodClaims()), stream.Unavailable, "can't be had")
	})
	running(t, v)
	wantRefused(t, v, one.token(t, goodClaims()), stream.Unavailable, "can't be had")
	// What can be told without keys is told.
	wantRefused(t, v, newSigner(t, "HS256", "").token(t, goodClaims()), stream.Unauthorized, "alg")
	p.does(publishes(t, one))
	eventually(t, "the issuer is there", func() bool {
		_, err := v.Verify(t.Context(), one.token(t, goodClaims()))
		return err == nil
	})
}

// TestIssuerThatHangs shows that only tokens of unknown keys wait for it, and that one fetch serves all who wait.
func TestIssuerThatHangs(t *testing.T) {
	one, two := newSigner(t, "EdDSA", "one"), newSigner(t, "EdDSA", "two")
	p := newPublisher(t, publishes(t, one))
	v := running(t, newVerifierWith(t, soon(), p.issuer()))
	wantAccepted(t, v, one.token(t, goodClaims()))
	before := p.requests.Load()
	asked, release := make(chan struct{}, 10), make(chan struct{})
	p.does(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-release
		publishes(t, one, two)(w, r)
	})
	var waiting sync.WaitGroup
	var ended atomic.Int64
	for range 50 {
		waiting.Go(func() {
			defer ended.Add(1)
			if _, err := v.Verify(t.Context(), two.token(t, goodClaims())); err != nil {
				t.Errorf("a token that waited for its key: %v", err)
			}
		})
	}
	<-asked
	r := v.issuers[issuerName].remote
	eventually(t, "all wait", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.waiting == 50 })
	for range 1000 {
		wantAccepted(t, v, one.token(t, goodClaims()))
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := v.Verify(gone, two.token(t, goodClaims())); err == nil {
		t.Error("accepted with a key that isn't here")
	}
	if n := ended.Load(); n != 0 {
		t.Errorf("%d didn't wait", n)
	}
	close(release)
	waiting.Wait()
	if n := p.requests.Load() - before; n != 1 {
		t.Errorf("%d requests for one new key, want 1", n)
	}
}

// What is published and could sign isn't believed, whatever the algorithms are.
func TestPublishedSecretsAreSkipped(t *testing.T) {
	hs, ec, good := newSigner(t, "HS256", "h"), newSigner(t, "EdDSA", "private"), newSigner(t, "EdDSA", "good")
	set, skipped, err := parseJWKS([]byte(jwks(t, hs.jwk(), ec.jwk().with("d", b64(make([]byte, 32))), good.jwk())), algorithms(), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.keys) != 1 || set.keys[0].id != "good" || len(skipped) != 2 {
		t.Errorf("took %d keys, skipped %q", len(set.keys), skipped)
	}
	for _, why := range skipped {
		if !strings.Contains(why, "made public") {
			t.Errorf("skipped since %q", why)
		}
		wantNothingOf(t, hs.jwk()["k"].(string), why)
	}
}

func TestMetricsOfTokens(t *testing.T) {
	one := newSigner(t, "EdDSA", "one")
	p := newPublisher(t, publishes(t, one))
	cfg := soon()
	registry := prometheus.NewRegistry()
	cfg.Registry = registry
	v := running(t, newVerifierWith(t, cfg, p.issuer()))
	wantAccepted(t, v, one.token(t, goodClaims()))
	wantAccepted(t, v, one.token(t, goodClaims()))
	wantRefused(t, v, one.token(t, goodClaims().with("exp", 1)), stream.Unauthorized, "expired")
	wantRefused(t, v, one.token(t, goodClaims().with("iss", "https://evil.example")), stream.Unauthorized, "iss")
	wantRefused(t, v, "garbage", stream.Unauthorized, "JWT")
	p.does(http.NotFound)
	wantRefused(t, v, newSigner(t, "EdDSA", "two").token(t, goodClaims()), stream.Unavailable, "asked")
	got := map[string]float64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "streamgw_auth_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"keys " + issuerName: 1, "tokens_total  refused": 2, "tokens_total " + issuerName + " accepted": 2,
		"tokens_total " + issuerName + " refused": 1, "tokens_total " + issuerName + " unavailable": 1,
		"key_fetches_total " + issuerName + " ok": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v of %v", name, got[name], want, got)
		}
	}
	if name := "key_fetches_total " + issuerName + " failed"; got[name] < 1 { // it may have been tried again since
		t.Errorf("%s is %v", name, got[name])
	}
}

// TestVerifierUnderChange is for the race detector: many verify while keys rotate.
func TestVerifierUnderChange(t *testing.T) {
	stable := newSigner(t, "EdDSA", "stable")
	p := newPublisher(t, publishes(t, stable))
	v := running(t, newVerifierWith(t, soon(), p.issuer()))
	wantAccepted(t, v, stable.token(t, goodClaims()))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 20 {
				if _, err := v.Verify(t.Context(), stable.token(t, goodClaims())); err != nil {
					t.Errorf("the key that stays: %v", err)
				}
				fresh := newSigner(t, "EdDSA", fmt.Sprint("fresh", i, "-", n))
				if i > 0 {
					_, _ = v.Verify(t.Context(), fresh.token(t, goodClaims()))
					continue
				}
				p.does(publishes(t, stable, fresh))
				eventually(t, "a published key is known", func() bool { // a fetch that began before may come first
					_, err := v.Verify(t.Context(), fresh.token(t, goodClaims()))
					return err == nil
				})
			}
		})
	}
	wg.Wait()
}
