// Package gateway is the HTTP face: a request becomes a subscription of [fanout.Hubs], and what the subscription yields
// becomes Server-Sent Events, lines of JSON or WebSocket frames, as docs/protocol.md tells client authors.
//
// Promises: what has come for a client leaves in one write; no payload, key, header, topic or event type can forge a
// field, a frame or a second event; what is wrong with a request is said before a stream opens, as RFC 9457 problem
// details that name the field. No client holds more than one pending write and one batch of its subscriptions.
package gateway

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is how the gateway treats its clients. Its zero value works.
type Config struct {
	// Heartbeat is how long a stream may be silent before something is sent on it, so that proxies and clients see
	// that it lives. It is also how often a filtered client is told its position. Default 15 s.
	Heartbeat time.Duration

	// Retry and RetrySpread are what an EventSource is told to wait before it reconnects: Retry and a random part
	// of RetrySpread, so that the clients of a replica that died don't come all at once. Default 1 s and 2 s.
	Retry, RetrySpread time.Duration

	// Drain is the time over which clients are asked to come back when the gateway stops. Default 10 s.
	Drain time.Duration

	// WriteTimeout is how long a client may take nothing of 64 KiB that wait for it, or answer no WebSocket ping,
	// before its connection is closed. Default 30 s.
	WriteTimeout time.Duration

	// ExpiryNotice is how long before its token's end a stream is told of it. Default 1 min.
	ExpiryNotice time.Duration

	// AuthTimeout is how long a WebSocket that was opened without a token may take for its first auth frame. Default 10 s.
	AuthTimeout time.Duration

	// MaxTopics bounds the topics of one subscription. Each adds to the position that comes with every event.
	// Default 64.
	MaxTopics int

	// MaxSubscriptions bounds the subscriptions of one WebSocket connection. Default 16.
	MaxSubscriptions int

	// Origins are the web origins (https://app.example) whose pages may read streams; * is all. None: pages of the
	// gateway's own host only, and no CORS headers are sent.
	Origins []string

	// Served says which topics the configuration serves. Others are told to be unknown. Nil: all. Internal topics are
	// never served.
	Served func(topic string) bool

	// Checks are what /readyz asks, by name. The gateway is ready while all return nil. They have 2 s.
	Checks map[string]func(context.Context) error

	// Revocations is a compacted topic that carries what one replica revokes to all; "": there is none, and each replica
	// revokes for itself. It isn't served. Publisher writes to it.
	Revocations string
	Publisher   stream.Publisher

	// Limits bounds what clients may take. Its zero value bounds nothing.
	Limits Limits

	// Compression sends streams compressed to clients that accept it: gzip over HTTP, permessage-deflate over WebSocket.
	// It saves bytes and costs CPU once a hub and batch, whatever the number of clients; what is for one client alone
	// (history, several topics in one stream) costs it each time. Who can publish to a topic, and sees how long the
	// encrypted streams of others are, may guess at what else the topic has.
	Compression bool

	Log     *slog.Logger         // nil: none
	Metrics *prometheus.Registry // nil: none, and /metrics isn't served
}

func (cfg Config) withDefaults() Config {
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 15*time.Second)
	cfg.Retry = cmp.Or(cfg.Retry, time.Second)
	cfg.RetrySpread = cmp.Or(cfg.RetrySpread, 2*time.Second)
	cfg.Drain = cmp.Or(cfg.Drain, 10*time.Second)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 30*time.Second)
	cfg.ExpiryNotice = cmp.Or(cfg.ExpiryNotice, time.Minute)
	cfg.AuthTimeout = cmp.Or(cfg.AuthTimeout, 10*time.Second)
	cfg.MaxTopics = cmp.Or(cfg.MaxTopics, 64)
	cfg.MaxSubscriptions = cmp.Or(cfg.MaxSubscriptions, 16)
	if cfg.Served == nil {
		cfg.Served = func(string) bool { return true }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// hubs is what the gateway needs of [fanout.Hubs].
type hubs interface {
	subscribe(ctx context.Context, req fanout.Request) (subscription, error)
	Reserve(n int64) bool
	Release(n int64)
	Stats() []fanout.HubStats
}

// subscription is what the gateway needs of [fanout.Subscription], which has the promises of each method.
type subscription interface {
	Poll(b *fanout.Batch) error
	Prefetch()
	Unread(run fanout.Run, written int) (rest []byte, count int)
	Progress() (id string, moved bool)
	Position() string
	Close()
}

type fanoutHubs struct{ *fanout.Hubs }

func (h fanoutHubs) subscribe(ctx context.Context, req fanout.Request) (subscription, error) {
	sub, err := h.Subscribe(ctx, req)
	if err != nil {
		return nil, err // not sub: a nil pointer in an interface isn't nil
	}
	return sub, nil
}

// Gateway serves streams until Shutdown.
type Gateway struct {
	cfg       Config
	hubs      hubs
	topics    *topicList
	access    *auth.Access
	metrics   *metrics
	limiter   *limiter
	leases    leases
	following following // what other replicas have revoked

	buffers sync.Pool // of *[]byte, for what is about to be written
	batches sync.Pool // of *fanout.Batch, empty; a connection has one only while it polls

	draining context.Context // done once Shutdown begins: streams end
	drain    context.CancelFunc
	killed   context.Context // done when Shutdown's time is over: connections are cut
	kill     context.CancelFunc

	writers atomic.Pointer[writers] // nil unless Run runs

	mu      sync.Mutex // orders enter and Shutdown
	streams sync.WaitGroup
}

// New returns a gateway that serves what hubs yield, of topics that exist, to whom access lets in. The hubs are to be
// made with [Formats].
func New(cfg Config, hubs *fanout.Hubs, topics stream.Topics, access *auth.Access) *Gateway {
	return newGateway(cfg, fanoutHubs{hubs}, topics, access)
}

func newGateway(cfg Config, hubs hubs, topics stream.Topics, access *auth.Access) *Gateway {
	cfg = cfg.withDefaults()
	g := &Gateway{cfg: cfg, hubs: hubs, topics: newTopicList(topics), access: access, metrics: newMetrics(cfg.Metrics)}
	if topic := cfg.Revocations; topic != "" {
		g.cfg.Served = func(name string) bool { return name != topic && cfg.Served(name) }
		g.cfg.Checks = maps.Clone(cfg.Checks)
		if g.cfg.Checks == nil {
			g.cfg.Checks = map[string]func(context.Context) error{}
		}
		g.cfg.Checks["revocations"] = g.following.check
	}
	g.limiter = newLimiter(cfg.Limits, g.metrics)
	g.draining, g.drain = context.WithCancel(context.Background())
	g.killed, g.kill = context.WithCancel(context.Background())
	return g
}

// errDraining is what clients are told when the gateway stops. A stream that ends by it isn't a failure.
var errDraining = stream.Errorf(stream.Unavailable, "this gateway is shutting down; another one, or a moment later, will do")

// enter counts a stream in, unless the gateway is stopping, doesn't know yet whom to refuse, or the stream is over a limit.
// leave counts it out.
func (g *Gateway) enter(r *http.Request) (visit, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.open(); err != nil {
		return visit{}, err
	}
	v, err := g.limiter.enter(networkOf(r))
	if err == nil {
		g.streams.Add(1)
	}
	return v, err
}

// open returns why nobody is let in, or nil.
func (g *Gateway) open() error {
	switch {
	case g.draining.Err() != nil:
		return errDraining
	case g.cfg.Revocations != "" && !g.following.known.Load():
		return errNotKnown
	}
	return nil
}

// ask is enter for a request that is no stream: it takes no place among them.
func (g *Gateway) ask(r *http.Request) error {
	if err := g.open(); err != nil {
		return err
	}
	return g.limiter.ask(networkOf(r))
}

func (g *Gateway) leave(v visit) {
	g.limiter.leave(v)
	g.streams.Done()
}

// Shutdown ends all streams: SSE with a retry spread over Config.Drain, WebSocket with close code 1012, so that clients
// come back to another replica, not all at once. New streams are refused and /readyz answers 503 from its first moment
// on. It returns when no stream is left; when ctx ends before, connections are cut and its error is returned. It is
// called before [http.Server.Shutdown], which waits for streams and doesn't end them.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	g.drain()
	g.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		g.streams.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	g.kill()
	select {
	case <-ended: // cut connections end at once
	case <-time.After(time.Second):
	}
	return ctx.Err()
}
