package gateway

import (
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxHeaderBytes bounds a request's line and headers. A position of a topic with hundreds of partitions stands there.
const maxHeaderBytes = 128 << 10

// Server returns an HTTP server for one of the gateway's handlers: HTTP/1.1 and HTTP/2 without TLS, room for long
// positions, a bound on the time that headers take and none on the time that a stream lasts.
func Server(handler http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         protocols,
		ConnContext:       withTCP,
	}
	if log != nil {
		s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // what clients do wrong below HTTP
	}
	return s
}

// Public returns the handler for clients.
func (g *Gateway) Public() http.Handler {
	r := g.router()
	r.Use(g.cors)
	r.Use(g.limiter.clientAddress()...)
	r.Get("/v1/events", g.serveEvents)
	r.Get("/v1/ws", g.serveWebSocket)
	r.Get("/v1/topics", g.serveTopics)
	r.Post("/v1/tickets", g.serveTickets)
	r.Get("/readyz", g.serveReadyPublic)
	return r
}

// Admin returns the handler for operators. It is never to be reached from outside: profiles and metrics tell much.
func (g *Gateway) Admin() http.Handler {
	r := g.router()
	r.Get("/livez", serveLive)
	r.Get("/readyz", g.serveReadyAdmin)
	r.Get("/v1/hubs", g.serveHubs)
	r.Get("/v1/connections", g.serveConnections)
	r.Delete("/v1/connections", g.serveRevoke)
	if g.cfg.Metrics != nil {
		r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(g.cfg.Metrics, promhttp.HandlerOpts{Registry: g.cfg.Metrics}))
	}
	r.HandleFunc("/debug/pprof/*", pprof.Index) // named profiles too
	r.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	r.HandleFunc("/debug/pprof/profile", pprof.Profile)
	r.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	r.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return r
}

// router returns a router that answers with problem details where it has no route.
func (g *Gateway) router() *chi.Mux {
	r := chi.NewRouter()
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Content-Type-Options", "nosniff")
			next.ServeHTTP(w, r)
		})
	})
	r.Use(boundBody)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) { noSuchPath.write(w) })
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Allow", strings.Join(allowedMethods(r, req.URL.Path), ", "))
		wrongMethod.write(w)
	})
	return r
}

// bodyTimeout is how long a request's body may take. Nothing here has a use for one.
const bodyTimeout = 10 * time.Second

// boundBody keeps requests whose body is slow, or has no end, from holding on to what serves them: net/http reads some of it
// before it answers, and the rest before it lets go of the connection, and a stream's request has no time by which it ends.
func boundBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // where there are none, it ends with the connection
		if r.Method == http.MethodGet {
			problemOf(&stream.Error{Kind: stream.BadRequest, Field: "Content-Length", Detail: "a GET has no body here"}).write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func allowedMethods(routes chi.Routes, path string) (methods []string) {
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if routes.Match(chi.NewRouteContext(), m, path) {
			methods = append(methods, m)
		}
	}
	return methods
}
