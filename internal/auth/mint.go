package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/golang-jwt/jwt/v5"
)

// Mint signs tokens for development and tests. A gateway only ever verifies them.
type Mint struct {
	// One of these has the key.

	SecretFile     string // a secret for HS*, read as Issuer.SecretFile is
	PrivateKeyFile string // PEM: PKCS #8, PKCS #1 or SEC 1

	Algorithm string // default: HS256, RS256, EdDSA, or what the curve of an ECDSA key takes
	KeyID     string // the token's kid; "": it has none
}

// Sign returns a token with some claims. Its errors say what is wrong with the key, or that the algorithm doesn't fit it.
func (m Mint) Sign(claims map[string]any) (string, error) {
	private, err := m.key()
	if err != nil {
		return "", err
	}
	name := m.Algorithm
	if name == "" {
		name = usualAlgorithm(private)
	}
	for _, a := range algorithms() {
		if a.name != name {
			continue
		}
		if err := a.takes(publicOf(private)); err != nil {
			return "", fmt.Errorf("%s %w", name, err)
		}
		t := jwt.NewWithClaims(a.method, jwt.MapClaims(claims))
		t.Header["alg"] = a.name
		if m.KeyID != "" {
			t.Header["kid"] = m.KeyID
		}
		return t.SignedString(private)
	}
	return "", fmt.Errorf("algorithm %q is unknown; did you mean %s?", name, nearestAlgorithm(name, algorithms()))
}

func (m Mint) key() (any, error) {
	if (m.SecretFile == "") == (m.PrivateKeyFile == "") {
		return nil, errors.New("a secret file or a private key file is needed, one of them")
	}
	if m.SecretFile != "" {
		raw, err := readKeyFile(m.SecretFile)
		return secretOfFile(raw), err
	}
	raw, err := os.ReadFile(m.PrivateKeyFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s: isn't PEM", m.PrivateKeyFile)
	}
	if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	return nil, fmt.Errorf("%s: holds no private key that can be read; one under a passphrase can't", m.PrivateKeyFile)
}

// secretOfFile returns a file's bytes without the one line end that editors and `echo` put after them.
func secretOfFile(raw []byte) []byte {
	secret, _ := bytes.CutSuffix(raw, []byte("\n"))
	secret, _ = bytes.CutSuffix(secret, []byte("\r"))
	return secret
}

func usualAlgorithm(private any) string {
	switch k := private.(type) {
	case []byte:
		return "HS256"
	case *ecdsa.PrivateKey:
		return map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[k.Curve.Params().BitSize]
	case ed25519.PrivateKey:
		return "EdDSA"
	default:
		return "RS256"
	}
}

// publicOf returns what verifies, of what signs.
func publicOf(private any) any {
	switch k := private.(type) {
	case *rsa.PrivateKey:
		return &k.PublicKey
	case *ecdsa.PrivateKey:
		return &k.PublicKey
	case ed25519.PrivateKey:
		return k.Public()
	default:
		return private
	}
}

// Read returns what a token says, without a word on whether it holds: for people who look into one.
func Read(token string) (header, claims map[string]any, err error) {
	t, err := readToken(token)
	if err != nil {
		return nil, nil, err
	}
	header = map[string]any{"alg": t.alg}
	if t.hasKid {
		header["kid"] = t.kid
	}
	return header, t.claims, nil
}

// Explanation is what a token lets its holder do, and why.
type Explanation struct {
	Token    *Token
	Grant    *Grant
	OwnRules bool   // the token has rules of its own
	Policies []bool // by their order in the configuration: whether each is for this token
}

// Explain is AdmitToken for people who want to know why. In mode None there is nothing to explain.
func (a *Access) Explain(ctx context.Context, token string) (e Explanation, err error) {
	if a.verifier == nil {
		return e, errors.New("auth.mode is none: no token is looked at")
	}
	if e.Token, err = a.verifier.Verify(ctx, token); err != nil {
		return e, err
	}
	_, e.OwnRules = e.Token.Claims[ownClaim]
	for i := range a.policies {
		e.Policies = append(e.Policies, a.policies[i].isFor(e.Token.Claims))
	}
	e.Grant, err = a.grant(e.Token)
	return e, err
}
