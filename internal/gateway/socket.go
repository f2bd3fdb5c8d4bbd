package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/stream"
)

// socket is what the WebSocket library has below a taken connection, while the client speaks. It reads when something
// came, and its control frames leave between whole frames of the writer's, which is the only one that writes.
type socket struct {
	c       *taken
	session *webSocketSession

	reading atomic.Bool // a goroutine reads
	heard   atomic.Bool // something came from the client since this was set to false

	// What follows is the reading goroutine's.
	early   []byte // what came along with the handshake
	in      inbound
	patient bool     // reads wait, also between two frames
	waiting *os.File // what they wait on, once one has

	mu     sync.Mutex // guards what follows
	queued []byte     // control frames for the next write
	closed bool       // a close frame was put down, which nothing may follow (RFC 6455 section 5.5.1)
	cause  error      // why the library did that
}

// errNothing says that a client has sent nothing more, and that no frame of its is begun.
var errNothing = errors.New("nothing to read")

// closeTimeout is how long a client may take to answer a close frame.
const closeTimeout = 5 * time.Second

// Read never waits between two frames of the client: the library's error at such a place leaves it as it was.
func (s *socket) Read(b []byte) (n int, err error) {
	if n = copy(b, s.early); n > 0 {
		s.early = s.early[n:]
	} else if n, err = s.c.descriptor.read(b); errors.Is(err, errNothing) && (s.patient || !s.in.idle()) {
		n, err = s.wait(b)
	}
	if n > 0 {
		s.heard.Store(true)
		s.in.follow(b[:n])
	}
	if s.in.left > readLimit {
		return 0, s.refuse(b)
	}
	return n, err
}

// refuse closes a connection whose client begins a frame that is too large, of which the library would wait for all that it
// may take. What still comes is dropped until the connection ends: bytes that nobody reads would have the client's system
// throw the close frame away.
func (s *socket) refuse(b []byte) error {
	s.answer(appendClose(nil, websocket.StatusMessageTooBig, ""))
	for {
		if _, err := s.wait(b); err != nil {
			return errFrameTooLarge
		}
	}
}

var errFrameTooLarge = stream.Errorf(stream.TooLarge, "a frame has more than %d bytes", readLimit)

// wait reads once there is something.
func (s *socket) wait(b []byte) (n int, err error) {
	if s.waiting == nil {
		if s.waiting, err = s.c.descriptor.waiting(); err != nil {
			return 0, err
		}
	}
	return s.waiting.Read(b)
}

// Write takes one control frame of the library's.
func (s *socket) Write(frame []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return afterClose(frame)
	}
	if frame[0] == final|opClose {
		s.closed, s.cause = true, errClientGone
		if len(frame) >= 4 && websocket.StatusCode(binary.BigEndian.Uint16(frame[2:])) == websocket.StatusMessageTooBig {
			s.cause = errFrameTooLarge
		}
	} else if len(s.queued)+len(frame) > maxQueued {
		return len(frame), nil
	}
	s.queued = append(s.queued, frame...)
	s.c.wake()
	return len(frame), nil
}

// answer takes one that is an answer to the client's.
func (s *socket) answer(frame []byte) { _, _ = s.Write(frame) } // it never fails

// Close lets go of the connection once what is queued is written.
func (s *socket) Close() error {
	s.c.leave(errClientGone)
	return nil
}

// putDown appends what the library has queued, and returns why it has ended the connection, if it has.
func (s *socket) putDown(out *outgoing) (cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queued) > 0 {
		out.buf = append(out.own(), s.queued...)
		s.queued = nil
	}
	return s.cause
}

// putClose appends a close frame, unless there was one. It reports whether err is one that the client is told; then its
// answer is waited for.
func (s *socket) putClose(out *outgoing, err error) (told bool) {
	code, text, told := closeFor(err)
	if !told {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		out.buf = appendClose(out.own(), code, text)
	}
	return true
}

// hear takes what came while nobody was reading. Answers to pings, which is all that most clients ever send, it only
// notes; for anything else it starts who reads. It reports whether
// there is nothing to wait for meanwhile.
func (s *socket) hear(b []byte, err error) (busy bool) {
	switch {
	case errors.Is(err, errNothing):
		return false
	case err != nil:
		s.c.leave(err) // the kernel tells it once
		return true
	}
	s.heard.Store(true)
	if b = skipPongs(b); len(b) == 0 {
		return false
	}
	s.early = bytes.Clone(b)
	s.c.w.of.helpers.Go(s.read)
	return true
}

// skipPongs returns b without the whole pongs that it begins with.
func skipPongs(b []byte) []byte {
	const pong, masked, mostOfControl = final | opPong, 0x80, 125
	for len(b) >= 2 && b[0] == pong && b[1] >= masked && b[1] <= masked|mostOfControl {
		n := 2 + 4 + int(b[1]&^masked)
		if len(b) < n {
			break
		}
		b = b[n:]
	}
	return b
}

// read hands the client's messages to the session until there are no more.
func (s *socket) read() {
	err := s.converse()
	if errors.Is(err, errNothing) {
		s.reading.Store(false)
		err = s.c.w.of.watch.again(s.c)
	}
	if err != nil {
		s.c.leave(err)
	}
}

// converse does it with a connection of the library's that is its own: one that were kept would weigh more than all else
// of a WebSocket that is idle. Its error is errNothing, or the end of the connection.
func (s *socket) converse() (err error) {
	if !s.c.descriptor.use() {
		return net.ErrClosed
	}
	defer s.c.descriptor.done()
	defer func() {
		if r := recover(); r != nil {
			err = panicked(r)
		}
	}()
	ws, err := s.session.accept(&replay{s: s, header: make(http.Header)}, s.handshake(), s.answer)
	if err != nil {
		return err
	}
	runtime.SetFinalizer(ws, nil) // which would close the socket
	defer func() {
		if s.waiting != nil {
			s.waiting.Close()
			s.waiting = nil
		}
	}()
	for {
		kind, text, err := ws.Read(context.Background())
		switch {
		case err == nil:
			_ = s.session.message(kind, text) // one that has ended takes none; its close frame may be answered
			continue
		case errors.Is(err, errNothing):
			return err
		case errors.Is(err, websocket.ErrMessageTooBig):
			s.patient = true
			_ = ws.Close(websocket.StatusMessageTooBig, "") // it was said; the answer is waited for
		}
		_ = ws.CloseNow() // it ends either way
		return err
	}
}

// handshake returns one as the client's was, as far as it matters to who reads.
func (s *socket) handshake() *http.Request {
	h := http.Header{
		"Connection":            {"Upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}
	if s.session.deflate > 0 {
		h.Set("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")
	}
	return &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h}
}

// replay is the response to a handshake that was answered before: it leads nowhere.
type replay struct {
	s      *socket
	header http.Header
}

func (r *replay) Header() http.Header         { return r.header }
func (r *replay) WriteHeader(int)             {}
func (r *replay) Write(b []byte) (int, error) { return len(b), nil }

// Hijack implements [http.Hijacker].
func (r *replay) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn := &below{socket: r.s}
	return conn, bufio.NewReadWriter(bufio.NewReaderSize(conn, headerBuffer), bufio.NewWriterSize(conn, controlBuffer)), nil
}

// below is a socket as the library takes it, which has no use for the rest of a [net.Conn].
type below struct {
	net.Conn
	socket *socket
}

func (b *below) Read(p []byte) (int, error)  { return b.socket.Read(p) }
func (b *below) Write(p []byte) (int, error) { return b.socket.Write(p) }
func (b *below) Close() error                { return b.socket.Close() }

// inbound follows what a client sends (RFC 6455 section 5.2), as far as to know when no message is begun.
type inbound struct {
	header [maxClientHeader]byte
	have   int
	left   uint64 // bytes of the payload that are to come
	open   bool   // a message has more frames to come
}

const maxClientHeader = 14 // of a masked frame of 64 KiB and more

func (in *inbound) idle() bool { return in.have == 0 && in.left == 0 && !in.open }

func (in *inbound) follow(b []byte) {
	for len(b) > 0 {
		if in.left > 0 {
			n := min(in.left, uint64(len(b)))
			in.left -= n
			b = b[n:]
			continue
		}
		in.header[in.have] = b[0]
		in.have++
		b = b[1:]
		in.begin()
	}
}

// begin begins a frame once its header is there.
func (in *inbound) begin() {
	if in.have < 2 {
		return
	}
	const masked, lengthBits, opBits, opControl = 0x80, 0x7f, 0x0f, 0x08
	need, length := 2, uint64(in.header[1]&lengthBits)
	switch length {
	case 126:
		need, length = 4, uint64(binary.BigEndian.Uint16(in.header[2:]))
	case 127:
		need, length = 10, binary.BigEndian.Uint64(in.header[2:])
	}
	if in.header[1]&masked != 0 {
		need += 4
	}
	if in.have < need {
		return
	}
	if in.header[0]&opBits < opControl {
		in.open = in.header[0]&final == 0
	}
	in.have, in.left = 0, length
}

// takeWebSocket serves a WebSocket on its request's connection, without a goroutine. It reports whether it outlives the
// request.
func (ws *writers) takeWebSocket(w http.ResponseWriter, r *http.Request, v visit, grant *auth.Grant, req request) (outlives bool) {
	g, c := ws.g, ws.newTaken("websocket", webSocketFrames{heartbeatEvent: req.heartbeatEvent})
	c.visit = v
	s := &webSocketSession{g: g, grant: grant.Kept(), visit: &c.visit, c: &c.connection, deflate: g.deflateFor(r)}
	var own *feed
	if len(req.Topics) > 0 {
		own = &c.first
		own.frames = webSocketFrames{record: req.record, deflate: s.deflate}
		if err := g.subscribe(r.Context(), &c.connection, own, req); err != nil {
			g.refuse(w, r, err)
			return false
		}
		s.remember(own, req)
		c.hold(own)
	}
	c.admit(grant)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	c.socket = &socket{c: c, session: s}
	c.pings = &pings{heard: &c.socket.heard}
	answered, err := s.accept(&taking{ResponseWriter: w, c: c}, r, c.socket.answer)
	if err == nil {
		runtime.SetFinalizer(answered, nil) // it isn't used
		if own != nil {
			c.begin(own, req.From)
		}
		early := len(c.socket.early) > 0 // nothing more may come that is seen
		c.socket.reading.Store(early)
		if err = c.greet(); err == nil {
			err = ws.adopt(c)
		}
		if err == nil {
			if early {
				ws.helpers.Go(c.socket.read)
			}
			return true
		}
	}
	s.cancel(nil)
	c.connection.close()
	c.descriptor.close()
	g.cfg.Log.Debug("upgrade refused", "error", err)
	return false
}

// taking is a response whose connection becomes the one below c's socket. Its head leaves with the first frame.
type taking struct {
	http.ResponseWriter
	c *taken
}

func (t *taking) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols {
		t.ResponseWriter.WriteHeader(status)
	}
}

// Hijack implements [http.Hijacker].
func (t *taking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, s := t.c, t.c.socket
	head := appendHead(c.out.own(), "HTTP/1.1 101 Switching Protocols\r\n", t.Header())
	conn, buffered, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = tcp.SetWriteBuffer(writeBuffer)
	}
	if err == nil {
		err = c.take(conn)
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // as many as there are
	s.early = append(s.early, early...)
	c.out.buf = head
	return (&replay{s: s}).Hijack()
}
