package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/goodgo/streamgw/internal/auth"
)

// allowedOrigin reports whether the configuration lists an origin, or all.
func (g *Gateway) allowedOrigin(origin string) bool {
	return slices.Contains(g.cfg.Origins, "*") || g.namedOrigin(origin)
}

// namedOrigin reports whether the configuration lists an origin by name: pages of all origins may read, and only those of
// these may send cookies.
func (g *Gateway) namedOrigin(origin string) bool {
	return slices.ContainsFunc(g.cfg.Origins, func(o string) bool { return o != "*" && strings.EqualFold(o, origin) })
}

// cors lets pages of the listed origins read responses (the Fetch standard, "CORS protocol"). The rest get none of its
// headers, and then a browser keeps the response from the page.
func (g *Gateway) cors(next http.Handler) http.Handler {
	if len(g.cfg.Origins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if origin == "" || !g.allowedOrigin(origin) {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		if g.namedOrigin(origin) {
			h.Set("Access-Control-Allow-Credentials", "true")
		}
		h.Set("Access-Control-Expose-Headers", "Retry-After")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", "Authorization, Cache-Control, Content-Type, Last-Event-ID")
			h.Set("Access-Control-Max-Age", "7200") // seconds; Chromium's bound
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// sameOrListed reports whether a WebSocket handshake comes from a page of the same host or of a listed origin, or from
// no page at all. Browsers don't apply CORS to WebSocket, so the server has to look (RFC 6455 section 10.2).
func (g *Gateway) sameOrListed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return origin == "" || g.allowedOrigin(origin) || auth.SameHost(origin, r)
}
