package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
)

// readyTimeout bounds the checks of one /readyz.
const readyTimeout = 2 * time.Second

// serveLive answers GET /livez: the process answers. Nothing outside of it counts, or Kafka's outage would have every
// gateway restarted.
func serveLive(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
}

// readiness is what /readyz tells operators.
type readiness struct {
	Ready    bool              `json:"ready"`
	Draining bool              `json:"draining"`
	Checks   map[string]string `json:"checks"` // "ok", or what is wrong
}

func (r readiness) status() int {
	if r.Ready {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

func (g *Gateway) readiness(ctx context.Context) readiness {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	draining := g.draining.Err() != nil
	result := readiness{Ready: !draining, Draining: draining, Checks: map[string]string{}}
	var mu sync.Mutex // guards result
	var wg sync.WaitGroup
	for name, check := range g.cfg.Checks {
		wg.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			result.Checks[name] = "ok"
			if err != nil {
				result.Ready = false
				result.Checks[name] = err.Error()
			}
		})
	}
	wg.Wait()
	return result
}

func (g *Gateway) serveReadyAdmin(w http.ResponseWriter, r *http.Request) {
	result := g.readiness(r.Context())
	writeJSON(w, result.status(), result)
}

// serveReadyPublic tells a proxy what it needs and the world nothing more.
func (g *Gateway) serveReadyPublic(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(g.readiness(r.Context()).status())
}

func (g *Gateway) serveHubs(w http.ResponseWriter, _ *http.Request) {
	stats := g.hubs.Stats()
	if stats == nil {
		stats = []fanout.HubStats{}
	}
	writeJSON(w, http.StatusOK, map[string][]fanout.HubStats{"hubs": stats})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // of our own types
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client is gone
}
