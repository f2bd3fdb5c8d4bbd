package harness

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Issuer makes tokens for a gateway that it is an option of: its policies let each subject read the records whose key is
// its name, and who has the claim all, everything. It knows what it has given out, which nobody may write down.
type Issuer struct {
	t                    testing.TB
	secret, ticketSecret string
	config               string // of the gateway: auth

	mu    sync.Mutex // guards what follows
	given []string
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
	i.config = fmt.Sprintf(`auth:
  mode: jwt
  issuers: [{issuer: %q, audience: [%s], secretFile: %q}]
  ticketSecretFile: %q
  policies:
    - {subscribe: [{topic: "**", keys: ["{sub}"]}]}
    - {when: 'has(claims.all)', subscribe: [{topic: "**"}]}
%s`, issuerName, audience, filepath.Join(dir, "secret"), filepath.Join(dir, "tickets"), more)
	return i
}

// Gave notes a secret that was given to a client, and returns it.
func (i *Issuer) Gave(secret string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.given = append(i.given, secret)
	return secret
}

// Secrets returns what nobody may write down: its own secrets, and all that was given out.
func (i *Issuer) Secrets() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string{i.secret, i.ticketSecret}, i.given...)
}

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
	return i.Gave(token)
}

// Bearer is the header that a token comes with.
func Bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
