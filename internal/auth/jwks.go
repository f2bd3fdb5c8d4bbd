package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
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

// maxWaiting bounds the tokens that wait while keys are fetched.
const maxWaiting = 1024

// remoteKeys are the keys of an issuer that publishes them. run fetches them; who holds a token with an unknown key asks it
// to fetch again and waits, while tokens of known keys are verified as before.
type remoteKeys struct {
	issuer  string
	locate  func(context.Context) (string, error) // the URL of the JWK set
	algs    []algorithm
	ring    *ring
	client  *http.Client
	metrics *tokenMetrics
	log     *slog.Logger

	refresh, coolDown, timeout time.Duration

	wanted chan struct{} // has room for one: somebody waits for a fetch that nobody has begun

	mu       sync.Mutex    // guards what follows
	ended    chan struct{} // closed when the fetch that is under way, or else the next one, has ended
	underWay bool
	over     bool      // run has returned: there will be no fetch
	cool     time.Time // until then nobody but run's own timer begins one
	failed   bool      // the last fetch did, or there was none yet
	waiting  int
}

// newer returns the keys once a fetch has ended, the one that is under way or a new one: at once if they already are
// others than known, or if the cool-down allows no fetch yet. failed says that the issuer couldn't be asked.
func (r *remoteKeys) newer(ctx context.Context, known *keySet) (set *keySet, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if set := r.ring.set.Load(); set != known {
		return set, false
	}
	early := !r.underWay && time.Now().Before(r.cool)
	if early || r.over || r.waiting == maxWaiting {
		return known, r.failed || r.waiting == maxWaiting
	}
	if !r.underWay {
		select {
		case r.wanted <- struct{}{}:
		default:
		}
	}
	r.waiting++
	ended := r.ended
	r.mu.Unlock()
	patience := time.NewTimer(r.timeout)
	told := false
	select {
	case <-ended:
		told = true
	case <-patience.C:
	case <-ctx.Done():
	}
	patience.Stop()
	r.mu.Lock()
	r.waiting--
	return r.ring.set.Load(), r.failed || !told
}

// run fetches the keys, and again: regularly, when somebody wants it, and sooner after a failure. It returns when ctx ends.
func (r *remoteKeys) run(ctx context.Context) {
	defer r.end()
	fault := false
	for {
		err := r.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		delay := r.refresh*3/4 + rand.N(r.refresh/2+1) // replicas that start together don't stay together
		if err != nil {
			delay = r.coolDown
		}
		r.tell(err, fault)
		fault = err != nil
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-r.wanted:
			timer.Stop()
		}
	}
}

// tell logs the beginning and the end of a time without new keys, and what lies between at level debug.
func (r *remoteKeys) tell(err error, fault bool) {
	set := r.ring.set.Load()
	switch {
	case err != nil && fault:
		r.log.Debug("the keys of an issuer still can't be fetched", "issuer", r.issuer, "err", err)
	case err != nil && set == nil:
		r.log.Error("the keys of an issuer can't be fetched; its tokens can't be verified", "issuer", r.issuer, "err", err)
	case err != nil:
		r.log.Error("the keys of an issuer can't be fetched; the last good ones stay", "issuer", r.issuer, "err", err)
	case fault:
		r.log.Info("the keys of an issuer are fetched again", "issuer", r.issuer, "keys", len(set.keys))
	}
}

func (r *remoteKeys) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	close(r.ended)
}

// fetch takes the keys over as they are now, or leaves them as they were.
func (r *remoteKeys) fetch(ctx context.Context) error {
	r.mu.Lock()
	r.underWay = true
	select {
	case <-r.wanted: // this is it
	default:
	}
	r.mu.Unlock()

	set, err := r.ask(ctx)

	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.ring.set.Store(set)
	}
	r.metrics.fetched(r.issuer, err)
	r.underWay, r.failed = false, err != nil
	r.cool = time.Now().Add(r.coolDown)
	close(r.ended)
	r.ended = make(chan struct{})
	return err
}

func (r *remoteKeys) ask(ctx context.Context) (*keySet, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	url, err := r.locate(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := get(ctx, r.client, url)
	if err != nil {
		return nil, fmt.Errorf("the JWK set: %w", err)
	}
	set, skipped, err := parseJWKS(raw, r.algs, false)
	if err != nil {
		return nil, fmt.Errorf("the JWK set %w", err)
	}
	if len(set.keys) == 0 {
		r.log.Warn("an issuer publishes no keys: none of its tokens is taken", "issuer", r.issuer)
	}
	if len(skipped) > 0 {
		r.log.Debug("some keys of an issuer can't be used", "issuer", r.issuer, "keys", few(skipped))
	}
	return set, nil
}

// keyClient returns a client that asks issuers: it follows few redirects, none to another scheme, and holds no cookies.
// base may be nil.
func keyClient(base *http.Client) *http.Client {
	client := &http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
		switch {
		case len(via) > 3:
			return errors.New("more than 3 redirects")
		case req.URL.Scheme != via[0].URL.Scheme:
			return errors.New("a redirect to another scheme")
		}
		return nil
	}}
	if base != nil {
		client.Transport = base.Transport
		return client
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives: true} // a request every few minutes
	client.Transport = transport
	return client
}

// get returns the body of an answer 200. Errors don't hold the URL, whose query may be somebody's secret.
func get(ctx context.Context, client *http.Client, from string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, errors.New("isn't a URL")
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	resp, err := client.Do(req)
	if err != nil {
		if whole, ok := errors.AsType[*url.Error](err); ok {
			err = whole.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxKeysBytes+1))
	if err == nil && len(raw) > maxKeysBytes {
		err = fmt.Errorf("is larger than %d bytes", maxKeysBytes)
	}
	return raw, err
}

// checkURL takes absolute URLs of HTTP without what would be lost or logged: a user's password, a fragment.
func checkURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return nil, errors.New("isn't a URL that begins with https://")
	case u.User != nil:
		return nil, errors.New("holds a user or a password")
	case u.Fragment != "":
		return nil, errors.New("has a fragment (#)")
	}
	return u, nil
}
