package auth

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// foreignFile is what a script of testdata/foreign wrote with a library that the gateway doesn't use.
type foreignFile struct {
	By         string // the library and its version
	Now        int64  // when its tokens are to be held
	Algorithms map[string]foreignTokens
}

// foreignTokens are those of one algorithm, and the keys they're held against.
type foreignTokens struct {
	KID       string          // of the key that signed the good ones
	Key       string          // that key: a secret, or a public key in PEM
	JWKS      json.RawMessage // another key of the kind, and that one
	Good, Bad map[string]string
}

func readForeign(t *testing.T, name string) foreignFile {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "foreign", name))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var f foreignFile
	if err := d.Decode(&f); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if f.Now != noon().Unix() {
		t.Fatalf("%s: its tokens are to be held at %s, not at noon", name, time.Unix(f.Now, 0).UTC())
	}
	return f
}

// foreignIssuers returns an issuer for each source of keys that fits. All of them take every algorithm that stands beside
// alg, so that only its key and its signature tell a token of another from a good one.
func foreignIssuers(t *testing.T, alg string, tokens foreignTokens) map[string]Issuer {
	t.Helper()
	is := Issuer{Issuer: issuerName, Audience: []string{audience}}
	for _, name := range allAlgorithms() {
		if strings.HasPrefix(name, "HS") == strings.HasPrefix(alg, "HS") {
			is.Algorithms = append(is.Algorithms, name)
		}
	}
	single, set := is, is
	set.JWKSFile = file(t, string(tokens.JWKS))
	if strings.HasPrefix(alg, "HS") {
		single.SecretFile = file(t, tokens.Key)
		return map[string]Issuer{"secretFile": single, "jwksFile": set}
	}
	single.PublicKeyFile = file(t, tokens.Key)
	return map[string]Issuer{"publicKeyFile": single, "jwksFile": set}
}

// foreignGood maps the good tokens of each algorithm to their audience.
func foreignGood() map[string]any {
	return map[string]any{"as usual": audience, "no kid": audience, "several audiences": []any{"billing", audience}}
}

// foreignBad maps the bad tokens that an algorithm must have to what their refusal says.
func foreignBad(alg string) map[string]string {
	bad := map[string]string{
		"expired":                        "(exp)",
		"not valid yet":                  "(nbf)",
		"another audience":               "(aud)",
		"another issuer":                 "(iss)",
		"no exp":                         "(exp)",
		"signed by another key":          "signature",
		"a bit of the signature flipped": "signature",
		"claims of another token":        "signature",
		"alg changed":                    "sign", // its signature doesn't hold, or the set has no key for it
		"alg none":                       "isn't signed",
		"padded base64":                  "characters",
		"unknown crit":                   "(crit)",
		"kid of another key":             "signature",
	}
	if alg != "EdDSA" && alg != "Ed25519" { // two names for one
		bad["alg changed, and signed so"] = "sign"
	}
	if !strings.HasPrefix(alg, "HS") {
		bad["HMAC with the public key"] = "algorithm"
	}
	if strings.HasPrefix(alg, "ES") {
		bad["signature in DER"] = "signature"
	}
	return bad
}

// wantNames fails unless a map has these keys: what a script forgot to make would be tested nowhere.
func wantNames[V, W any](t *testing.T, got map[string]V, want map[string]W) {
	t.Helper()
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		t.Fatalf("holds %q, want %q", g, w)
	}
}

// What other libraries sign is what RFC 7515 means, whatever golang-jwt and the signers of these tests agree on.
func TestForeignTokens(t *testing.T) {
	for name, lacks := range map[string]string{
		"pyjwt.json": "Ed25519", // whose name PyJWT doesn't know yet
		"jose.json":  "",
	} {
		f := readForeign(t, name)
		want := map[string]bool{}
		for _, alg := range allAlgorithms() {
			if alg != lacks {
				want[alg] = true
			}
		}
		t.Run(name, func(t *testing.T) {
			wantNames(t, f.Algorithms, want)
			for alg, tokens := range f.Algorithms {
				t.Run(alg, func(t *testing.T) { testForeign(t, alg, tokens) })
			}
		})
	}
}

func testForeign(t *testing.T, alg string, tokens foreignTokens) {
	wantNames(t, tokens.Good, foreignGood())
	wantNames(t, tokens.Bad, foreignBad(alg))
	for source, is := range foreignIssuers(t, alg, tokens) {
		keyID := ""
		if is.JWKSFile != "" {
			keyID = tokens.KID
		}
		t.Run(source, func(t *testing.T) {
			all := newVerifier(t, is)
			is.Algorithms = []string{alg}
			one := newVerifier(t, is)
			for name, aud := range foreignGood() {
				t.Run(name, func(t *testing.T) {
					wantForeign(t, wantAccepted(t, all, tokens.Good[name]), alg, keyID, aud)
					wantForeign(t, wantAccepted(t, one, tokens.Good[name]), alg, keyID, aud)
				})
			}
			for name, says := range foreignBad(alg) {
				if name == "kid of another key" && keyID == "" {
					continue // a key without an id may be meant by any
				}
				t.Run(name, func(t *testing.T) { wantRefused(t, all, tokens.Bad[name], stream.Unauthorized, says) })
			}
		})
	}
}

// wantForeign holds a good token against what the scripts put into it.
func wantForeign(t *testing.T, got *Token, alg, keyID string, aud any) {
	t.Helper()
	want := &Token{
		Issuer: issuerName, Subject: "user-1", ID: "id-1", KeyID: keyID, Algorithm: alg,
		IssuedAt: time.Unix(noon().Unix()-60, 0), NotBefore: time.Unix(noon().Unix()-60, 0), Expires: time.Unix(noon().Unix()+3600, 0),
		Claims: map[string]any{
			"iss": issuerName, "sub": "user-1", "aud": aud, "jti": "id-1",
			"iat": noon().Unix() - 60, "nbf": noon().Unix() - 60, "exp": noon().Unix() + 3600,
			"level": int64(3), "share": 0.5, "name": "Zoë 漢字 😀", "roles": []any{"reader", "writer"},
			"org": map[string]any{"id": int64(1<<53 - 1), "trial": false, "parent": nil},
		},
	}
	said := *got
	said.raw, said.print = nil, fingerprint{}
	if !reflect.DeepEqual(&said, want) {
		t.Errorf("read as %+v,\nwant %+v", said, want)
	}
}
