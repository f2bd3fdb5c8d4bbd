package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// taken is a connection that was taken over from net/http. It has no goroutine: its writer passes over it. While its
// client takes nothing it is blocked: then one goroutine waits for the client, with what was begun to be written, and the
// writer leaves it alone.
//
// What every pass needs stands together: of many connections it is cold.
type taken struct {
	queued   atomic.Bool // it is among the writer's pending ones
	relieved atomic.Bool // what was begun is written, or failed says why not

	// These are the writer's.
	entered bool // it is in the wheel
	behind  bool // it is among those that have more to come
	blocked bool // until relieved
	ended   bool

	first      feed // of what the request asks for
	descriptor descriptor
	gone       atomic.Pointer[error] // how the client was seen to be gone, if it was
	ending     error                 // why it ends, once it does; the writer's
	socket     *socket               // nil but for WebSocket
	connection

	w      *writer
	watch  watch
	visit  visit
	failed error     // once relieved
	until  time.Time // how long it waits for its close frame's answer; zero: it doesn't yet. The writer's
}

// maxNoise bounds what a client may send which has nothing to say, in bytes.
const maxNoise = 64 << 10

// newTaken returns a connection that isn't adopted yet.
func (ws *writers) newTaken(transport string, f frames) *taken {
	c := &taken{w: ws.pick()}
	c.queued.Store(true) // until it is adopted a wake-up does nothing
	c.init(ws.g, c, transport, f)
	return c
}

func (c *taken) now() time.Time { return c.w.clock }

// prefetch fetches what a pass looks at.
func (c *taken) prefetch() {
	fanout.Prefetch(unsafe.Pointer(c), unsafe.Offsetof(c.oneFeed))
}

func (c *taken) wake() {
	if !c.queued.Swap(true) {
		c.w.enqueue(c)
	}
}

// leave notes that the client is gone, as err says.
func (c *taken) leave(err error) {
	c.gone.CompareAndSwap(nil, &err)
	c.wake()
}

// take makes what is below a connection ours.
func (c *taken) take(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("take over a %T", conn)
	}
	return c.descriptor.own(tcp, c.g.cfg.WriteTimeout)
}

// send implements driver: it writes what the kernel takes at once.
func (c *taken) send(_ context.Context, out *outgoing) (all bool, err error) {
	b := out.bytes()
	n, err := c.w.write(&c.descriptor, b)
	if err != nil || n == len(b) {
		return err == nil, err
	}
	return c.block(out, n), nil
}

// block has what was begun to be written taken to its end by a goroutine. Of a run that is one frame: those behind it
// stay with the hub until then. It reports whether nothing was begun.
func (c *taken) block(out *outgoing, written int) (all bool) {
	rest := out.bytes()[written:]
	if f := out.of; f != nil {
		begun := max(written, 1) // when it takes nothing at all, the first frame is to wait for it
		last, count := f.sub.Unread(*out.run, begun)
		f.topics[0].n = count
		f.pending.Store(true)
		out.run, out.of = nil, nil // which the batch won't be for long
		rest = out.shared[written : begun+len(last)]
		if len(rest) == 0 {
			c.wake()
			return true
		}
	}
	shared := out.shared != nil
	out.shared = nil // so that the hub may let go of it
	c.blocked = true
	c.g.metrics.blocked.Inc()
	c.w.of.helpers.Go(func() {
		c.failed = c.writeRest(rest, shared)
		c.g.metrics.blocked.Dec()
		c.relieved.Store(true)
		c.wake()
	})
	return false
}

// writeRest waits for the client to take the rest of a write. What waits counts against the process's memory: of what is
// shared there is a copy once there is room for it, since the hub's own would keep all of its segment.
func (c *taken) writeRest(rest []byte, shared bool) error {
	n := int64(len(rest))
	if !c.g.reserve(c.g.killed, n) {
		return errOverloaded
	}
	defer c.g.hubs.Release(n)
	if shared {
		rest = bytes.Clone(rest)
	}
	if !c.descriptor.use() {
		return net.ErrClosed
	}
	defer c.descriptor.done()
	conn, err := c.descriptor.waiting()
	if err != nil {
		return err
	}
	defer conn.Close()
	return writePieces(conn, rest, c.g.cfg.WriteTimeout, &c.ends)
}

// tcpKey is where a request's context has the connection that it came on, if that is plain TCP.
type tcpKey struct{}

func withTCP(ctx context.Context, conn net.Conn) context.Context {
	if tcp, ok := conn.(*net.TCPConn); ok {
		return context.WithValue(ctx, tcpKey{}, tcp)
	}
	return ctx
}

// takers returns the writers for a request whose connection can be taken over: HTTP/1 over plain TCP, while Run runs.
func (g *Gateway) takers(r *http.Request) *writers {
	if r.ProtoMajor != 1 {
		return nil
	}
	if _, ok := r.Context().Value(tcpKey{}).(*net.TCPConn); !ok {
		return nil
	}
	return g.writers.Load()
}

// takeEvents serves a stream of events on its request's connection, without net/http: one without chunks, that ends with
// the connection. It reports whether the stream outlives the request.
func (ws *writers) takeEvents(w http.ResponseWriter, r *http.Request, v visit, grant *auth.Grant, req request, f frames, transport string) (outlives bool) {
	g, c := ws.g, ws.newTaken(transport, f)
	c.visit = v
	feed := &c.first
	feed.frames = f
	if err := g.subscribe(r.Context(), &c.connection, feed, req); err != nil {
		g.refuse(w, r, err)
		return false
	}
	c.admit(grant)
	begin := beginBody(f, w.Header())
	c.out.buf = append(appendStreamHead(c.out.own(), r, w.Header(), time.Now()), begin...)
	c.hold(feed)
	c.begin(feed, req.From)
	conn, _, err := http.NewResponseController(w).Hijack() // what the client sent beyond its request is of no interest
	if err == nil {
		err = c.take(conn)
	}
	if err == nil {
		err = c.greet()
	}
	if err == nil {
		err = ws.adopt(c)
	}
	if err != nil {
		c.connection.close()
		if conn != nil {
			conn.Close()
		}
		c.descriptor.close()
		g.cfg.Log.Debug("connection not taken over", "error", err)
		return false
	}
	return true
}

// begin tells the client where a feed stands that the connection holds. One that begins where its topics end has nothing
// pending unless it was woken.
func (c *taken) begin(f *feed, from fanout.From) {
	c.open(f)
	if from.Position != nil || from.At != stream.Latest {
		f.pending.Store(true)
	}
}

// greet writes what a stream begins with. The connection has no writer yet, and room for it: there is nobody to wake, and
// to wait for.
func (c *taken) greet() error {
	b := c.out.bytes()
	n, err := c.descriptor.write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	c.out.reset()
	c.spoke = time.Now()
	return err
}

// streamHead has what every stream's response has. Nothing between us and the client may hold back, change or keep it.
const streamHead = " 200 OK\r\nContent-Type: " + sseType + "\r\nCache-Control: no-store, no-transform\r\n" +
	"X-Accel-Buffering: no\r\nConnection: close\r\nDate: "

// appendStreamHead appends the head of a response that ends with its connection; h is what else is in it.
func appendStreamHead(dst []byte, r *http.Request, h http.Header, now time.Time) []byte {
	if r.ProtoAtLeast(1, 1) {
		dst = append(dst, "HTTP/1.1"...)
	} else {
		dst = append(dst, "HTTP/1.0"...)
	}
	dst = append(dst, streamHead...)
	dst = now.UTC().AppendFormat(dst, http.TimeFormat)
	return appendHead(dst, "\r\n", h)
}

// appendHead appends the rest of a response's head.
func appendHead(dst []byte, line string, h http.Header) []byte {
	b := bytes.NewBuffer(append(dst, line...))
	_ = h.Write(b) // to memory
	return append(b.Bytes(), "\r\n"...)
}
