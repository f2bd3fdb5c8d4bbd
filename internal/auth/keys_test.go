package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// TestWrongSettings shows that each is told at the start, by its name.
func TestWrongSettings(t *testing.T) {
	r, ec, hs := newSigner(t, "RS256", "r"), newSigner(t, "ES256", "e"), newSigner(t, "HS256", "h")
	small := signer{"RS256", "s", mustRSA(t, 1024)}
	secret := string(hs.private.([]byte))
	good := Issuer{Issuer: issuerName, Audience: []string{audience}, Algorithms: []string{"RS256"}, PublicKeyFile: file(t, r.pem(t))}
	private, _ := x509.MarshalPKCS8PrivateKey(r.private)
	privatePEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	keys := func(change func(*Issuer)) Issuer {
		is := good
		is.PublicKeyFile = ""
		change(&is)
		return is
	}
	but := func(change func(*Issuer)) Issuer {
		is := good
		change(&is)
		return is
	}
	for name, tt := range map[string]struct {
		issuers []Issuer
		says    []string
	}{
		"no issuer at all":   {nil, []string{"auth.issuers:"}},
		"no name":            {[]Issuer{but(func(is *Issuer) { is.Issuer = "" })}, []string{"auth.issuers[0].issuer:"}},
		"no audience":        {[]Issuer{but(func(is *Issuer) { is.Audience = nil })}, []string{"auth.issuers[0].audience:"}},
		"an empty audience":  {[]Issuer{but(func(is *Issuer) { is.Audience = []string{"a", ""} })}, []string{"auth.issuers[0].audience:"}},
		"no algorithm":       {[]Issuer{but(func(is *Issuer) { is.Algorithms = nil })}, []string{"auth.issuers[0].algorithms:", "RS256"}},
		"algorithm none":     {[]Issuer{but(func(is *Issuer) { is.Algorithms = []string{"RS256", "none"} })}, []string{"auth.issuers[0].algorithms:", "nobody signed"}},
		"algorithm mistyped": {[]Issuer{but(func(is *Issuer) { is.Algorithms = []string{"RSA256"} })}, []string{"did you mean RS256?"}},
		"in lower case":      {[]Issuer{but(func(is *Issuer) { is.Algorithms = []string{"es384"} })}, []string{"did you mean ES384?"}},
		"very long":          {[]Issuer{but(func(is *Issuer) { is.Algorithms = []string{strings.Repeat("PS512", 1000)} })}, []string{"did you mean PS512?"}},
		"much skew":          {[]Issuer{but(func(is *Issuer) { is.ClockSkew = time.Hour })}, []string{"auth.issuers[0].clockSkew:"}},
		"no keys":            {[]Issuer{keys(func(*Issuer) {})}, []string{"secretFile", "oidc"}},
		"two sources":        {[]Issuer{but(func(is *Issuer) { is.OIDC = true })}, []string{"oidc, publicKeyFile:"}},
		"the same twice":     {[]Issuer{good, good}, []string{"auth.issuers[1].issuer:"}},
		"all that is wrong": {[]Issuer{but(func(is *Issuer) { is.Audience = nil }), but(func(is *Issuer) { is.Issuer = "b"; is.PublicKeyFile = "/nowhere" })},
			[]string{"auth.issuers[0].audience:", "auth.issuers[1].publicKeyFile:", "/nowhere"}},

		"a public key for HS256": {[]Issuer{but(func(is *Issuer) { is.Algorithms = []string{"HS256"} })}, []string{"auth.issuers[0].algorithms:", "everybody"}},
		"a set at a URL for HS256": {[]Issuer{keys(func(is *Issuer) { is.JWKS = "https://id.example/keys"; is.Algorithms = []string{"HS256"} })},
			[]string{"auth.issuers[0].algorithms:"}},
		"HS beside RS":          {[]Issuer{but(func(is *Issuer) { is.Algorithms = []string{"RS256", "HS256"} })}, []string{"auth.issuers[0].algorithms:"}},
		"HS beside RS, in file": {[]Issuer{keys(func(is *Issuer) { is.JWKSFile = "x"; is.Algorithms = []string{"HS256", "RS256"} })}, []string{"can't stand beside"}},
		"a secret for RS256":    {[]Issuer{keys(func(is *Issuer) { is.SecretFile = file(t, secret) })}, []string{"auth.issuers[0].algorithms:", "secretFile"}},
		"a short secret": {[]Issuer{keys(func(is *Issuer) { is.SecretFile = file(t, secret[:31]); is.Algorithms = nil })},
			[]string{"auth.issuers[0].secretFile:", "at least 32 bytes", "has 31"}},
		"short for one of them": {[]Issuer{keys(func(is *Issuer) { is.SecretFile = file(t, secret[:48]); is.Algorithms = []string{"HS256", "HS512"} })},
			[]string{"auth.issuers[0].secretFile:", "HS512", "64 bytes"}},
		"an empty secret": {[]Issuer{keys(func(is *Issuer) { is.SecretFile = file(t, "\n"); is.Algorithms = nil })}, []string{"has 0"}},

		"no such file":    {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = filepath.Join(t.TempDir(), "gone") })}, []string{"auth.issuers[0].publicKeyFile:"}},
		"a folder":        {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = t.TempDir() })}, []string{"auth.issuers[0].publicKeyFile:"}},
		"a device":        {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = "/dev/null" })}, []string{"auth.issuers[0].publicKeyFile:"}},
		"a huge file":     {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = file(t, strings.Repeat("x", 2<<20)) })}, []string{"auth.issuers[0].publicKeyFile:", "larger"}},
		"not PEM":         {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = file(t, "secret stuff") })}, []string{"auth.issuers[0].publicKeyFile:", "PEM"}},
		"a pipe":          {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = pipe(t) })}, []string{"auth.issuers[0].publicKeyFile:"}},
		"PEM spoilt":      {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = file(t, strings.Replace(r.pem(t), "M", "%", 1)+r.pem(t)) })}, []string{"PEM"}},
		"PEM cut off":     {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = file(t, r.pem(t)+r.pem(t)[:90]) })}, []string{"PEM"}},
		"a private key":   {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = file(t, r.pem(t)+privatePEM) })}, []string{"key 2", "private"}},
		"a small key":     {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = file(t, small.pem(t)) })}, []string{"2048", "has 1024"}},
		"of another kind": {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = file(t, ec.pem(t)) })}, []string{"RS256 takes an RSA key"}},
		"of another curve": {[]Issuer{but(func(is *Issuer) {
			is.PublicKeyFile = file(t, ec.pem(t))
			is.Algorithms = []string{"ES384"}
		})}, []string{"P-384"}},
		"too many keys": {[]Issuer{but(func(is *Issuer) { is.PublicKeyFile = file(t, strings.Repeat(r.pem(t), 9)) })}, []string{"at most 8"}},

		"a set that isn't one": {[]Issuer{keys(func(is *Issuer) { is.JWKSFile = file(t, r.jwk().json(t)) })}, []string{"auth.issuers[0].jwksFile:", `"keys"`}},
		"an empty set":         {[]Issuer{keys(func(is *Issuer) { is.JWKSFile = file(t, jwks(t)) })}, []string{"auth.issuers[0].jwksFile:"}},
		"a private key in a set": {[]Issuer{keys(func(is *Issuer) {
			is.JWKSFile = file(t, jwks(t, r.jwk().with("d", b64(r.private.(*rsa.PrivateKey).D.Bytes()))))
		})}, []string{"private"}},
		"nothing in a set that fits": {[]Issuer{keys(func(is *Issuer) { is.JWKSFile = file(t, jwks(t, ec.jwk(), hs.jwk())) })}, []string{"RS256", `kid "e"`}},

		"no URL":             {[]Issuer{keys(func(is *Issuer) { is.JWKS = "id.example/keys" })}, []string{"auth.issuers[0].jwks:", "https"}},
		"another scheme":     {[]Issuer{keys(func(is *Issuer) { is.JWKS = "file:///etc/keys" })}, []string{"auth.issuers[0].jwks:"}},
		"a password":         {[]Issuer{keys(func(is *Issuer) { is.JWKS = "https://u:verysecret@id.example" })}, []string{"auth.issuers[0].jwks:", "password"}},
		"oidc without a URL": {[]Issuer{keys(func(is *Issuer) { is.OIDC = true; is.Issuer = "me" })}, []string{"auth.issuers[0].issuer:", "oidc"}},
		"oidc with a query":  {[]Issuer{keys(func(is *Issuer) { is.OIDC = true; is.Issuer = "https://id.example?a=b" })}, []string{"query"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewVerifier(tt.issuers, VerifierConfig{})
			if err == nil {
				t.Fatal("accepted")
			}
			for _, says := range tt.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%q doesn't say %q", err, says)
				}
			}
			for _, hidden := range []string{secret[:16], "verysecret", "secret stuff", b64(r.private.(*rsa.PrivateKey).D.Bytes())[:16]} {
				if strings.Contains(err.Error(), hidden) {
					t.Errorf("%q tells a secret", err)
				}
			}
		})
	}
	if _, err := NewVerifier([]Issuer{good}, VerifierConfig{ClockSkew: time.Hour}); err == nil || !strings.Contains(err.Error(), "auth.clockSkew") {
		t.Errorf("an hour's skew: %v", err)
	}
}

func mustRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestFilesThatHoldKeys(t *testing.T) {
	r, r2, ec, hs, hs2 := newSigner(t, "RS256", "r"), newSigner(t, "PS384", "r2"), newSigner(t, "ES256", "e"), newSigner(t, "HS256", "h"), newSigner(t, "HS256", "h2")
	certificate := func(s signer) string {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: noon().AddDate(-3, 0, 0), NotAfter: noon().AddDate(-2, 0, 0)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, s.public(), s.private)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(r.public().(*rsa.PublicKey))}))
	three := []string{"RS256", "PS384", "ES256"}
	for name, tt := range map[string]struct {
		is       Issuer
		accepted []signer
		refused  []signer
	}{
		"a PKCS 1 key":                 {Issuer{Algorithms: three, PublicKeyFile: file(t, pkcs1)}, []signer{r}, []signer{r2, ec}},
		"a certificate, long expired":  {Issuer{Algorithms: three, PublicKeyFile: file(t, certificate(r))}, []signer{r}, []signer{r2}},
		"several, with words between":  {Issuer{Algorithms: three, PublicKeyFile: file(t, "old:\n"+r.pem(t)+"new:\n"+r2.pem(t)+ec.pem(t))}, []signer{r, r2, ec}, nil},
		"a secret with a line end":     {Issuer{SecretFile: file(t, string(hs.private.([]byte))+"\r\n")}, []signer{hs}, []signer{hs2}},
		"a secret without a line end":  {Issuer{SecretFile: file(t, string(hs.private.([]byte)))}, []signer{hs}, []signer{hs2}},
		"a set":                        {Issuer{Algorithms: three, JWKSFile: file(t, jwks(t, r.jwk(), r2.jwk()))}, []signer{r, r2}, []signer{ec}},
		"a set of secrets":             {Issuer{Algorithms: []string{"HS256"}, JWKSFile: file(t, jwks(t, hs.jwk(), hs2.jwk()))}, []signer{hs, hs2}, nil},
		"a set with other keys beside": {Issuer{Algorithms: []string{"RS256"}, JWKSFile: file(t, jwks(t, hs.jwk(), ec.jwk(), r.jwk(), members{"kty": "new"}))}, []signer{r}, []signer{ec, hs}},
		"a key for encryption":         {Issuer{Algorithms: three, JWKSFile: file(t, jwks(t, r.jwk().with("use", "enc"), ec.jwk()))}, []signer{ec}, []signer{r}},
		"a key to sign with":           {Issuer{Algorithms: three, JWKSFile: file(t, jwks(t, r.jwk().with("key_ops", []string{"sign"}), ec.jwk()))}, []signer{ec}, []signer{r}},
		"a key to verify with":         {Issuer{Algorithms: three, JWKSFile: file(t, jwks(t, r.jwk().with("use", nil).with("key_ops", []string{"verify"})))}, []signer{r}, nil},
		"a key for another algorithm":  {Issuer{Algorithms: three, JWKSFile: file(t, jwks(t, r.jwk().with("alg", "PS384"), ec.jwk()))}, []signer{ec}, []signer{r}},
		"a key that says no algorithm": {Issuer{Algorithms: three, JWKSFile: file(t, jwks(t, r.jwk().with("alg", nil)))}, []signer{r}, nil},
		"a point that isn't one":       {Issuer{Algorithms: three, JWKSFile: file(t, jwks(t, r.jwk(), ec.jwk().with("y", b64(make([]byte, 32)))))}, []signer{r}, []signer{ec}},
		"the same id twice":            {Issuer{Algorithms: three, JWKSFile: file(t, jwks(t, r.jwk().with("kid", "x"), ec.jwk().with("kid", "x")))}, []signer{{"RS256", "x", r.private}, {"ES256", "x", ec.private}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tt.is.Issuer, tt.is.Audience = issuerName, []string{audience}
			v := newVerifier(t, tt.is)
			for _, s := range tt.accepted {
				if got := wantAccepted(t, v, s.token(t, goodClaims())); tt.is.JWKSFile != "" && got.KeyID != s.kid {
					t.Errorf("verified by key %q, want %q", got.KeyID, s.kid)
				}
			}
			for _, s := range tt.refused {
				if _, err := v.Verify(t.Context(), s.token(t, goodClaims())); err == nil {
					t.Errorf("a token of %s is accepted", s.kid)
				}
			}
		})
	}
}

// A leading zero that an issuer left out of a coordinate changes no key.
func TestPointWithoutLeadingZero(t *testing.T) {
	for {
		s := newSigner(t, "ES256", "e")
		x := mustDecode(t, s.jwk()["x"].(string))
		if x[0] != 0 {
			continue
		}
		v := newVerifier(t, Issuer{Issuer: issuerName, Audience: []string{audience}, Algorithms: []string{"ES256"}, JWKSFile: file(t, jwks(t, s.jwk().with("x", b64(x[1:]))))})
		wantAccepted(t, v, s.token(t, goodClaims()))
		return
	}
}

// A token that names no key is tried with some, not with a hundred.
func TestTokenWithoutKeyIDAgainstManyKeys(t *testing.T) {
	var keys []members
	first := newSigner(t, "EdDSA", "first")
	keys = append(keys, first.jwk())
	for range 30 {
		keys = append(keys, newSigner(t, "EdDSA", "more").jwk())
	}
	last := newSigner(t, "EdDSA", "last")
	keys = append(keys, last.jwk())
	v := newVerifier(t, Issuer{Issuer: issuerName, Audience: []string{audience}, Algorithms: []string{"EdDSA"}, JWKSFile: file(t, jwks(t, keys...))})
	wantAccepted(t, v, last.token(t, goodClaims()))
	unnamed := signer{"EdDSA", "", last.private}
	wantRefused(t, v, unnamed.token(t, goodClaims()), stream.Unauthorized, "names no key")
}

// logLines collects what is logged.
type logLines struct {
	mu    sync.Mutex // guards lines
	lines bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(b)
}

func (l *logLines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}

func (l *logLines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// running runs a verifier until the test ends.
func running(t testing.TB, v *Verifier) *Verifier {
	t.Helper()
	done := make(chan error, 1)
	ctx := t.Context() // ends before the cleanups
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return v
}

// TestFileThatChanges shows that keys are taken over from whatever a file becomes, and kept when that can't be read.
func TestFileThatChanges(t *testing.T) {
	one, two := newSigner(t, "EdDSA", ""), newSigner(t, "EdDSA", "")
	onePEM, twoPEM := one.pem(t), two.pem(t)
	folder := t.TempDir()
	path := filepath.Join(folder, "keys.pem")
	for name, change := range map[string]func(t *testing.T, contents string){
		"in place": func(t *testing.T, contents string) { write(t, path, contents) },
		"by rename": func(t *testing.T, contents string) {
			write(t, path+".new", contents)
			must(t, os.Rename(path+".new", path))
		},
		"by a symbolic link that moves, as Kubernetes does": func(t *testing.T, contents string) {
			data := filepath.Join(folder, "data-"+b64([]byte(contents))[60:70])
			must(t, os.MkdirAll(data, 0o700))
			write(t, filepath.Join(data, "keys.pem"), contents)
			link := filepath.Join(folder, "data")
			must(t, os.Symlink(data, link+".new"))
			must(t, os.Rename(link+".new", link))
			_ = os.Remove(path)
			must(t, os.Symlink(filepath.Join(link, "keys.pem"), path))
		},
		"within the same second, to the same size": func(t *testing.T, contents string) {
			write(t, path, contents)
			at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			must(t, os.Chtimes(path, at, at))
		},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, os.RemoveAll(path))
			change(t, onePEM)
			synctest.Test(t, func(t *testing.T) {
				var log logLines
				v := running(t, newVerifierWith(t, VerifierConfig{Log: log.logger()},
					Issuer{Issuer: issuerName, Audience: []string{audience}, Algorithms: []string{"EdDSA"}, PublicKeyFile: path}))
				wantAccepted(t, v, one.token(t, goodClaims()))
				change(t, twoPEM)
				wantAccepted(t, v, one.token(t, goodClaims()))
				checked := func() { time.Sleep(5*time.Second + time.Millisecond); synctest.Wait() }
				checked()
				wantAccepted(t, v, two.token(t, goodClaims()))
				wantRefused(t, v, one.token(t, goodClaims()), stream.Unauthorized, "signature")

				change(t, twoPEM[:80]+"QQQQ")
				for range 5 {
					checked()
				}
				wantAccepted(t, v, two.token(t, goodClaims()))
				must(t, os.Remove(path))
				for range 5 {
					checked()
				}
				wantAccepted(t, v, two.token(t, goodClaims()))
				if n := strings.Count(log.text(), "\n"); n != 2 {
					t.Errorf("a broken file and a missing one were told %d times, want once each:\n%s", n, log.text())
				}
				if strings.Contains(log.text(), twoPEM[40:60]) {
					t.Errorf("the log tells a key:\n%s", log.text())
				}
				change(t, onePEM)
				checked()
				wantAccepted(t, v, one.token(t, goodClaims()))
			})
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pipe is one that nobody writes into.
func pipe(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pipe")
	must(t, syscall.Mkfifo(name, 0o600))
	return name
}
