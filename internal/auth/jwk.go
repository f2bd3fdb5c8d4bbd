package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// parseJWKS reads a JWK set (RFC 7517 section 5). A key that can't be used doesn't spoil those that can, since issuers put
// keys there for encryption and for kinds to come; skipped says why it can't.
//
// A file may hold secrets, if the issuer's algorithms want some, and no private key. What came from a URL and isn't a public
// key is skipped: whoever can read the set could sign with it.
func parseJWKS(raw []byte, algs []algorithm, isFile bool) (set *keySet, skipped []string, err error) {
	top, err := readObject(raw)
	if err != nil {
		return nil, nil, err
	}
	list, ok := top["keys"].([]any)
	if !ok {
		return nil, nil, errors.New(`isn't a JWK set: it has no list "keys"`)
	}
	if len(list) > maxKeys {
		return nil, nil, fmt.Errorf("holds %d keys; at most %d", len(list), maxKeys)
	}
	var keys []key
	for i, entry := range list {
		members, ok := entry.(map[string]any)
		if !ok {
			return nil, nil, fmt.Errorf("key %d isn't a JSON object", i+1)
		}
		j := jwk(members)
		if isFile && j["kty"] != "oct" && j.has("d") {
			return nil, nil, fmt.Errorf("key %d holds a private key; only the public one belongs here", i+1)
		}
		k, err := j.key(algs, isFile)
		if err != nil {
			skipped = append(skipped, fmt.Sprintf("key %d (kid %q) %v", i+1, j.id(), err))
			continue
		}
		keys = append(keys, k)
	}
	if len(list) == 0 && !isFile {
		return &keySet{}, nil, nil // the issuer says that it takes back all
	}
	if len(keys) == 0 && len(skipped) > 0 {
		return nil, nil, fmt.Errorf("holds no key that can be used: %s", few(skipped))
	}
	set, err = newKeySet(keys)
	return set, skipped, err
}

// few joins the first of what may be a hundred, for one line of the log.
func few(reasons []string) string {
	if len(reasons) > 3 {
		return strings.Join(reasons[:3], "; ") + fmt.Sprintf("; and %d more", len(reasons)-3)
	}
	return strings.Join(reasons, "; ")
}

// jwk is one JSON Web Key (RFC 7517 section 4), as it was read.
type jwk map[string]any

func (j jwk) has(member string) bool { _, ok := j[member]; return ok }

// id is the kid, cut to what a log line takes.
func (j jwk) id() string {
	kid, _ := j["kid"].(string)
	if len(kid) > 64 {
		kid = strings.ToValidUTF8(kid[:64], "") + "…"
	}
	return kid
}

// key returns what j verifies with, for those algorithms that it fits and says it is for.
func (j jwk) key(algs []algorithm, isFile bool) (key, error) {
	for _, member := range []string{"kid", "use", "alg"} {
		if _, text := j[member].(string); j.has(member) && !text {
			return key{}, fmt.Errorf("has a %s that isn't text", member)
		}
	}
	if use, given := j["use"]; given && use != "sig" {
		return key{}, errors.New("is for another use than signatures (use)")
	}
	if ops, given := j["key_ops"]; given {
		if list, _ := ops.([]any); !slices.Contains(list, any("verify")) {
			return key{}, errors.New("isn't for verifying (key_ops)")
		}
	}
	if j["kty"] != "oct" && j.has("d") {
		return key{}, errors.New("is private, and was made public")
	}
	material, err := j.material(isFile)
	if err != nil {
		return key{}, err
	}
	kid, _ := j["kid"].(string)
	only, _ := j["alg"].(string)
	return newKey(kid, material, only, algs)
}

// material reads the key itself (RFC 7518 section 6, RFC 8037 section 2).
func (j jwk) material(isFile bool) (any, error) {
	switch j["kty"] {
	case "RSA":
		n, err := j.bytes("n")
		if err != nil {
			return nil, err
		}
		e, err := j.bytes("e")
		if err != nil {
			return nil, err
		}
		if len(e) > 4 {
			return nil, errors.New("has an exponent that is too large")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
	case "EC":
		return j.point()
	case "OKP":
		if j["crv"] != "Ed25519" {
			return nil, errors.New("is on a curve that isn't known here")
		}
		x, err := j.bytes("x")
		if err == nil && len(x) != ed25519.PublicKeySize {
			err = errors.New("has an x of another length than an Ed25519 key's")
		}
		return ed25519.PublicKey(x), err
	case "oct":
		if !isFile {
			return nil, errors.New("is a secret, and was made public")
		}
		return j.bytes("k")
	default:
		return nil, errors.New("is of a kind that isn't known here (kty)")
	}
}

// point reads an elliptic curve's point and makes sure that it is one.
func (j jwk) point() (*ecdsa.PublicKey, error) {
	var curve elliptic.Curve
	switch j["crv"] {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, errors.New("is on a curve that isn't known here")
	}
	size := (curve.Params().BitSize + 7) / 8
	uncompressed := []byte{4}
	for _, member := range []string{"x", "y"} {
		b, err := j.bytes(member)
		if err != nil {
			return nil, err
		}
		if len(b) > size {
			return nil, fmt.Errorf("has an %s that is too long", member)
		}
		// RFC 7518 section 6.2.1.2 wants all bytes; some issuers leave leading zeros out, in one key of 256.
		uncompressed = append(uncompressed, make([]byte, size-len(b))...)
		uncompressed = append(uncompressed, b...)
	}
	k, err := ecdsa.ParseUncompressedPublicKey(curve, uncompressed)
	if err != nil {
		return nil, errors.New("isn't a point of its curve")
	}
	return k, nil
}

func (j jwk) bytes(member string) ([]byte, error) {
	s, ok := j[member].(string)
	if !ok || s == "" {
		return nil, fmt.Errorf("has no %s", member)
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, fmt.Errorf("has a %s that isn't base64url", member)
	}
	return b, nil
}
