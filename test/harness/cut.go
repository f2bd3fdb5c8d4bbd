package harness

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// Cut says when a client cuts a connection of its own: after how many bytes received, wherever in a frame that is, and
// how long it stays away then. A nil *Cut never does.
type Cut struct {
	After int64
	Away  time.Duration

	done atomic.Bool // the connection was cut
}

var errCut = errors.New("the client cut its connection")

// cutConn is a connection that ends after a number of bytes received. Half of them end as a process that dies does,
// with a reset, half with a close.
type cutConn struct {
	net.Conn
	cut   *Cut
	left  int64
	reset bool
}

func newCutConn(c net.Conn, cut *Cut, r *rand.Rand) net.Conn {
	if cut == nil {
		return c
	}
	return &cutConn{Conn: c, cut: cut, left: cut.After, reset: r.IntN(2) == 0}
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		c.cut.done.Store(true)
		if tcp, ok := c.Conn.(*net.TCPConn); ok && c.reset {
			_ = tcp.SetLinger(0)
		}
		c.Conn.Close()
		return 0, errCut
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}
