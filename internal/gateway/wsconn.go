package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// webSocketConn is the connection below a WebSocket. The library reads from it and writes its control frames (pong,
// close) to it; whole frames that hubs share are written between them by write, many at once. The library gives a
// control frame 5 s and cuts the connection then, so its frames never wait for a slow write: they follow it.
type webSocketConn struct {
	net.Conn
	timeout time.Duration
	ends    *atomic.Int64 // see writePieces
	heard   atomic.Bool   // something came from the client since this was set to false

	mu      sync.Mutex // guards what follows, and orders frames
	writing bool       // write has the connection; control frames go to queued
	queued  []byte
	closed  bool // a close frame was sent, which nothing may follow (RFC 6455 section 5.5.1)
}

// maxQueued bounds the control frames that wait for a write. Pongs beyond it are left out: a client that sends pings
// faster than it reads gets an answer to some (RFC 6455 section 5.5.3).
const maxQueued = 1 << 10

// writeBuffer is what the kernel may hold of a connection's writes, in bytes (Linux takes it twice). It would take
// megabytes, and a ping behind them reaches a slow client too late.
const writeBuffer = 128 << 10

// The library's buffers: a control frame leaves in one write, and the header of a client's frame comes in one read.
const (
	controlBuffer = 128
	headerBuffer  = 32
)

// Read notes that the client is alive.
func (c *webSocketConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, err
}

// Write takes one control frame of the library's.
func (c *webSocketConn) Write(frame []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return afterClose(frame)
	}
	isClose := frame[0] == final|opClose
	c.closed = isClose
	if c.writing {
		if isClose || len(c.queued)+len(frame) <= maxQueued {
			c.queued = append(c.queued, frame...)
		}
		return len(frame), nil
	}
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(frame)
}

// afterClose is the end of a control frame that comes after a close frame: nobody gets it. That is no error for a pong,
// or a client that pinged before it saw the close frame would be cut instead of being waited for.
func afterClose(frame []byte) (int, error) {
	if frame[0] == final|opClose {
		return 0, net.ErrClosed
	}
	return len(frame), nil
}

// write sends whole frames. It is for one goroutine at a time.
func (c *webSocketConn) write(frames []byte) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.writing = true
	c.mu.Unlock()
	err := writePieces(c.Conn, frames, c.timeout, c.ends)
	for {
		c.mu.Lock()
		queued := c.queued
		c.queued = nil
		if len(queued) == 0 || err != nil {
			c.writing, c.closed = false, c.closed || err != nil // nothing can follow half a frame
			c.mu.Unlock()
			return err
		}
		c.mu.Unlock()
		err = writePieces(c.Conn, queued, c.timeout, c.ends)
	}
}

// errBrokenOff says that a message was begun of which the client may not have the rest.
var errBrokenOff = fmt.Errorf("in the midst of a message: %w", errExpired)

// writePieces writes b, and waits for the client: so long for each piece of it. It begins no further piece once the client
// may have nothing more, and returns errBrokenOff: ends is when, in Unix nanoseconds; nil: never.
func writePieces(conn interface {
	io.Writer
	SetWriteDeadline(time.Time) error
}, b []byte, timeout time.Duration, ends *atomic.Int64) error {
	for first := true; len(b) > 0; first = false {
		if !first && ends != nil && time.Now().UnixNano() >= ends.Load() {
			return errBrokenOff
		}
		n := min(len(b), piece)
		if err := conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if _, err := conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// hijacker is a response whose connection, once taken over, is a webSocketConn.
type hijacker struct {
	http.ResponseWriter
	timeout time.Duration
	ends    *atomic.Int64
	conn    *webSocketConn // once taken over
}

// Hijack implements [http.Hijacker].
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if err := buffered.Flush(); err != nil { // the response's head
		conn.Close()
		return nil, nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(writeBuffer) // without it pings wait longer
	}
	h.conn = &webSocketConn{Conn: conn, timeout: h.timeout, ends: h.ends}
	return h.conn, bufio.NewReadWriter(buffered.Reader, bufio.NewWriterSize(h.conn, controlBuffer)), nil
}
