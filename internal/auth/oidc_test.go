package auth

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
)

const wellKnown = "/.well-known/openid-configuration"

// provider publishes a configuration and keys at where that says they are.
func provider(t testing.TB, configuration func(self string) string, signers ...signer) *publisher {
	t.Helper()
	p := newPublisher(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case wellKnown, "/realm" + wellKnown:
			says(configuration("http://"+r.Host))(w, r)
		case "/oauth/keys":
			publishes(t, signers...)(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	return p
}

func TestDiscovery(t *testing.T) {
	for name, path := range map[string]string{"at the root": "", "with a slash": "/", "below a path": "/realm", "below a path with a slash": "/realm/"} {
		t.Run(name, func(t *testing.T) {
			one, two := newSigner(t, "ES256", "one"), newSigner(t, "ES256", "two")
			p := provider(t, func(self string) string {
				return members{"issuer": self + path, "jwks_uri": self + "/oauth/keys", "authorization_endpoint": self}.json(t)
			}, one)
			is := p.issuer()
			is.JWKS, is.OIDC, is.Issuer = "", true, p.URL+path
			v := running(t, newVerifierWith(t, soon(), is))
			wantAccepted(t, v, one.token(t, goodClaims().with("iss", is.Issuer)))
			wantRefused(t, v, one.token(t, goodClaims()), stream.Unauthorized, "(iss)")

			// It moves its keys: the configuration is asked again.
			moved := newPublisher(t, publishes(t, two))
			p.does(func(w http.ResponseWriter, r *http.Request) {
				says(members{"issuer": is.Issuer, "jwks_uri": moved.URL}.json(t))(w, r)
			})
			wantAccepted(t, v, two.token(t, goodClaims().with("iss", is.Issuer)))
		})
	}
}

func TestDiscoveryThatIsntBelieved(t *testing.T) {
	one := newSigner(t, "ES256", "one")
	for name, configuration := range map[string]func(self string) members{
		"another issuer's": func(self string) members {
			return members{"issuer": "https://evil.example", "jwks_uri": self + "/oauth/keys"}
		},
		"a slash more":           func(self string) members { return members{"issuer": self + "/", "jwks_uri": self + "/oauth/keys"} },
		"no issuer":              func(self string) members { return members{"jwks_uri": self + "/oauth/keys"} },
		"no keys":                func(self string) members { return members{"issuer": self} },
		"keys that aren't a URL": func(self string) members { return members{"issuer": self, "jwks_uri": "/oauth/keys"} },
		"keys in a file":         func(self string) members { return members{"issuer": self, "jwks_uri": "file:///etc/keys"} },
		"keys that aren't text":  func(self string) members { return members{"issuer": self, "jwks_uri": []string{self}} },
		"keys that aren't there": func(self string) members { return members{"issuer": self, "jwks_uri": self + "/gone"} },
		"keys with a password": func(self string) members {
			return members{"issuer": self, "jwks_uri": strings.Replace(self, "//", "//u:p@", 1)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := provider(t, func(self string) string { return configuration(self).json(t) }, one)
			is := p.issuer()
			is.JWKS, is.OIDC, is.Issuer = "", true, p.URL
			v := running(t, newVerifierWith(t, soon(), is))
			wantRefused(t, v, one.token(t, goodClaims().with("iss", is.Issuer)), stream.Unavailable, "can't be had")
		})
	}
}

// An issuer with https hands its keys out by https only.
func TestDiscoveryKeepsToHTTPS(t *testing.T) {
	one := newSigner(t, "ES256", "one")
	plain := newPublisher(t, publishes(t, one))
	keys := plain.URL
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == wellKnown {
			says(members{"issuer": "https://" + r.Host, "jwks_uri": keys}.json(t))(w, r)
			return
		}
		publishes(t, one)(w, r)
	})
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshake that is refused below
	server.StartTLS()
	t.Cleanup(server.Close)
	client := keyClient(server.Client())
	if _, err := discover(t.Context(), client, server.URL); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("keys over http of an issuer with https: %v", err)
	}
	keys = server.URL + "/keys"
	if got, err := discover(t.Context(), client, server.URL); err != nil || got != keys {
		t.Errorf("keys at %q: %v", got, err)
	}
	// The same over the whole of it; and with a certificate that nobody vouches for, not.
	is := Issuer{Issuer: server.URL, Audience: []string{audience}, Algorithms: []string{"ES256"}, OIDC: true}
	cfg := soon()
	cfg.HTTPClient = server.Client()
	token := one.token(t, goodClaims().with("iss", server.URL))
	wantAccepted(t, running(t, newVerifierWith(t, cfg, is)), token)
	wantRefused(t, running(t, newVerifierWith(t, soon(), is)), token, stream.Unavailable, "can't be had")
}
