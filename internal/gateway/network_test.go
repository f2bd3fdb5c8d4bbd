package gateway

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/prometheus/client_golang/prometheus"
)

// network joins a gateway and its clients in a test's bubble: its connections have no buffer and the bubble's clock.
type network struct {
	*Gateway
	hubs     *fakeHubs
	registry *prometheus.Registry
	dialled  chan net.Conn
	closed   chan struct{}
}

func newNetwork(t *testing.T, cfg Config) *network {
	t.Helper()
	return guardedNetwork(t, cfg, openAccess(t))
}

// guardedNetwork returns one with somebody at its door.
func guardedNetwork(t *testing.T, cfg Config, access *auth.Access) *network {
	t.Helper()
	n := &network{hubs: newFakeHubs(), registry: prometheus.NewRegistry(), dialled: make(chan net.Conn), closed: make(chan struct{})}
	cfg.Metrics = n.registry
	n.Gateway = newGateway(cfg, n.hubs, &fakeTopics{}, access)
	server := Server(n.Public(), nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(n) // it is closed below
	}()
	t.Cleanup(func() {
		if err := n.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		server.Close()
		<-ended
	})
	return n
}

// Accept implements [net.Listener].
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.dialled:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (n *network) Close() error {
	close(n.closed)
	return nil
}

// Addr implements [net.Listener].
func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

// transport returns what a client of the network sends its requests with. It takes 32 KiB in each pause.
func (n *network) transport(t *testing.T, pause time.Duration) *http.Transport {
	t.Helper()
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		n.dialled <- server
		return slowConn{client, pause}, nil
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// slowConn is a connection of who reads slowly.
type slowConn struct {
	net.Conn
	pause time.Duration
}

func (c slowConn) Read(b []byte) (int, error) {
	time.Sleep(c.pause)
	return c.Conn.Read(b[:min(len(b), 32<<10)])
}
