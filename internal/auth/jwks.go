package auth

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

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
	if had := r.ring.set.Load(); len(set.keys) == 0 && (had == nil || len(had.keys) > 0) {
		r.log.Warn("an issuer publishes no keys: none of its tokens is taken", "issuer", r.issuer)
	}
	if len(skipped) > 0 {
		r.log.Debug("some keys of an issuer can't be used", "issuer", r.issuer, "keys", few(skipped))
	}
	return set, nil
}
