package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/goodgo/streamgw/internal/stream"
)

// VerifierConfig is what all issuers share. Its zero value works.
type VerifierConfig struct {
	// ClockSkew is how far a clock of an issuer may be from ours: a token is good that much longer, and earlier. Default
	// 30 s; negative means none.
	ClockSkew time.Duration

	// Refresh is how often keys are fetched from an issuer, give or take a quarter. A key that was withdrawn is believed
	// that much longer, and for as long as the issuer can't be asked. Default 5 min.
	Refresh time.Duration

	// CoolDown is how long after a fetch a token with an unknown key doesn't bring about another, and how long after a
	// failure the next is made. It is what a flood of such tokens may cost an issuer. Default 10 s.
	CoolDown time.Duration

	// FetchTimeout bounds a fetch, all requests of it together, and how long a token waits for one. Default 5 s.
	FetchTimeout time.Duration

	// FileCheck is how often files of keys are looked at. Default 5 s.
	FileCheck time.Duration

	// HTTPClient's transport carries the requests; its cookies, redirects and timeout aren't used. Default a transport of
	// its own.
	HTTPClient *http.Client

	Log      *slog.Logger          // default none
	Registry prometheus.Registerer // default none
	Now      func() time.Time      // what tokens' times are held against; default time.Now
}

func (cfg *VerifierConfig) setDefaults() {
	for _, d := range []struct {
		of *time.Duration
		to time.Duration
	}{
		{&cfg.ClockSkew, 30 * time.Second}, {&cfg.Refresh, 5 * time.Minute}, {&cfg.CoolDown, 10 * time.Second},
		{&cfg.FetchTimeout, 5 * time.Second}, {&cfg.FileCheck, 5 * time.Second},
	} {
		if *d.of == 0 || *d.of < 0 && d.of != &cfg.ClockSkew {
			*d.of = d.to
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
}

// Token is one whose signature, issuer, audience and times hold. It says who somebody is, not what they may.
type Token struct {
	Issuer, Subject, ID          string    // iss; sub and jti, "" if the token has none
	IssuedAt, NotBefore, Expires time.Time // iat and nbf are zero if the token has none
	KeyID                        string    // the kid of the key that verified it, "" if that has none
	Algorithm                    string

	// Claims are all of them. Whole numbers are int64, others float64; the rest is as encoding/json has it.
	Claims map[string]any

	raw   json.RawMessage // the claims as they came
	print fingerprint     // of the key that verified it
}

// Verifier checks tokens of its issuers. It is safe for concurrent use.
type Verifier struct {
	cfg     VerifierConfig
	issuers map[string]*issuer
	files   []*keyFile
	metrics *tokenMetrics
}

// issuer is an Issuer as it is held against tokens.
type issuer struct {
	name       string
	algorithms map[string]algorithm
	claims     *jwt.Validator
	skew       time.Duration
	ring       ring
	remote     *remoteKeys // nil if its keys are in a file
}

// NewVerifier returns the verifier of some issuers, with the keys that are in files. It asks nobody for keys: Run does.
// Errors name the settings that are wrong, all of them.
func NewVerifier(issuers []Issuer, cfg VerifierConfig) (*Verifier, error) {
	cfg.setDefaults()
	v := &Verifier{cfg: cfg, issuers: map[string]*issuer{}}
	if len(issuers) == 0 {
		return nil, errors.New("auth.issuers: there is none, so no token could be good")
	}
	if cfg.ClockSkew > maxClockSkew {
		return nil, fmt.Errorf("auth.clockSkew: is %s; at most %s", cfg.ClockSkew, maxClockSkew)
	}
	v.metrics = newTokenMetrics(v)
	client := keyClient(cfg.HTTPClient)
	var problems []error
	for i, is := range issuers {
		at := fmt.Sprintf("auth.issuers[%d]", i)
		wrong := is.check()
		if _, twice := v.issuers[is.Issuer]; twice && is.Issuer != "" {
			wrong = append(wrong, errors.New("issuer: is another's too; tokens couldn't be told apart"))
		}
		if len(wrong) == 0 {
			if err := v.add(is, client); err != nil {
				wrong = append(wrong, err)
			}
		}
		for _, err := range wrong {
			problems = append(problems, fmt.Errorf("%s.%w", at, err))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	v.metrics.register(cfg.Registry)
	return v, nil
}

// add makes an issuer of one whose settings fit together, and loads its keys if they are in a file.
func (v *Verifier) add(is Issuer, client *http.Client) error {
	algs, err := algorithmsOf(is)
	if err != nil {
		return err
	}
	skew := v.cfg.ClockSkew
	if is.ClockSkew != 0 {
		skew = is.ClockSkew
	}
	to := &issuer{name: is.Issuer, algorithms: map[string]algorithm{}, skew: max(0, skew)}
	for _, a := range algs {
		to.algorithms[a.name] = a
	}
	to.claims = jwt.NewValidator(jwt.WithIssuer(is.Issuer), jwt.WithAudience(is.Audience...), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithLeeway(to.skew), jwt.WithTimeFunc(v.cfg.Now))
	v.issuers[is.Issuer] = to

	switch {
	case is.SecretFile != "":
		return v.addFile(to, "secretFile", is.SecretFile, func(raw []byte) (*keySet, error) { return parseSecret(raw, algs) })
	case is.PublicKeyFile != "":
		return v.addFile(to, "publicKeyFile", is.PublicKeyFile, func(raw []byte) (*keySet, error) { return parsePEM(raw, algs) })
	case is.JWKSFile != "":
		return v.addFile(to, "jwksFile", is.JWKSFile, func(raw []byte) (*keySet, error) {
			set, skipped, err := parseJWKS(raw, algs, true)
			if err == nil && len(skipped) > 0 {
				v.cfg.Log.Warn("some keys of an issuer can't be used", "issuer", is.Issuer, "keys", few(skipped))
			}
			return set, err
		})
	case is.JWKS != "":
		u, err := checkURL(is.JWKS)
		if err != nil {
			return fmt.Errorf("jwks: %w", err)
		}
		v.addRemote(to, algs, client, u, func(context.Context) (string, error) { return is.JWKS, nil })
	default:
		u, err := checkIssuerURL(is.Issuer)
		if err != nil {
			return fmt.Errorf("issuer: %w, which oidc needs", err)
		}
		v.addRemote(to, algs, client, u, func(ctx context.Context) (string, error) { return discover(ctx, client, is.Issuer) })
	}
	return nil
}

func (v *Verifier) addFile(to *issuer, setting, path string, parse func([]byte) (*keySet, error)) error {
	f := &keyFile{issuer: to.name, path: path, parse: parse, ring: &to.ring}
	if err := f.load(); err != nil {
		return fmt.Errorf("%s: %w", setting, err)
	}
	v.files = append(v.files, f)
	return nil
}

func (v *Verifier) addRemote(to *issuer, algs []algorithm, client *http.Client, u *url.URL, locate func(context.Context) (string, error)) {
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		v.cfg.Log.Warn("keys come over plain http: whoever is on the way can put theirs there", "issuer", to.name)
	}
	to.remote = &remoteKeys{
		issuer: to.name, locate: locate, algs: algs, ring: &to.ring, client: client, metrics: v.metrics, log: v.cfg.Log,
		refresh: v.cfg.Refresh, coolDown: v.cfg.CoolDown, timeout: v.cfg.FetchTimeout,
		wanted: make(chan struct{}, 1), ended: make(chan struct{}), failed: true,
	}
}

// Run keeps keys fresh until ctx ends: it fetches those of issuers that publish them, and takes over changes of files.
// It is called once. Without it, keys in files stay as they were and other issuers' tokens are Unavailable.
func (v *Verifier) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, is := range v.issuers {
		if is.remote != nil {
			wg.Go(func() { is.remote.run(ctx) })
		}
	}
	tick := time.NewTicker(v.cfg.FileCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			for _, f := range v.files {
				f.reload(v.cfg.Log)
			}
		}
	}
}

// Verify returns what a token says if it holds. Errors are [stream.Error]: of kind Unauthorized with what is wrong with the
// token, in words that hold no part of it; of kind Unavailable if it can't be told, since its issuer can't be asked for
// keys. It waits only for a fetch of keys, and only with a token whose key isn't known.
func (v *Verifier) Verify(ctx context.Context, token string) (*Token, error) {
	t, err := readToken(token)
	if err != nil {
		v.metrics.count("", err)
		return nil, err
	}
	is, ok := v.issuers[t.named.Issuer]
	switch {
	case ok:
		good, err := is.verify(ctx, t)
		v.metrics.count(is.name, err)
		return good, err
	case t.named.Issuer == "":
		err = refusal("doesn't say who made it (iss)")
	default:
		err = refusal("comes from an issuer that isn't one of this gateway's (iss)")
	}
	v.metrics.count("", err)
	return nil, err
}

// verify holds a token against the issuer that it names. Only once the signature holds is anything said of the claims.
func (is *issuer) verify(ctx context.Context, t *unverified) (*Token, error) {
	a, ok := is.algorithms[t.alg]
	if !ok {
		return nil, refusal("is signed with an algorithm that isn't one of its issuer's (alg)")
	}
	by, err := is.verifySignature(ctx, t, a)
	if err != nil {
		return nil, err
	}
	if err := is.claims.Validate(t.named); err != nil {
		return nil, claimsRefusal(t.named, err)
	}
	good := newToken(t)
	good.KeyID, good.Algorithm, good.print = by.id, a.name, by.print
	return good, nil
}

// newToken returns what a token says that has an exp and holds.
func newToken(t *unverified) *Token {
	good := &Token{Issuer: t.named.Issuer, Subject: t.named.Subject, ID: t.named.ID, Expires: t.named.ExpiresAt.Time, Claims: t.claims, raw: t.raw}
	if t.named.IssuedAt != nil {
		good.IssuedAt = t.named.IssuedAt.Time
	}
	if t.named.NotBefore != nil {
		good.NotBefore = t.named.NotBefore.Time
	}
	return good
}

func (is *issuer) verifySignature(ctx context.Context, t *unverified, a algorithm) (by *key, err error) {
	set := is.ring.set.Load()
	said, by := set.verify(t, a)
	// A token without kid, of an issuer whose only key has changed, looks forged until the new one is here.
	if is.remote != nil && (said == unknownKey || said == forged && !t.hasKid) {
		now, failed := is.remote.newer(ctx, set)
		if now == nil {
			return nil, stream.Errorf(stream.Unavailable, "the keys of the token's issuer can't be had now")
		}
		if now != set {
			said, by = now.verify(t, a)
		}
		if said == unknownKey && failed {
			return nil, stream.Errorf(stream.Unavailable, "the token's key isn't known, and its issuer can't be asked now")
		}
	}
	switch said {
	case verified:
		return by, nil
	case forged:
		return nil, refusal("has a signature that doesn't hold")
	case ambiguous:
		return nil, refusal("names no key (kid), and its issuer has many")
	default:
		return nil, refusal("is signed with a key that its issuer doesn't have (kid)")
	}
}

// stands returns an error for what was good unless the issuer still has the key that said so.
func (is *issuer) stands(ctx context.Context, print fingerprint) error {
	set := is.ring.set.Load()
	if set.has(print) {
		return nil
	}
	failed := false
	if is.remote != nil {
		if set, failed = is.remote.newer(ctx, set); set.has(print) {
			return nil
		}
	}
	if failed {
		return stream.Errorf(stream.Unavailable, "the keys of the ticket's issuer can't be had now")
	}
	return refusal("was signed with a key that its issuer no longer has")
}

// claimsRefusal says the first thing that is wrong with the claims.
func claimsRefusal(claims jwt.RegisteredClaims, err error) error {
	switch {
	case claims.ExpiresAt == nil:
		return refusal("doesn't say when it ends (exp)")
	case errors.Is(err, jwt.ErrTokenInvalidAudience), errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refusal("isn't for this audience (aud)")
	case errors.Is(err, jwt.ErrTokenExpired):
		return refusal("has expired (exp)")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refusal("isn't good yet (nbf)")
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return refusal("was issued in the future (iat)")
	default:
		return refusal("has claims that don't hold")
	}
}

// tokenMetrics counts tokens and fetches of keys, by issuer: those of the configuration, so that tokens can't add any.
type tokenMetrics struct {
	tokens  *prometheus.CounterVec
	fetches *prometheus.CounterVec
	keys    *keysCollector
}

func newTokenMetrics(v *Verifier) *tokenMetrics {
	return &tokenMetrics{
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamgw_auth_tokens_total",
			Help: `Tokens, by the issuer that they name ("" if it isn't one of ours) and what became of them.`,
		}, []string{"issuer", "result"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamgw_auth_key_fetches_total", Help: "Fetches of an issuer's keys.",
		}, []string{"issuer", "result"}),
		keys: &keysCollector{v, prometheus.NewDesc("streamgw_auth_keys", "Keys of an issuer that tokens are held against.", []string{"issuer"}, nil)},
	}
}

func (m *tokenMetrics) register(reg prometheus.Registerer) {
	if reg != nil {
		reg.MustRegister(m.tokens, m.fetches, m.keys)
	}
}

func (m *tokenMetrics) count(issuer string, err error) {
	result := "accepted"
	if err != nil {
		result = "refused"
		if e, ok := errors.AsType[*stream.Error](err); ok && e.Kind == stream.Unavailable {
			result = "unavailable"
		}
	}
	m.tokens.WithLabelValues(issuer, result).Inc()
}

func (m *tokenMetrics) fetched(issuer string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.fetches.WithLabelValues(issuer, result).Inc()
}

// keysCollector tells how many keys each issuer has.
type keysCollector struct {
	verifier *Verifier
	desc     *prometheus.Desc
}

func (c *keysCollector) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

func (c *keysCollector) Collect(to chan<- prometheus.Metric) {
	for name, is := range c.verifier.issuers {
		n := 0
		if set := is.ring.set.Load(); set != nil {
			n = len(set.keys)
		}
		to <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), name)
	}
}
