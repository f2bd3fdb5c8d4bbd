package auth

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
)

// foreign is what another library makes of an algorithm: see testdata/make.py and make.mjs.
type foreign struct {
	Alg  string
	Key  string // a secret, or PEM
	JWKS json.RawMessage
	Good []string
	Bad  map[string]string
}

// sources are the ways to give an issuer a library's key.
func (f foreign) sources(t *testing.T) map[string]Issuer {
	of := Issuer{Issuer: issuerName, Audience: []string{audience}, Algorithms: []string{f.Alg}}
	if strings.HasPrefix(f.Alg, "HS") {
		of.SecretFile = file(t, f.Key+"\n")
		return map[string]Issuer{"secret": of}
	}
	pem, set, many := of, of, of
	pem.PublicKeyFile, set.JWKSFile, many.PublicKeyFile = file(t, f.Key), file(t, string(f.JWKS)), file(t, f.Key)
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} { // it may sign with others too, which its key doesn't fit or does
		if !slices.Contains(many.Algorithms, alg) && alg[0] != f.Alg[0] {
			many.Algorithms = append(many.Algorithms, alg)
		}
	}
	return map[string]Issuer{"PEM": pem, "JWKS": set, "several algorithms": many}
}

// TestTokensOfOtherLibraries: for each algorithm, PyJWT's and jose's good ones are taken, with the claims that they have, and
// their bad ones refused.
func TestTokensOfOtherLibraries(t *testing.T) {
	for library, least := range map[string]int{"pyjwt": 13, "jose": 14} {
		raw, err := os.ReadFile(filepath.Join("testdata", library+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var all []foreign
		if err := json.Unmarshal(raw, &all); err != nil || len(all) < least {
			t.Fatalf("%s: tokens of %d algorithms, %v", library, len(all), err)
		}
		for _, f := range all {
			for source, issuer := range f.sources(t) {
				t.Run(library+"/"+f.Alg+"/"+source, func(t *testing.T) {
					v := newVerifier(t, issuer)
					if len(f.Good) < 2 || len(f.Bad) < 13 {
						t.Fatalf("%d good ones and %d bad ones", len(f.Good), len(f.Bad))
					}
					for _, token := range f.Good {
						got := wantAccepted(t, v, token)
						if got.Subject != "ann" || got.ID != "1" || !got.Expires.Equal(noon().Add(60*60*1e9)) || got.Algorithm != f.Alg {
							t.Errorf("it was read as %+v", got)
						}
						if n := got.Claims["n"]; n != int64(9007199254740993) && n != int64(7) {
							t.Errorf("its number was read as %v", n)
						}
					}
					for name, token := range f.Bad {
						if source == "several algorithms" && name == "as another algorithm" {
							continue // there it may be signed so
						}
						wantRefused(t, v, token, stream.Unauthorized, "token")
						if t.Failed() {
							t.Fatalf("with one that is bad: %s", name)
						}
					}
				})
			}
		}
	}
}
