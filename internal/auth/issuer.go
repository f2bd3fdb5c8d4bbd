package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Issuer is one that tokens may come from: what it signs with, for whom, and where its keys are. A token is held against
// the one issuer that its `iss` names, and against nothing of the others.
type Issuer struct {
	// Issuer is the `iss` of its tokens, letter for letter, and with OIDC the URL below which discovery begins. Required:
	// a token without `iss` could be meant for anybody's keys.
	Issuer string

	// Audience lists what this gateway is called; a token's `aud` must hold one of them. Required: without it, a token
	// that was made for another service would open this one.
	Audience []string

	// Algorithms are those that its tokens may be signed with: HS, RS, PS and ES with 256, 384 and 512, EdDSA and Ed25519
	// (RFC 9864's name for the same). Default HS256 with SecretFile; otherwise required, since a key of RSA alone doesn't
	// say which. HS* can't stand beside the others.
	Algorithms []string

	// ClockSkew is this issuer's own. Default VerifierConfig.ClockSkew.
	ClockSkew time.Duration

	// One of these five is where its keys come from.

	SecretFile    string // a secret for HS*, byte for byte but for one line end after it; at least as long as the hash
	PublicKeyFile string // public keys or certificates in PEM; a certificate is taken for its key alone
	JWKSFile      string // a JWK set; for HS* a set of secrets, so that two can be good while one takes over from the other
	JWKS          string // the URL of a JWK set
	OIDC          bool   // the JWK set that Issuer's /.well-known/openid-configuration names
}

// algorithm is one way to sign a token (RFC 7518 section 3.1).
type algorithm struct {
	name   string
	method jwt.SigningMethod
	takes  func(material any) error // nil for a key that may verify it
}

func algorithms() []algorithm {
	return []algorithm{
		{"HS256", jwt.SigningMethodHS256, secretOf(256)},
		{"HS384", jwt.SigningMethodHS384, secretOf(384)},
		{"HS512", jwt.SigningMethodHS512, secretOf(512)},
		{"RS256", jwt.SigningMethodRS256, rsaKey},
		{"RS384", jwt.SigningMethodRS384, rsaKey},
		{"RS512", jwt.SigningMethodRS512, rsaKey},
		{"PS256", jwt.SigningMethodPS256, rsaKey},
		{"PS384", jwt.SigningMethodPS384, rsaKey},
		{"PS512", jwt.SigningMethodPS512, rsaKey},
		{"ES256", jwt.SigningMethodES256, ecdsaKeyOn(elliptic.P256())},
		{"ES384", jwt.SigningMethodES384, ecdsaKeyOn(elliptic.P384())},
		{"ES512", jwt.SigningMethodES512, ecdsaKeyOn(elliptic.P521())},
		{"EdDSA", jwt.SigningMethodEdDSA, ed25519Key},
		{"Ed25519", jwt.SigningMethodEdDSA, ed25519Key},
	}
}

// named reports whether a name is the algorithm's, or another one of the same.
func (a algorithm) named(name string) bool {
	return slices.ContainsFunc(algorithms(), func(b algorithm) bool { return b.name == name && b.method == a.method })
}

// symmetric reports whether whoever can verify can sign too.
func (a algorithm) symmetric() bool {
	_, ok := a.method.(*jwt.SigningMethodHMAC)
	return ok
}

// The bounds of an RSA key. Below the first it can be broken (RFC 7518 section 3.3); above the second, as in crypto/tls,
// each verification costs too much.
const minRSABits, maxRSABits = 2048, 8192

func rsaKey(material any) error {
	k, ok := material.(*rsa.PublicKey)
	switch {
	case !ok:
		return errors.New("takes an RSA key")
	case k.N.BitLen() < minRSABits || k.N.BitLen() > maxRSABits:
		return fmt.Errorf("takes an RSA key of %d to %d bits, this one has %d", minRSABits, maxRSABits, k.N.BitLen())
	case k.E < 3 || k.E%2 == 0 || k.E > 1<<31-1:
		return errors.New("takes an RSA key with an odd exponent from 3 to 2³¹-1")
	}
	return nil
}

func ecdsaKeyOn(curve elliptic.Curve) func(any) error {
	return func(material any) error {
		if k, ok := material.(*ecdsa.PublicKey); !ok || k.Curve != curve {
			return fmt.Errorf("takes an ECDSA key on %s", curve.Params().Name)
		}
		return nil
	}
}

func ed25519Key(material any) error {
	if k, ok := material.(ed25519.PublicKey); !ok || len(k) != ed25519.PublicKeySize {
		return errors.New("takes an Ed25519 key")
	}
	return nil
}

// secretOf takes a secret at least as long as the hash is (RFC 7518 section 3.2).
func secretOf(bits int) func(any) error {
	return func(material any) error {
		k, ok := material.([]byte)
		if !ok {
			return errors.New("takes a secret")
		}
		if len(k)*8 < bits {
			return fmt.Errorf("takes a secret of at least %d bytes, this one has %d", bits/8, len(k))
		}
		return nil
	}
}

// algorithmsOf returns what an issuer may sign with. Errors begin with the setting.
func algorithmsOf(is Issuer) ([]algorithm, error) {
	names := is.Algorithms
	if len(names) == 0 {
		if is.SecretFile == "" {
			return nil, errors.New("algorithms: none is given; say which the issuer signs with, RS256 or ES256 for most")
		}
		names = []string{"HS256"}
	}
	var chosen []algorithm
	known := algorithms()
	for _, name := range names {
		at := slices.IndexFunc(known, func(a algorithm) bool { return a.name == name })
		switch {
		case strings.EqualFold(name, "none"):
			return nil, fmt.Errorf("algorithms: %q would let in tokens that nobody signed", name)
		case at < 0:
			return nil, fmt.Errorf("algorithms: %q is unknown; did you mean %s?", name, nearestAlgorithm(name, known))
		}
		chosen = append(chosen, known[at])
	}
	wantSecret := is.SecretFile != "" || is.JWKSFile != "" && chosen[0].symmetric()
	for _, a := range chosen {
		switch {
		case a.symmetric() && !wantSecret && is.JWKSFile == "":
			return nil, fmt.Errorf("algorithms: %s takes a secret, so secretFile or jwksFile; a public key as its secret would let everybody sign", a.name)
		case a.symmetric() != wantSecret && is.SecretFile != "":
			return nil, fmt.Errorf("algorithms: %s takes a public key, and secretFile holds a secret", a.name)
		case a.symmetric() != wantSecret:
			return nil, fmt.Errorf("algorithms: %s can't stand beside %s: one takes a secret, the other a public key", a.name, chosen[0].name)
		}
	}
	return chosen, nil
}

// nearestAlgorithm returns the known name with the fewest letters to change (Levenshtein).
func nearestAlgorithm(name string, known []algorithm) string {
	name = strings.ToUpper(name)
	if len(name) > 32 {
		name = name[:32]
	}
	best, least := "", -1
	for _, a := range known {
		to := strings.ToUpper(a.name)
		row := make([]int, len(to)+1)
		for j := range row {
			row[j] = j
		}
		for i := range len(name) {
			diagonal := row[0]
			row[0] = i + 1
			for j := range len(to) {
				changed := diagonal
				if name[i] != to[j] {
					changed++
				}
				diagonal = row[j+1]
				row[j+1] = min(changed, row[j]+1, diagonal+1)
			}
		}
		if d := row[len(to)]; least < 0 || d < least {
			best, least = a.name, d
		}
	}
	return best
}

// maxClockSkew bounds what may be given as skew: what lies beyond is a mistyped unit, and lets expired tokens in.
const maxClockSkew = 10 * time.Minute

// check returns what is wrong with the settings that don't need a file or a key to be looked at.
func (is Issuer) check() (problems []error) {
	if is.Issuer == "" {
		problems = append(problems, errors.New("issuer: isn't set; it is what the tokens carry as iss"))
	}
	if len(is.Audience) == 0 {
		problems = append(problems, errors.New("audience: isn't set; without it a token made for another service would be let in"))
	}
	if slices.Contains(is.Audience, "") {
		problems = append(problems, errors.New("audience: one of them is empty"))
	}
	if is.ClockSkew > maxClockSkew {
		problems = append(problems, fmt.Errorf("clockSkew: is %s; at most %s", is.ClockSkew, maxClockSkew))
	}
	var sources []string
	for name, given := range map[string]bool{
		"secretFile": is.SecretFile != "", "publicKeyFile": is.PublicKeyFile != "", "jwksFile": is.JWKSFile != "", "jwks": is.JWKS != "", "oidc": is.OIDC,
	} {
		if given {
			sources = append(sources, name)
		}
	}
	slices.Sort(sources)
	switch len(sources) {
	case 0:
		problems = append(problems, errors.New("has no keys: one of secretFile, publicKeyFile, jwksFile, jwks and oidc says where they are"))
	case 1:
	default:
		problems = append(problems, fmt.Errorf("%s: an issuer has one source of keys, this one has %d", strings.Join(sources, ", "), len(sources)))
	}
	return problems
}
