package auth

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
)

func TestWhatIsMintedIsTaken(t *testing.T) {
	for _, alg := range allAlgorithms() {
		t.Run(alg, func(t *testing.T) {
			s := newSigner(t, alg, "")
			m := Mint{Algorithm: alg, KeyID: "k"}
			if secret, ok := s.private.([]byte); ok {
				m.SecretFile = file(t, string(secret)+"\n")
			} else {
				m.PrivateKeyFile = file(t, pkcs8(t, s.private))
			}
			token, err := m.Sign(goodClaims())
			if err != nil {
				t.Fatal(err)
			}
			if got := wantAccepted(t, newVerifier(t, issuerOf(t, s)), token); got.Subject != "user-1" || got.Algorithm != alg {
				t.Errorf("%+v", got)
			}
			header, claims, err := Read(token)
			if err != nil || header["alg"] != alg || header["kid"] != "k" || claims["sub"] != "user-1" {
				t.Errorf("read as %v, %v, %v", header, claims, err)
			}
		})
	}
}

func pkcs8(t testing.TB, private any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestTheUsualAlgorithmAndOtherFormsOfKeys(t *testing.T) {
	for alg, form := range map[string]func(signer) string{
		"RS256": func(s signer) string {
			return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(s.private.(*rsa.PrivateKey))}))
		},
		"ES384": func(s signer) string {
			der, err := x509.MarshalECPrivateKey(s.private.(*ecdsa.PrivateKey))
			if err != nil {
				t.Fatal(err)
			}
			return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
		},
		"EdDSA": func(s signer) string { return pkcs8(t, s.private) },
	} {
		s := newSigner(t, alg, "")
		token, err := Mint{PrivateKeyFile: file(t, form(s))}.Sign(goodClaims())
		if err != nil {
			t.Fatal(alg, err)
		}
		if got := wantAccepted(t, newVerifier(t, issuerOf(t, s)), token); got.Algorithm != alg {
			t.Errorf("%s is signed with %s", alg, got.Algorithm)
		}
	}
}

func TestWhatCantBeMinted(t *testing.T) {
	ec := file(t, pkcs8(t, newSigner(t, "ES256", "").private))
	for name, tt := range map[string]struct {
		m    Mint
		want string
	}{
		"no key":            {Mint{}, "one of them"},
		"two keys":          {Mint{SecretFile: ec, PrivateKeyFile: ec}, "one of them"},
		"another algorithm": {Mint{PrivateKeyFile: ec, Algorithm: "RS256"}, "RSA key"},
		"no algorithm":      {Mint{PrivateKeyFile: ec, Algorithm: "es256"}, "did you mean ES256"},
		"none":              {Mint{PrivateKeyFile: ec, Algorithm: "none"}, "unknown"},
		"a short secret":    {Mint{SecretFile: file(t, "short")}, "at least 32 bytes"},
		"not PEM":           {Mint{PrivateKeyFile: file(t, "x")}, "isn't PEM"},
		"a public key":      {Mint{PrivateKeyFile: file(t, newSigner(t, "ES256", "").pem(t))}, "no private key"},
		"no file":           {Mint{SecretFile: "/nowhere"}, "no such file"},
	} {
		if _, err := tt.m.Sign(goodClaims()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
