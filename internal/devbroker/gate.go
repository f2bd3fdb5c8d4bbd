package devbroker

import (
	"errors"
	"net"
	"sync"
)

// gate is a listener that can leave the network and come back, at the same address.
type gate struct {
	network string
	addr    net.Addr

	mu     sync.Mutex // guards what follows
	moved  *sync.Cond // ln or closed has changed
	ln     net.Listener
	closed bool
	conns  map[*gatedConn]struct{}
}

func openGate(network, addr string) (*gate, error) {
	ln, err := net.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	g := &gate{network: network, addr: ln.Addr(), ln: ln, conns: map[*gatedConn]struct{}{}}
	g.moved = sync.NewCond(&g.mu)
	return g, nil
}

// Addr returns the address that the gate has whether it is open or not.
func (g *gate) Addr() net.Addr { return g.addr }

// Accept waits for a connection, also while the gate is down.
func (g *gate) Accept() (net.Conn, error) {
	for {
		g.mu.Lock()
		for g.ln == nil && !g.closed {
			g.moved.Wait()
		}
		ln, closed := g.ln, g.closed
		g.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		conn, err := ln.Accept()
		if err == nil {
			if gated := g.enter(ln, conn); gated != nil {
				return gated, nil
			}
		} else if !errors.Is(err, net.ErrClosed) {
			return nil, err
		}
	}
}

// enter takes a connection in, unless the gate went down meanwhile.
func (g *gate) enter(ln net.Listener, conn net.Conn) net.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln != ln || g.closed {
		conn.Close()
		return nil
	}
	gated := &gatedConn{conn, g}
	g.conns[gated] = struct{}{}
	return gated
}

// Close ends the listening for good.
func (g *gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.moved.Broadcast()
	if g.ln == nil {
		return nil
	}
	return g.ln.Close()
}

// cut ends the connections there are.
func (g *gate) cut() {
	g.mu.Lock()
	var conns []*gatedConn
	for c := range g.conns {
		conns = append(conns, c)
	}
	g.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

func (g *gate) down() {
	g.mu.Lock()
	if g.ln != nil {
		g.ln.Close()
		g.ln = nil
	}
	g.mu.Unlock()
	g.cut()
}

func (g *gate) up() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln != nil || g.closed {
		return nil
	}
	ln, err := net.Listen(g.network, g.addr.String())
	if err != nil {
		return err
	}
	g.ln = ln
	g.moved.Broadcast()
	return nil
}

// gatedConn is a connection that its gate can cut.
type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
