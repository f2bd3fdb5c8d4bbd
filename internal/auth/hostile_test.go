package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// hostileWorld is three issuers side by side, and what an attacker has: their public keys, a key of their own, and an
// account at each.
type hostileWorld struct {
	rsa, ec, ec2, hs, own signer
	verifier              *Verifier
}

const (
	rsaIssuer = issuerName
	ecIssuer  = "https://ec.example"
	hsIssuer  = "https://hs.example"
)

func newHostileWorld(t testing.TB) hostileWorld {
	w := hostileWorld{
		rsa: newSigner(t, "RS256", ""), ec: newSigner(t, "ES256", "ec-1"), ec2: newSigner(t, "ES384", "ec-2"),
		hs: newSigner(t, "HS256", ""), own: newSigner(t, "RS256", "ec-1"),
	}
	w.verifier = newVerifier(t,
		Issuer{Issuer: rsaIssuer, Audience: []string{audience}, Algorithms: []string{"RS256"}, PublicKeyFile: file(t, w.rsa.pem(t))},
		Issuer{Issuer: ecIssuer, Audience: []string{audience, "second"}, Algorithms: []string{"ES256", "ES384"},
			JWKSFile: file(t, jwks(t, w.ec.jwk(), w.ec2.jwk()))},
		Issuer{Issuer: hsIssuer, Audience: []string{audience}, SecretFile: file(t, string(w.hs.private.([]byte)))},
	)
	return w
}

func ecClaims() members { return goodClaims().with("iss", ecIssuer) }
func hsClaims() members { return goodClaims().with("iss", hsIssuer) }

type hostileToken struct {
	name, token string
	says        string // what the refusal names
}

// hostileTokens are malformed, confused and hostile tokens. All but the malformed ones carry a signature that someone made.
func (w hostileWorld) hostileTokens(t testing.TB) []hostileToken {
	good := w.rsa.token(t, goodClaims())
	header, rest, _ := strings.Cut(good, ".")
	claims, signature, _ := strings.Cut(rest, ".")
	head, body := w.rsa.header(), goodClaims()

	withHead := func(name string, value any) string { return w.rsa.raw(t, head.with(name, value).json(t), body.json(t)) }
	withClaim := func(name string, value any) string { return w.rsa.token(t, body.with(name, value)) }
	withRaw := func(header, claims string) string { return w.rsa.raw(t, header, claims) }
	tail := func(more string) string { return strings.TrimSuffix(body.json(t), "}") + more }
	// signedText signs two parts that are encoded already, however badly.
	signedText := func(header, claims string) string {
		text := header + "." + claims
		return text + "." + b64(w.rsa.sign(t, text))
	}
	hmacWith := func(secret []byte, head, claims members) string {
		text := b64([]byte(head.json(t))) + "." + b64([]byte(claims.json(t)))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		return text + "." + b64(mac.Sum(nil))
	}
	unsigned := func(alg string) string {
		return b64([]byte(head.with("alg", alg).json(t))) + "." + claims + "."
	}
	rsaPEM, rsaKey := w.rsa.pem(t), w.rsa.public().(*rsa.PublicKey)
	rsaDER, _ := x509.MarshalPKIXPublicKey(rsaKey)
	hs := members{"alg": "HS256", "typ": "JWT"}

	tokens := []hostileToken{
		// Malformed.
		{"empty", "", "three parts"},
		{"one dot", ".", "three parts"},
		{"two dots", "..", "no header"},
		{"text", "letmein", "three parts"},
		{"two parts", header + "." + claims, "three parts"},
		{"four parts", good + "." + signature, "three parts"},
		{"encrypted, five parts", header + "." + claims + "." + signature + "." + claims + "." + signature, "encrypted"},
		{"six parts", good + "." + good, "three parts"},
		{"no header", "." + claims + "." + signature, "no header"},
		{"detached claims", header + ".." + signature, "detached"},
		{"no signature", header + "." + claims + ".", "isn't signed"},
		{"JSON serialization", `{"protected":"` + header + `","payload":"` + claims + `","signature":"` + signature + `"}`, "characters"},
		{"with its scheme", "Bearer " + good, "characters"},
		{"a space before", " " + good, "characters"},
		{"a line end after", good + "\n", "characters"},
		{"a line end in the claims", header + "." + claims[:8] + "\r\n" + claims[8:] + "." + signature, "characters"},
		{"a NUL after", good + "\x00", "characters"},
		{"padding", header + "." + claims + "." + signature + "==", "characters"},
		{"base64 of the other alphabet", header + "." + claims + "." + strings.Repeat("+/", 171), "characters"},
		{"a Unicode dot", header + "." + claims + "․" + signature, "characters"},
		{"garbage after", good + "A", "signature"},
		{"a header of one letter", "A." + claims + "." + signature, "header"},
		{"a header that isn't JSON", signedText(b64([]byte("alg=RS256")), claims), "header"},
		{"a header that is a list", withRaw(`["RS256"]`, body.json(t)), "header"},
		{"a header that is null", withRaw(`null`, body.json(t)), "header"},
		{"an empty header", withRaw(`{}`, body.json(t)), "(alg)"},
		{"claims that are text", withRaw(head.json(t), `"claims"`), "claims part"},
		{"claims that are null", withRaw(head.json(t), `null`), "claims part"},
		{"claims cut off", withRaw(head.json(t), tail("")), "claims part"},
		{"garbage after the claims", withRaw(head.json(t), body.json(t)+"{}"), "claims part"},
		{"garbage after the header", withRaw(head.json(t)+"x", body.json(t)), "header"},
		{"a trailing comma", withRaw(head.json(t), tail(",}")), "claims part"},
		{"a byte order mark", withRaw(head.json(t), "\ufeff"+body.json(t)), "claims part"},
		{"claims that aren't UTF-8", withRaw(head.json(t), tail(",\"name\":\"\xff\"}")), "UTF-8"},
		{"half a surrogate pair", withRaw(head.json(t), tail(`,"name":"\ud800"}`)), "UTF-8"},
		{"the other half", withRaw(head.json(t), tail(`,"name":"a\\\udc00"}`)), "UTF-8"},
		{"a compressed header", signedText(b64([]byte("\x1f\x8b\x08\x00")), claims), "header"},
		{"longer than 16 KiB", withClaim("pad", strings.Repeat("x", 16<<10)), "16 KiB"},
		{"a megabyte of dots", strings.Repeat(".", 1<<20), "16 KiB"},
		{"nested a thousand deep", withRaw(head.json(t), tail(`,"deep":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+"}")), "too deep"},
		{"a number that can't be", withRaw(head.json(t), tail(`,"n":1e999}`)), "can't be held"},
		{"a whole number that can't be told from the next", withRaw(head.json(t), tail(`,"n":9223372036854775809}`)), "can't be held"},

		// Read in two ways.
		{"alg twice", withRaw(`{"alg":"none","alg":"RS256"}`, body.json(t)), "twice"},
		{"alg twice, one escaped", withRaw(`{"alg":"none","al\u0067":"RS256"}`, body.json(t)), "twice"},
		{"sub twice", withRaw(head.json(t), tail(`,"sub":"admin"}`)), "twice"},
		{"a member twice, inside", withRaw(head.json(t), tail(`,"streamgw":{"a":1,"a":2}}`)), "twice"},
		{"a signature whose last bits aren't zero", header + "." + claims + "." + notCanonical(signature), "base64url"},
		{"claims whose last bits aren't zero", signedText(header, notCanonical(b64([]byte(padTo(body.json(t), 1))))), "base64url"},
		{"a header whose last bits aren't zero", signedText(notCanonical(b64([]byte(padTo(head.json(t), 1)))), claims), "base64url"},

		// Algorithms.
		{"alg none", unsigned("none"), "isn't signed"},
		{"alg none, signed", withHead("alg", "none"), "algorithm"},
		{"alg None, with a letter for a signature", unsigned("None") + "AA", "algorithm"},
		{"alg nOnE", withHead("alg", "nOnE"), "algorithm"},
		{"alg empty", withHead("alg", ""), "algorithm"},
		{"alg in lower case", withHead("alg", "rs256"), "algorithm"},
		{"alg with a space", withHead("alg", "RS256 "), "algorithm"},
		{"alg missing", withHead("alg", nil), "(alg)"},
		{"alg null", withRaw(`{"alg":null}`, body.json(t)), "(alg)"},
		{"alg a list", withHead("alg", []string{"RS256"}), "(alg)"},
		{"alg a number", withHead("alg", 256), "(alg)"},
		{"alg unknown", withHead("alg", "XX256"), "algorithm"},
		{"ALG for alg", withRaw(`{"ALG":"RS256"}`, body.json(t)), "(alg)"},
		{"RSA key as a secret: PEM", hmacWith([]byte(rsaPEM), hs, body), "algorithm"},
		{"RSA key as a secret: PEM without its line end", hmacWith([]byte(strings.TrimSpace(rsaPEM)), hs, body), "algorithm"},
		{"RSA key as a secret: DER", hmacWith(rsaDER, hs, body), "algorithm"},
		{"RSA key as a secret: modulus", hmacWith(rsaKey.N.Bytes(), hs, body), "algorithm"},
		{"RSA key as a secret, at the issuer with secrets", hmacWith([]byte(rsaPEM), hs, hsClaims()), "signature"},
		{"an empty secret", hmacWith(nil, hs, hsClaims()), "signature"},
		{"a secret of zeros", hmacWith(make([]byte, 64), hs, hsClaims()), "signature"},
		{"PKCS 1 signature said to be PSS", withHead("alg", "PS256"), "algorithm"},
		{"RS256 signature said to be RS512", withHead("alg", "RS512"), "algorithm"},
		{"RSA signature said to be ECDSA, at that issuer", w.own.raw(t, `{"alg":"ES256","kid":"ec-1"}`, ecClaims().json(t)), "signature"},
		{"ECDSA key of another curve", w.ec.raw(t, `{"alg":"ES384","kid":"ec-1"}`, ecClaims().json(t)), "key"},
		{"ECDSA signature in DER", derSigned(t, w.ec, ecClaims()), "signature"},
		{"ECDSA signature of zeros", zeroSigned(w.ec, ecClaims(), t), "signature"},
		{"ECDSA signature of the curve's order", orderSigned(w.ec, ecClaims(), t), "signature"},

		// Keys that the token brings, and ids that are more than ids.
		{"own key in jwk", w.own.raw(t, members{"alg": "RS256", "jwk": w.own.jwk()}.json(t), body.json(t)), "signature"},
		{"own key at jku", w.own.raw(t, `{"alg":"RS256","jku":"http://127.0.0.1:9/keys"}`, body.json(t)), "signature"},
		{"own key at x5u", w.own.raw(t, `{"alg":"RS256","x5u":"http://127.0.0.1:9/cert"}`, body.json(t)), "signature"},
		{"own certificate in x5c", w.own.raw(t, members{"alg": "RS256", "x5c": []string{"MIIB"}}.json(t), body.json(t)), "signature"},
		{"own key, another's kid", w.own.raw(t, `{"alg":"RS256","kid":"ec-1"}`, body.json(t)), "signature"},
		{"kid of another key of the issuer", w.ec.raw(t, `{"alg":"ES256","kid":"ec-2"}`, ecClaims().json(t)), "key"},
		{"kid that leads out of a folder", w.ec.raw(t, `{"alg":"ES256","kid":"../../dev/null"}`, ecClaims().json(t)), "key"},
		{"kid with SQL", w.ec.raw(t, `{"alg":"ES256","kid":"' UNION SELECT 'AA"}`, ecClaims().json(t)), "key"},
		{"kid a number", w.ec.raw(t, `{"alg":"ES256","kid":1}`, ecClaims().json(t)), "(kid)"},
		{"kid null", w.ec.raw(t, `{"alg":"ES256","kid":null}`, ecClaims().json(t)), "(kid)"},
		{"kid empty", w.ec.raw(t, `{"alg":"ES256","kid":""}`, ecClaims().json(t)), "key"},
		{"no kid, own key", newSigner(t, "ES256", "").token(t, ecClaims()), "signature"},

		// Headers that change what is signed.
		{"crit, unknown", withRaw(`{"alg":"RS256","crit":["http://example/x"],"http://example/x":1}`, body.json(t)), "crit"},
		{"crit, empty", withHead("crit", []string{}), "crit"},
		{"crit, null", withRaw(`{"alg":"RS256","crit":null}`, body.json(t)), "crit"},
		{"crit, naming alg", withHead("crit", []string{"alg"}), "crit"},
		{"crit, naming exp", withRaw(`{"alg":"RS256","crit":["exp"],"exp":1}`, body.json(t)), "crit"},
		{"b64 false", withRaw(`{"alg":"RS256","b64":false}`, body.json(t)), "b64"},
		{"b64 false and crit", withRaw(`{"alg":"RS256","b64":false,"crit":["b64"]}`, body.json(t)), "crit"},
		{"typ of a logout token", withHead("typ", "logout+jwt"), "typ"},
		{"typ of a DPoP proof", withHead("typ", "dpop+jwt"), "typ"},
		{"typ JWE", withHead("typ", "JWE"), "typ"},
		{"typ a list", withHead("typ", []string{"JWT"}), "typ"},
		{"typ null", withRaw(`{"alg":"RS256","typ":null}`, body.json(t)), "typ"},

		// Issuers.
		{"no iss", withClaim("iss", nil), "(iss)"},
		{"iss empty", withClaim("iss", ""), "(iss)"},
		{"iss unknown", withClaim("iss", "https://evil.example"), "(iss)"},
		{"iss with a slash more", withClaim("iss", issuerName+"/"), "(iss)"},
		{"iss in capitals", withClaim("iss", strings.ToUpper(issuerName)), "(iss)"},
		{"iss a list", withClaim("iss", []string{issuerName}), "iss"},
		{"iss null", withRaw(head.json(t), strings.Replace(body.json(t), `"`+issuerName+`"`, "null", 1)), "iss"},
		{"another issuer's token under this one's name", w.ec.token(t, body), "algorithm"},
		{"this issuer's token under another's name", w.rsa.token(t, ecClaims()), "algorithm"},
		{"the secret's issuer's token under this one's name", w.hs.token(t, body), "algorithm"},

		// Audiences, times, types.
		{"no aud", withClaim("aud", nil), "aud"},
		{"aud of another service", withClaim("aud", "billing"), "aud"},
		{"aud that begins like ours", withClaim("aud", "streamgw-admin"), "aud"},
		{"aud in capitals", withClaim("aud", "STREAMGW"), "aud"},
		{"aud of another issuer's", withClaim("aud", "second"), "aud"},
		{"aud empty", withClaim("aud", ""), "aud"},
		{"aud an empty list", withClaim("aud", []string{}), "aud"},
		{"aud a list of lists", withClaim("aud", []any{[]string{audience}}), "aud"},
		{"aud an object", withClaim("aud", members{audience: true}), "aud"},
		{"aud null", withRaw(head.json(t), strings.Replace(body.json(t), `"`+audience+`"`, "null", 1)), "aud"},
		{"no exp", withClaim("exp", nil), "(exp)"},
		{"exp null", withRaw(head.json(t), withoutMember(t, body, "exp", `null`)), "exp"},
		{"exp text", withClaim("exp", fmt.Sprint(noon().Add(time.Hour).Unix())), "exp"},
		{"exp a list", withClaim("exp", []int64{noon().Add(time.Hour).Unix()}), "exp"},
		{"exp negative", withClaim("exp", -1), "exp"},
		{"exp zero", withClaim("exp", 0), "exp"},
		{"exp beyond all time", withClaim("exp", 1e300), "exp"},
		{"exp the largest integer", withClaim("exp", int64(math.MaxInt64)), "exp"},
		{"exp in milliseconds", withClaim("exp", noon().Add(time.Hour).UnixMilli()), "exp"},
		{"expired", withClaim("exp", noon().Add(-time.Hour).Unix()), "expired"},
		{"expired just beyond the skew", withClaim("exp", noon().Add(-30*time.Second).Unix()), "expired"},
		{"EXP for exp", w.rsa.token(t, body.with("exp", nil).with("EXP", noon().Add(time.Hour).Unix())), "(exp)"},
		{"nbf beyond the skew", withClaim("nbf", noon().Add(31*time.Second).Unix()), "nbf"},
		{"nbf text", withClaim("nbf", "now"), "nbf"},
		{"iat beyond the skew", withClaim("iat", noon().Add(31*time.Second).Unix()), "iat"},
		{"iat beyond all time", withClaim("iat", 1e18), "iat"},
		{"iat true", withClaim("iat", true), "iat"},
		{"sub a number", withClaim("sub", 1), "sub"},
		{"sub a list", withClaim("sub", []string{"user-1"}), "sub"},
		{"sub null", withRaw(head.json(t), strings.Replace(body.json(t), `"user-1"`, "null", 1)), "sub"},
		{"jti a number", withClaim("jti", 1), "jti"},

		// Signatures of something else.
		{"claims of another token", header + "." + b64([]byte(body.with("sub", "admin").json(t))) + "." + signature, "signature"},
		{"header of another token", b64([]byte(`{"alg":"RS256"}`)) + "." + claims + "." + signature, "signature"},
		{"signature cut off", good[:len(good)-4], "signature"},
		{"signature of one byte", header + "." + claims + ".AA", "signature"},
		{"signature of zeros", header + "." + claims + "." + b64(make([]byte, 256)), "signature"},
		{"signature with a zero before", header + "." + claims + "." + b64(append([]byte{0}, mustDecode(t, signature)...)), "signature"},
		{"signature of the claims alone", header + "." + claims + "." + b64(w.rsa.sign(t, claims)), "signature"},
		{"signed by a stranger", w.own.token(t, body), "signature"},
	}
	return tokens
}

// notCanonical returns base64url with the unused bits of its last letter set. s must leave some unused.
func notCanonical(s string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(s)%4 == 0 {
		panic("no bits are unused")
	}
	last := strings.IndexByte(letters, s[len(s)-1])
	return s[:len(s)-1] + letters[last|1:last|1+1]
}

// padTo puts spaces after JSON until its length leaves rest when divided by three.
func padTo(s string, rest int) string {
	for len(s)%3 != rest {
		s += " "
	}
	return s
}

func withoutMember(t testing.TB, m members, name, instead string) string {
	return strings.TrimSuffix(m.with(name, nil).json(t), "}") + `,"` + name + `":` + instead + "}"
}

func mustDecode(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// derSigned carries a true signature, encoded as certificates have it (ASN.1) rather than as JWS has it.
func derSigned(t testing.TB, s signer, claims members) string {
	token := s.token(t, claims)
	text := token[:strings.LastIndexByte(token, '.')]
	raw := mustDecode(t, token[len(text)+1:])
	integer := func(b []byte) []byte {
		b = append([]byte{0}, new(big.Int).SetBytes(b).Bytes()...)
		if b[1] < 0x80 {
			b = b[1:]
		}
		return append([]byte{2, byte(len(b))}, b...)
	}
	half := len(raw) / 2
	body := append(integer(raw[:half]), integer(raw[half:])...)
	return text + "." + b64(append([]byte{0x30, byte(len(body))}, body...))
}

func zeroSigned(s signer, claims members, t testing.TB) string {
	token := s.token(t, claims)
	return token[:strings.LastIndexByte(token, '.')+1] + b64(make([]byte, 64))
}

func orderSigned(s signer, claims members, t testing.TB) string {
	token := s.token(t, claims)
	n := elliptic.P256().Params().N.Bytes()
	return token[:strings.LastIndexByte(token, '.')+1] + b64(append(n, n...))
}

func TestHostileTokens(t *testing.T) {
	w := newHostileWorld(t)
	// What they're changed from is good.
	wantAccepted(t, w.verifier, w.rsa.token(t, goodClaims()))
	wantAccepted(t, w.verifier, w.ec.token(t, ecClaims()))
	wantAccepted(t, w.verifier, w.ec2.token(t, ecClaims().with("aud", "second")))
	wantAccepted(t, w.verifier, w.hs.token(t, hsClaims()))
	corpus := w.hostileTokens(t)
	if len(corpus) < 40 {
		t.Fatalf("only %d tokens", len(corpus))
	}
	seen := map[string]bool{}
	for _, tt := range corpus {
		t.Run(tt.name, func(t *testing.T) {
			if seen[tt.name] {
				t.Fatal("this name stands twice")
			}
			seen[tt.name] = true
			wantRefused(t, w.verifier, tt.token, stream.Unauthorized, tt.says)
		})
	}
}

// What is unusual and yet good.
func TestUnusualTokensThatAreGood(t *testing.T) {
	w := newHostileWorld(t)
	head, body := w.rsa.header(), goodClaims()
	for name, token := range map[string]string{
		"no typ":                         w.rsa.raw(t, `{"alg":"RS256"}`, body.json(t)),
		"typ at+jwt":                     w.rsa.raw(t, `{"alg":"RS256","typ":"at+jwt"}`, body.json(t)),
		"typ application/at+JWT":         w.rsa.raw(t, `{"alg":"RS256","typ":"application/at+JWT"}`, body.json(t)),
		"b64 true":                       w.rsa.raw(t, `{"alg":"RS256","b64":true}`, body.json(t)),
		"a thumbprint":                   w.rsa.raw(t, head.with("x5t", "abc").json(t), body.json(t)),
		"kid where the keys have none":   w.rsa.raw(t, head.with("kid", "anything").json(t), body.json(t)),
		"no kid where the keys have one": w.ec.raw(t, `{"alg":"ES256"}`, ecClaims().json(t)),
		"several audiences":              w.rsa.token(t, body.with("aud", []string{"billing", audience})),
		"the issuer's other audience":    w.ec.token(t, ecClaims().with("aud", "second")),
		"expired within the skew":        w.rsa.token(t, body.with("exp", noon().Add(-29*time.Second).Unix())),
		"begins within the skew":         w.rsa.token(t, body.with("nbf", noon().Add(30*time.Second).Unix())),
		"times with fractions":           w.rsa.token(t, body.with("exp", float64(noon().Add(time.Hour).Unix())+0.5)),
		"only what is needed":            w.rsa.token(t, members{"iss": issuerName, "aud": audience, "exp": body["exp"]}),
		"spaces between members":         w.rsa.raw(t, "{ \"alg\" : \"RS256\"\n}", body.json(t)),
		"a pair of surrogates, escaped":  w.rsa.raw(t, head.json(t), strings.TrimSuffix(body.json(t), "}")+`,"name":"\ud83d\ude00 \\ud800"}`),
	} {
		t.Run(name, func(t *testing.T) { wantAccepted(t, w.verifier, token) })
	}
}

func TestClaimsAreReadExactly(t *testing.T) {
	w := newHostileWorld(t)
	claims := strings.TrimSuffix(goodClaims().json(t), "}") +
		`,"tenant":9007199254740993,"next":9007199254740992,"part":0.5,"big":1e3,"yes":true,"no":null,"list":[1,"a",{}],"name":"é\u00e9"}`
	got := wantAccepted(t, w.verifier, w.rsa.raw(t, w.rsa.header().json(t), claims)).Claims
	for name, want := range map[string]any{"tenant": int64(9007199254740993), "next": int64(9007199254740992), "part": 0.5, "big": 1000.0,
		"yes": true, "no": nil, "name": "éé"} {
		if got[name] != want {
			t.Errorf("%s is %#v, want %#v", name, got[name], want)
		}
	}
	if list, _ := json.Marshal(got["list"]); string(list) != `[1,"a",{}]` {
		t.Errorf("list is %s", list)
	}
}

func TestClockSkewOfOneIssuer(t *testing.T) {
	s := newSigner(t, "EdDSA", "")
	is := issuerOf(t, s)
	late := s.token(t, goodClaims().with("exp", noon().Add(-time.Minute).Unix()))
	for name, tt := range map[string]struct {
		shared, own time.Duration
		accepted    bool
	}{
		"default":                {0, 0, false},
		"the verifier's":         {2 * time.Minute, 0, true},
		"its own":                {0, 2 * time.Minute, true},
		"its own, which is less": {2 * time.Minute, time.Second, false},
		"none":                   {2 * time.Minute, -1, false},
	} {
		t.Run(name, func(t *testing.T) {
			is.ClockSkew = tt.own
			v := newVerifierWith(t, VerifierConfig{ClockSkew: tt.shared}, is)
			if _, err := v.Verify(t.Context(), late); (err == nil) != tt.accepted {
				t.Errorf("a token that ended a minute ago: %v", err)
			}
		})
	}
	none := newVerifierWith(t, VerifierConfig{ClockSkew: -1}, issuerOf(t, s))
	wantRefused(t, none, s.token(t, goodClaims().with("exp", noon().Unix())), stream.Unauthorized, "expired")
	wantAccepted(t, none, s.token(t, goodClaims().with("exp", noon().Unix()+1)))
}

// fixedSigner's keys are the same in every process, since a fuzzer runs in several.
func fixedSigner(t testing.TB, alg string) signer {
	t.Helper()
	seed := sha256.Sum256([]byte(alg))
	switch alg {
	case "EdDSA":
		return signer{alg, "", ed25519.NewKeyFromSeed(seed[:])}
	case "ES256":
		k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
		if err != nil {
			t.Fatal(err)
		}
		return signer{alg, "", k}
	default:
		return signer{alg, "", seed[:]}
	}
}

// FuzzVerify holds what is accepted against what was signed, and what is said of the rest against the token.
func FuzzVerify(f *testing.F) {
	var issuers []Issuer
	signed := map[string]bool{}
	for _, alg := range []string{"HS256", "ES256", "EdDSA"} {
		s := fixedSigner(f, alg)
		is := issuerOf(f, s)
		is.Issuer = "https://" + alg + ".example"
		issuers = append(issuers, is)
		for _, claims := range []members{goodClaims(), goodClaims().with("aud", []string{"x", audience}), goodClaims().with("nested", members{"a": []int{1}})} {
			token := s.token(f, claims.with("iss", is.Issuer))
			signed[token[:strings.LastIndexByte(token, '.')]] = true
			f.Add(token)
		}
		f.Add(s.token(f, goodClaims().with("iss", is.Issuer).with("exp", 1)))
	}
	w := newHostileWorld(f)
	for _, tt := range w.hostileTokens(f) {
		if len(tt.token) < 4<<10 {
			f.Add(tt.token)
		}
	}
	v := newVerifier(f, issuers...)
	f.Fuzz(func(t *testing.T, token string) {
		got, err := v.Verify(t.Context(), token)
		if err != nil {
			if got != nil {
				t.Error("refused with a token")
			}
			if len(token) < 64 { // what is longer has stretches that any text has
				return
			}
			wantNothingOf(t, token, err.Error())
			return
		}
		if !signed[token[:strings.LastIndexByte(token, '.')]] {
			t.Errorf("accepted what wasn't signed: %q", token)
		}
		var claims struct{ Iss, Sub, Jti string }
		payload := mustDecode(t, strings.Split(token, ".")[1])
		if err := json.Unmarshal(payload, &claims); err != nil || claims.Iss != got.Issuer || claims.Sub != got.Subject || claims.Jti != got.ID {
			t.Errorf("read as %+v: %v", got, err)
		}
	})
}

// FuzzReadObject holds the strict reading of JSON against encoding/json: what it takes means the same there.
func FuzzReadObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1,"b":[1.5,{"c":null}],"d":"\ud83d\ude00"}`, `{"a":"\ud800"}`, `{"a":1,"a":2}`, `[1]`, `{"a":1e999}`, `{"a":"\\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := readObject(raw)
		if err != nil || bytes.Contains(raw, []byte("-0")) { // whose sign encoding/json keeps
			return
		}
		var want map[string]any
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatalf("took %q, which isn't an object: %v", raw, err)
		}
		// Whole numbers are exact here and not there, so both go through the same reading once more.
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var same map[string]any
		if err := json.Unmarshal(again, &same); err != nil {
			t.Fatal(err)
		}
		first, _ := json.Marshal(want)
		second, _ := json.Marshal(same)
		if string(first) != string(second) {
			t.Errorf("%q: read as %s, want %s", raw, second, first)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"HS256", "RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			s := newSigner(b, alg, "k1")
			v := newVerifier(b, issuerOf(b, s))
			token := s.token(b, goodClaims().with("streamgw", members{"subscribe": []members{{"topic": "orders.*", "keys": []string{"{sub}"}}}}))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for name, token := range map[string]string{"refused, no JWT": strings.Repeat("x", 500), "refused, not signed": "e30.e30.AA"} {
		b.Run(name, func(b *testing.B) {
			v := newVerifier(b, issuerOf(b, newSigner(b, "EdDSA", "")))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}
