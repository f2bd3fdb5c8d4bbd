package harness

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Issuer makes tokens that a gateway with its configuration takes.
type Issuer struct {
	Config string // of the gateway: auth, with policies that let each subject read the records whose key is its name

	t                    testing.TB
	secret, ticketSecret string
}

// issuerName and audience are what all tokens of the scenarios have.
const issuerName, audience = "https://id.example", "streamgw"

// NewIssuer returns an issuer with a secret of its own. more are further lines of the group auth.
func NewIssuer(t testing.TB, more string) *Issuer {
	t.Helper()
	i := &Issuer{t: t, secret: rand.Text() + rand.Text(), ticketSecret: rand.Text() + rand.Text()}
	dir := t.TempDir()
	for name, text := range map[string]string{"secret": i.secret, "tickets": i.ticketSecret} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i.Config = fmt.Sprintf(`auth:
  mode: jwt
  issuers: [{issuer: %q, audience: [%s], secretFile: %q}]
  ticketSecretFile: %q
  policies:
    - {subscribe: [{topic: "**", keys: ["{sub}"]}]}
    - {when: 'has(claims.all)', subscribe: [{topic: "**"}]}
%s`, issuerName, audience, filepath.Join(dir, "secret"), filepath.Join(dir, "tickets"), more)
	return i
}

// Env is what a gateway needs beside the configuration.
func (i *Issuer) Env() []string { return []string{"STREAMGW_AUTH_MODE=jwt"} }

// Secrets are what nobody else may ever see.
func (i *Issuer) Secrets() []string { return []string{i.secret, i.ticketSecret} }

// Token returns a token of a subject, with other claims in pairs of a name and a value.
func (i *Issuer) Token(subject string, lasts time.Duration, claims ...any) string {
	i.t.Helper()
	now := time.Now()
	all := jwt.MapClaims{"iss": issuerName, "aud": audience, "sub": subject, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(lasts).Unix()}
	for n := 0; n+1 < len(claims); n += 2 {
		all[claims[n].(string)] = claims[n+1]
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, all).SignedString([]byte(i.secret))
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

// Bearer is the header that a token comes with.
func Bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
