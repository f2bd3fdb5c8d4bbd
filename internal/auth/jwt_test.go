package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/goodgo/streamgw/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// signer signs tokens with the standard library alone: what verifies them is another's work.
type signer struct {
	alg, kid string
	private  any // []byte, *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
}

func newSigner(t testing.TB, alg, kid string) signer {
	t.Helper()
	var private any
	var err error
	switch alg {
	case "HS256", "HS384", "HS512":
		secret := make([]byte, 64)
		_, err = rand.Read(secret)
		secret[63] |= 1 << 6 // not a line end, which files of secrets lose
		private = secret
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA", "Ed25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer{alg, kid, private}
}

func (s signer) hash() crypto.Hash {
	switch s.alg[len(s.alg)-3:] {
	case "384":
		return crypto.SHA384
	case "512":
		return crypto.SHA512
	default:
		return crypto.SHA256
	}
}

// sign returns the signature of a text as RFC 7518 section 3 has it.
func (s signer) sign(t testing.TB, text string) []byte {
	t.Helper()
	h := s.hash().New()
	h.Write([]byte(text))
	digest := h.Sum(nil)
	var signature []byte
	var err error
	switch k := s.private.(type) {
	case []byte:
		mac := hmac.New(s.hash().New, k)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	case *rsa.PrivateKey:
		if s.alg[0] == 'P' {
			signature, err = rsa.SignPSS(rand.Reader, k, s.hash(), digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			signature, err = rsa.SignPKCS1v15(rand.Reader, k, s.hash(), digest)
		}
	case *ecdsa.PrivateKey:
		var r, v *big.Int
		if r, v, err = ecdsa.Sign(rand.Reader, k, digest); err == nil {
			size := (k.Params().BitSize + 7) / 8
			signature = append(r.FillBytes(make([]byte, size)), v.FillBytes(make([]byte, size))...)
		}
	case ed25519.PrivateKey:
		return ed25519.Sign(k, []byte(text))
	}
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// raw signs what it is given, whatever that is.
func (s signer) raw(t testing.TB, header, claims string) string {
	t.Helper()
	text := b64([]byte(header)) + "." + b64([]byte(claims))
	return text + "." + b64(s.sign(t, text))
}

type members map[string]any

// with returns m changed: a nil takes a member away.
func (m members) with(name string, value any) members {
	changed := members{}
	for k, v := range m {
		changed[k] = v
	}
	if changed[name] = value; value == nil {
		delete(changed, name)
	}
	return changed
}

func (m members) json(t testing.TB) string {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// token signs claims under a header as any issuer would write it.
func (s signer) token(t testing.TB, claims members) string {
	t.Helper()
	return s.raw(t, s.header().json(t), claims.json(t))
}

func (s signer) header() members {
	head := members{"alg": s.alg, "typ": "JWT"}
	if s.kid != "" {
		head["kid"] = s.kid
	}
	return head
}

func (s signer) public() any {
	switch k := s.private.(type) {
	case []byte:
		return k
	default:
		return k.(crypto.Signer).Public()
	}
}

func (s signer) pem(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (s signer) jwk() members {
	key := members{"kid": s.kid, "use": "sig", "alg": s.alg}
	switch k := s.public().(type) {
	case []byte:
		key["kty"], key["k"] = "oct", b64(k)
	case *rsa.PublicKey:
		key["kty"], key["n"], key["e"] = "RSA", b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		point, _ := k.Bytes()
		size := (len(point) - 1) / 2
		key["kty"], key["crv"], key["x"], key["y"] = "EC", k.Params().Name, b64(point[1:1+size]), b64(point[1+size:])
	case ed25519.PublicKey:
		key["kty"], key["crv"], key["x"] = "OKP", "Ed25519", b64(k)
	}
	if s.kid == "" {
		delete(key, "kid")
	}
	return key
}

func jwks(t testing.TB, keys ...members) string {
	t.Helper()
	return members{"keys": keys}.json(t)
}

const (
	issuerName = "https://id.example"
	audience   = "streamgw"
)

// noon is when tests of tokens happen.
func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// goodClaims are those of a token that holds at noon.
func goodClaims() members {
	return members{"iss": issuerName, "sub": "user-1", "aud": audience, "jti": "id-1",
		"iat": noon().Add(-time.Minute).Unix(), "nbf": noon().Add(-time.Minute).Unix(), "exp": noon().Add(time.Hour).Unix()}
}

func file(t testing.TB, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	write(t, path, contents)
	return path
}

func write(t testing.TB, path, contents string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issuerOf has the keys of one signer in a file of its kind.
func issuerOf(t testing.TB, s signer) Issuer {
	t.Helper()
	is := Issuer{Issuer: issuerName, Audience: []string{audience}, Algorithms: []string{s.alg}}
	if secret, ok := s.private.([]byte); ok {
		is.SecretFile = file(t, string(secret)+"\n")
	} else {
		is.PublicKeyFile = file(t, s.pem(t))
	}
	return is
}

func newVerifier(t testing.TB, issuers ...Issuer) *Verifier {
	t.Helper()
	return newVerifierWith(t, VerifierConfig{}, issuers...)
}

func newVerifierWith(t testing.TB, cfg VerifierConfig, issuers ...Issuer) *Verifier {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = noon
	}
	v, err := NewVerifier(issuers, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantAccepted(t testing.TB, v *Verifier, token string) *Token {
	t.Helper()
	got, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatalf("a good token is refused: %v", err)
	}
	return got
}

// wantRefused checks the kind of a refusal and that nothing of the token stands in it.
func wantRefused(t testing.TB, v *Verifier, token string, kind stream.Kind, says string) {
	t.Helper()
	got, err := v.Verify(t.Context(), token)
	if got != nil || err == nil {
		t.Fatalf("accepted as %+v", got)
	}
	e, ok := errors.AsType[*stream.Error](err)
	if !ok || e.Kind != kind {
		t.Fatalf("refused with %#v, want kind %d", err, kind)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("refused with %q, want it to say %q", err, says)
	}
	wantNothingOf(t, token, err.Error())
}

// wantNothingOf fails if a text holds a stretch of a token, encoded or decoded.
func wantNothingOf(t testing.TB, token, text string) {
	t.Helper()
	for part := range strings.SplitSeq(token, ".") {
		decoded, _ := base64.RawURLEncoding.DecodeString(part)
		for _, s := range []string{part, string(decoded)} {
			for i := 0; i+8 <= len(s); i += 4 {
				if strings.Contains(text, s[i:i+8]) {
					t.Errorf("%q tells %q of the token", text, s[i:i+8])
					return
				}
			}
		}
	}
}

func allAlgorithms() []string {
	return []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
}

func TestEveryAlgorithm(t *testing.T) {
	for _, alg := range allAlgorithms() {
		t.Run(alg, func(t *testing.T) {
			s, other := newSigner(t, alg, "k1"), newSigner(t, alg, "k1")
			v := newVerifier(t, issuerOf(t, s))
			got := wantAccepted(t, v, s.token(t, goodClaims().with("level", 3)))
			want := Token{Issuer: issuerName, Subject: "user-1", ID: "id-1", Algorithm: alg,
				IssuedAt: noon().Add(-time.Minute), NotBefore: noon().Add(-time.Minute), Expires: noon().Add(time.Hour)}
			if got.Issuer != want.Issuer || got.Subject != want.Subject || got.ID != want.ID || got.Algorithm != want.Algorithm ||
				!got.IssuedAt.Equal(want.IssuedAt) || !got.NotBefore.Equal(want.NotBefore) || !got.Expires.Equal(want.Expires) {
				t.Errorf("read as %+v, want %+v", got, want)
			}
			if got.Claims["level"] != int64(3) {
				t.Errorf("a claim is %#v, want 3", got.Claims["level"])
			}
			wantRefused(t, v, other.token(t, goodClaims()), stream.Unauthorized, "signature")
			good := s.token(t, goodClaims())
			for _, i := range []int{strings.Index(good, ".") + 20, len(good) - 10} {
				changed := []byte(good)
				if changed[i]++; changed[i] == 'z'+1 || changed[i] == 'Z'+1 || changed[i] == '9'+1 || changed[i] == '_'+1 || changed[i] == '-'+1 {
					changed[i] = 'b'
				}
				if _, err := v.Verify(t.Context(), string(changed)); err == nil {
					t.Errorf("accepted with letter %d changed", i)
				}
			}
			// Everybody else's algorithm, signed with this one's key as far as that can be.
			for _, name := range allAlgorithms() {
				if name != alg {
					head := s.header().with("alg", name)
					wantRefused(t, v, s.raw(t, head.json(t), goodClaims().json(t)), stream.Unauthorized, "algorithm")
				}
			}
		})
	}
}
