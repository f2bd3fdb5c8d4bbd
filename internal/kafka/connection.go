package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// protocol bounds the versions of requests from above; each broker's own bound comes with its first answer.
var protocol = sarama.V2_8_0_0 // knows topic ids

const (
	laneConnections = 4               // of one lane to one broker at most
	idleConnections = 2 * time.Minute // after it, one may have been dropped somewhere on the way without a word
)

// lane is a kind of requests that has connections of its own, so that it never waits for another kind.
type lane int

const (
	lookups lane = iota // answered at once
	writes              // answered when all replicas have them
)

// poolKey names the connections of a lane to an address.
type poolKey struct {
	lane lane
	addr string
}

// saramaConfig returns what sarama needs to know for a connection. Secrets are read anew.
func (c *Client) saramaConfig() (*sarama.Config, error) {
	cfg := sarama.NewConfig()
	cfg.Version = protocol
	cfg.ClientID = c.cfg.ClientID
	cfg.MetricRegistry = noMetrics{}
	cfg.Metadata.AllowAutoTopicCreation = false
	cfg.Net.DialTimeout = c.cfg.DialTimeout
	cfg.Net.ReadTimeout = c.cfg.RequestTimeout
	cfg.Net.WriteTimeout = c.cfg.RequestTimeout
	if err := c.cfg.SASL.apply(cfg); err != nil {
		return nil, err
	}
	return cfg, nil
}

// dial opens a new connection to a broker that metadata has named: TCP, TLS and SASL. It is the caller's own, who
// closes it. A call that waits on it ends at once with hangUp.
func (c *Client) dial(ctx context.Context, brokerID int32) (*sarama.Broker, error) {
	addr, err := c.address(brokerID)
	if err != nil {
		return nil, fmt.Errorf("dial broker %d: %w", brokerID, err)
	}
	return c.dialAddress(ctx, addr)
}

func (c *Client) dialAddress(ctx context.Context, addr string) (*sarama.Broker, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	cfg, err := c.saramaConfig()
	if err != nil {
		return nil, err
	}
	b := sarama.NewBroker(addr)
	cfg.Net.Proxy.Enable, cfg.Net.Proxy.Dialer = true, &dialer{client: c, ctx: ctx, broker: b}
	if err := b.Open(cfg); err != nil {
		return nil, err
	}
	ready, err := aside(ctx, c, b, (*sarama.Broker).Connected) // waits until it is, or isn't
	if err == nil && !ready {
		err = sarama.ErrNotConnected
	}
	if err != nil {
		c.metrics.connectFailures.Inc()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return b, nil
}

// hangUp cuts a connection under whatever call waits on it. The broker is still to be closed.
func (c *Client) hangUp(b *sarama.Broker) {
	c.mu.Lock()
	wires := slices.Collect(maps.Keys(c.wires))
	c.mu.Unlock()
	for _, w := range wires {
		if w.broker == b {
			w.Close()
		}
	}
}

// aside calls f, which may wait on b's connection. When ctx ends first it hangs up and returns at once. After an error b
// is closed, or will be as soon as f is back.
func aside[T any](ctx context.Context, c *Client, b *sarama.Broker, f func(*sarama.Broker) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	done, abandoned := make(chan answer), make(chan struct{})
	if !c.start(func() {
		value, err := f(b)
		if err != nil {
			b.Close()
		}
		select {
		case done <- answer{value, err}:
		case <-abandoned:
			b.Close()
		}
	}) {
		return none, errClosed
	}
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		close(abandoned)
		c.hangUp(b)
		return none, context.Cause(ctx)
	}
}

// exchange sends one request to an address over a connection of its lane, which no long poll ever uses, and returns
// its answer. A connection that had been idle may be gone: then f is called again, with a new one, unless it writes:
// what was asked may have been done.
func exchange[T any](ctx context.Context, c *Client, lane lane, addr string, f func(*sarama.Broker) (T, error)) (T, error) {
	var none T
	p, err := c.pool(poolKey{lane, addr})
	if err != nil {
		return none, err
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	asked := false
	for {
		b := p.take()
		fresh := b == nil
		if fresh {
			if b, err = c.dialAddress(ctx, addr); err != nil && asked {
				err = fmt.Errorf("%w: %w", errNoAnswer, err)
			}
			if err != nil {
				return none, err
			}
		}
		value, err := aside(ctx, c, b, f)
		if err == nil {
			p.give(b)
			return value, nil
		}
		asked = true
		if !fresh {
			p.drop() // the others are as old
		}
		if fresh || lane == writes || ctx.Err() != nil {
			return none, fmt.Errorf("ask %s: %w: %w", addr, errNoAnswer, err)
		}
	}
}

// errNoAnswer stands in every error of a request that the broker may have got.
var errNoAnswer = errors.New("no answer")

// pool holds the idle connections of one lane to one address, and bounds how many there are.
type pool struct {
	slots chan struct{} // one for each connection in use

	mu     sync.Mutex // guards what follows
	idle   []idleConnection
	closed bool
}

type idleConnection struct {
	broker *sarama.Broker
	since  time.Time
}

func (c *Client) pool(key poolKey) (*pool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	p, ok := c.pools[key]
	if !ok {
		p = &pool{slots: make(chan struct{}, laneConnections)}
		c.pools[key] = p
	}
	return p, nil
}

// take returns the connection that was used last, or nil if there is none that can be trusted.
func (p *pool) take() *sarama.Broker {
	p.mu.Lock()
	if n := len(p.idle); n > 0 && time.Since(p.idle[n-1].since) < idleConnections {
		b := p.idle[n-1].broker
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return b
	}
	p.mu.Unlock()
	p.drop()
	return nil
}

func (p *pool) give(b *sarama.Broker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		defer b.Close()
		return
	}
	p.idle = append(p.idle, idleConnection{b, time.Now()})
}

// close closes the idle connections, and each one that is given back later.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drop()
}

// drop closes the idle connections.
func (p *pool) drop() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, i := range idle {
		i.broker.Close()
	}
}

// dialer makes the connections of one sarama.Broker, or of a whole sarama.Client when broker is nil.
type dialer struct {
	client *Client
	ctx    context.Context // ends what is being dialled
	broker *sarama.Broker
}

// Dial connects to an address, with TLS if it is configured.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	c := d.client
	ctx, cancel := context.WithTimeout(d.ctx, c.cfg.DialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conn = directly(conn)
	if c.cfg.TLS.Enabled {
		if conn, err = handshake(ctx, conn, addr, c.cfg.TLS); err != nil {
			return nil, err
		}
	}
	w := &wire{Conn: conn, client: c, broker: d.broker}
	if err := c.add(w); err != nil {
		conn.Close()
		return nil, err
	}
	if d.ctx.Err() != nil { // it ended before hangUp could find the wire
		w.Close()
		return nil, context.Cause(d.ctx)
	}
	return w, nil
}

func handshake(ctx context.Context, conn net.Conn, addr string, settings TLS) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		conn.Close()
		return nil, err
	}
	cfg, err := settings.config(host)
	if err != nil {
		conn.Close()
		return nil, err
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secured, nil
}

// wire is an open connection, known to its client until it is closed.
type wire struct {
	net.Conn
	client *Client
	broker *sarama.Broker
}

func (c *Client) add(w *wire) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	c.wires[w] = struct{}{}
	c.metrics.connections.Inc()
	return nil
}

// Close closes the connection. It may be called again, and while another goroutine reads.
func (w *wire) Close() error {
	w.client.mu.Lock()
	if _, open := w.client.wires[w]; open {
		delete(w.client.wires, w)
		w.client.metrics.connections.Dec()
	}
	w.client.mu.Unlock()
	return w.Conn.Close()
}

// retry calls f until it succeeds, its error can't get better with time, or ctx ends, with a growing wait between.
// When ctx ends, the error is the last one that f gave before.
func retry(ctx context.Context, better func(error) bool, f func() error) error {
	const first, most = 50 * time.Millisecond, time.Second
	var last error
	for wait := first; ; wait = min(2*wait, most) {
		err := f()
		if err == nil || !better(err) {
			return err
		}
		if last == nil || ctx.Err() == nil { // what f says once ctx has ended is only that
			last = err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return last
		}
	}
}
