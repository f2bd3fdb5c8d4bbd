package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/goodgo/streamgw/internal/stream"
)

// maxTokenBytes bounds a token before anything of it is read.
const maxTokenBytes = 16 << 10

// maxNesting bounds how deep a claim may be nested.
const maxNesting = 32

// unverified is a token taken apart. Nothing in it may be believed before its signature holds.
type unverified struct {
	signed    string // what the signature is over
	signature []byte
	alg, kid  string
	hasKid    bool
	named     jwt.RegisteredClaims
	claims    map[string]any
	raw       []byte // of the claims
}

// refusal is the error for a token that doesn't hold. Details are fixed texts: no part of a token goes into one.
func refusal(detail string) error { return stream.Errorf(stream.Unauthorized, "the token %s", detail) }

// readToken takes a token in the compact form apart (RFC 7515 section 7.1). It reads one way only: what two readers could
// read differently (base64 that isn't canonical, members that stand twice, text that isn't UTF-8) is refused.
func readToken(token string) (*unverified, error) {
	header, payload, signature, err := split(token)
	if err != nil {
		return nil, err
	}
	t := &unverified{signed: token[:len(header)+1+len(payload)]}
	raw, err := decode(header)
	if err != nil {
		return nil, refusal("has a header that isn't base64url")
	}
	head, err := readObject(raw)
	if err != nil {
		return nil, refusal("has a header that " + err.Error())
	}
	if err := t.readHeader(head); err != nil {
		return nil, err
	}
	if raw, err = decode(payload); err != nil {
		return nil, refusal("has claims that aren't base64url")
	}
	if t.claims, err = readObject(raw); err != nil {
		return nil, refusal("has a claims part that " + err.Error())
	}
	t.raw = raw
	if err := t.readClaims(); err != nil {
		return nil, err
	}
	if t.signature, err = decode(signature); err != nil {
		return nil, refusal("has a signature that isn't base64url")
	}
	return t, nil
}

// split cuts a token into its three parts, none of which is empty, and lets no letter through that base64url hasn't:
// Go's decoder would skip line ends.
func split(token string) (header, payload, signature string, err error) {
	if len(token) > maxTokenBytes {
		return "", "", "", refusal("is longer than 16 KiB")
	}
	var dots [2]int
	n := 0
	for i := range len(token) {
		switch c := token[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.':
			if n < len(dots) {
				dots[n] = i
			}
			n++
		default:
			return "", "", "", refusal("holds characters that a JWT hasn't")
		}
	}
	switch n {
	case 2:
	case 4:
		return "", "", "", refusal("is encrypted (a JWE), and only signed ones are taken")
	default:
		return "", "", "", refusal("isn't a JWT: it hasn't three parts")
	}
	header, payload, signature = token[:dots[0]], token[dots[0]+1:dots[1]], token[dots[1]+1:]
	switch {
	case header == "":
		return "", "", "", refusal("has no header")
	case payload == "":
		return "", "", "", refusal("has no claims; they can't be detached")
	case signature == "":
		return "", "", "", refusal("isn't signed")
	}
	return header, payload, signature, nil
}

func decode(part string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(part)
}

// readHeader takes what says how to verify. Members that only name keys elsewhere (jwk, jku, x5u, x5c, x5t) are never
// looked at, as RFC 8725 section 3.10 has it: keys come from the configuration alone.
func (t *unverified) readHeader(head map[string]any) error {
	if _, ok := head["crit"]; ok {
		return refusal("asks for an extension (crit), and none is known here")
	}
	if b64, ok := head["b64"]; ok && b64 != true {
		return refusal("has claims that aren't encoded (b64)")
	}
	if typ, ok := head["typ"]; ok {
		s, _ := typ.(string)
		s = strings.ToLower(s) // a media type; RFC 7515 section 4.1.9 lets "application/" be left out
		if s = strings.TrimPrefix(s, "application/"); s != "jwt" && s != "at+jwt" {
			return refusal("isn't of type JWT or at+jwt (typ)")
		}
	}
	var ok bool
	if t.alg, ok = head["alg"].(string); !ok {
		return refusal("doesn't say how it is signed (alg)")
	}
	if kid, given := head["kid"]; given {
		if t.kid, ok = kid.(string); !ok {
			return refusal("has a key id (kid) that isn't text")
		}
		t.hasKid = true
	}
	return nil
}

// readClaims takes the registered claims, each of its type.
func (t *unverified) readClaims() error {
	for name, to := range map[string]*string{"iss": &t.named.Issuer, "sub": &t.named.Subject, "jti": &t.named.ID} {
		if v, given := t.claims[name]; given {
			var ok bool
			if *to, ok = v.(string); !ok {
				return refusal("has a claim " + name + " that isn't text")
			}
		}
	}
	for name, to := range map[string]**jwt.NumericDate{"exp": &t.named.ExpiresAt, "nbf": &t.named.NotBefore, "iat": &t.named.IssuedAt} {
		if v, given := t.claims[name]; given {
			at, ok := date(v)
			if !ok {
				return refusal("has a claim " + name + " that isn't a time (seconds since 1970)")
			}
			*to = &jwt.NumericDate{Time: at}
		}
	}
	switch aud := t.claims["aud"].(type) {
	case nil:
		if _, given := t.claims["aud"]; given {
			return refusal("has a claim aud that isn't text")
		}
	case string:
		t.named.Audience = jwt.ClaimStrings{aud}
	case []any:
		for _, a := range aud {
			s, ok := a.(string)
			if !ok {
				return refusal("has a claim aud that isn't text")
			}
			t.named.Audience = append(t.named.Audience, s)
		}
	default:
		return refusal("has a claim aud that isn't text")
	}
	return nil
}

// date reads a NumericDate (RFC 7519 section 2) between 1970 and the year 9999, beyond which time.Time can't be written.
func date(v any) (time.Time, bool) {
	const last = 253402300799
	switch v := v.(type) {
	case int64:
		return time.Unix(v, 0), v >= 0 && v <= last
	case float64:
		whole, part := math.Modf(v)
		if !(v >= 0 && v <= last) {
			return time.Time{}, false
		}
		return time.Unix(int64(whole), int64(part*1e9)), true
	default:
		return time.Time{}, false
	}
}

// What readObject finds. They complete a sentence that begins with what was read.
var (
	errNotText   = errors.New("isn't UTF-8")
	errNotObject = errors.New("isn't a JSON object")
	errTwice     = errors.New("has a member that stands twice")
	errTooDeep   = errors.New("is nested too deep")
	errTooLarge  = errors.New("has a number that can't be held")
)

// readObject reads a JSON object. Whole numbers are int64, so that two large ones never become equal; others are float64.
func readObject(raw []byte) (map[string]any, error) {
	switch {
	case !utf8.Valid(raw) || halfRune(raw):
		return nil, errNotText
	case !json.Valid(raw):
		return nil, errNotObject
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := readValue(d, 0)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errNotObject
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errNotObject
	}
	return m, nil
}

func readValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxNesting {
		return nil, errTooDeep
	}
	token, err := d.Token()
	if err != nil {
		return nil, errNotObject
	}
	switch v := token.(type) {
	case json.Number:
		return number(string(v))
	case json.Delim:
		if v == '{' {
			return readMembers(d, depth)
		}
		list := []any{}
		for d.More() {
			v, err := readValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token() // its end
		return list, err
	default:
		return v, nil
	}
}

func readMembers(d *json.Decoder, depth int) (any, error) {
	members := map[string]any{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errNotObject
		}
		s, ok := name.(string)
		if !ok {
			return nil, errNotObject
		}
		if _, twice := members[s]; twice {
			return nil, errTwice
		}
		if members[s], err = readValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token() // its end
	return members, err
}

func number(s string) (any, error) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !strings.ContainsAny(s, ".eE") {
		return nil, errTooLarge
	}
	return f, nil
}

// halfRune reports whether JSON holds an escaped half of a surrogate pair without the other. encoding/json makes U+FFFD
// of each, so that two different texts become one.
func halfRune(raw []byte) bool {
	unit := func(i int) (rune, bool) {
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return 0, false
		}
		n, err := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		return rune(n), err == nil
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		first, ok := unit(i)
		switch {
		case !ok:
			i++ // over the letter that is escaped
		case 0xDC00 <= first && first < 0xE000:
			return true
		case 0xD800 <= first && first < 0xDC00:
			second, ok := unit(i + 6)
			if !ok || second < 0xDC00 || second >= 0xE000 {
				return true
			}
			i += 11
		default:
			i += 5
		}
	}
	return false
}
