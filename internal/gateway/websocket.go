package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/stream"
	"golang.org/x/time/rate"
)

const (
	subprotocol = "streamgw.v1"

	// readLimit bounds a client's frame: a long position has to fit.
	readLimit = 128 << 10

	// maxStrikes is how many frames that make no sense a client may send; one more closes it.
	maxStrikes = 10
)

// serveWebSocket answers GET /v1/ws. What is wrong with the query is said before the upgrade, in plain HTTP.
func (g *Gateway) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	v, err := g.enter(r)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	outlives := false // the WebSocket, the request
	defer func() {
		if !outlives {
			g.leave(v)
		}
	}()
	if !checkHandshake(w, r) {
		return
	}
	if !g.sameOrListed(r) {
		g.refuse(w, r, &stream.Error{Kind: stream.Forbidden, Field: "Origin", Detail: "pages of this origin may not open a WebSocket"})
		return
	}
	grant, req, err := g.webSocketRequest(r, &v)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	if ws := g.takers(r); ws != nil {
		outlives = ws.takeWebSocket(w, r, v, grant, req)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	l := g.newLoop("websocket", webSocketFrames{heartbeatEvent: req.heartbeatEvent}, nil)
	s := &webSocketSession{g: g, grant: grant.Kept(), c: &l.connection, loop: l, visit: &v, ctx: ctx, cancel: cancel, deflate: g.deflateFor(r)}
	var own *feed
	if len(req.Topics) > 0 {
		own = &feed{frames: webSocketFrames{record: req.record, deflate: s.deflate}}
		if err := g.subscribe(ctx, s.c, own, req); err != nil {
			g.refuse(w, r, err)
			return
		}
		s.remember(own, req)
	}
	s.c.admit(grant)
	s.serve(w, r, own)
}

// webSocketRequest returns what a handshake may do and asks for. One without a token asks for nothing: it may bring one in
// its first frame.
func (g *Gateway) webSocketRequest(r *http.Request, v *visit) (*auth.Grant, request, error) {
	grant, err := g.admit(r, v)
	if errors.Is(err, auth.ErrNoToken) && !r.URL.Query().Has("topic") {
		grant, err = nil, nil
	}
	if err != nil {
		return nil, request{}, err
	}
	req, err := g.parseRequest(r, grant, false)
	return grant, req, err
}

// checkHandshake says in problem details what the library would say in plain text.
func checkHandshake(w http.ResponseWriter, r *http.Request) bool {
	has := func(header, token string) bool {
		for _, v := range r.Header.Values(header) {
			for t := range strings.SplitSeq(v, ",") {
				if strings.EqualFold(strings.TrimSpace(t), token) {
					return true
				}
			}
		}
		return false
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	switch {
	case r.ProtoMajor != 1 || r.ProtoMinor == 0 || !has("Connection", "upgrade") || !has("Upgrade", "websocket"):
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		needsUpgrade.with("send a WebSocket handshake (RFC 6455) over HTTP/1.1").write(w)
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		w.Header().Set("Sec-WebSocket-Version", "13")
		needsUpgrade.with("only version 13 of WebSocket is spoken").write(w)
	case len(keys) != 1 || !validKey(keys[0]):
		problemOf(stream.BadField("Sec-WebSocket-Key", "isn't 16 bytes in base64")).write(w)
	default:
		return true
	}
	return false
}

func validKey(key string) bool {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key))
	return err == nil && len(b) == 16
}

// webSocketSession is what a WebSocket's client says. Whoever reads it hands it to the connection as commands, so that only
// the connection's driver touches the feeds.
type webSocketSession struct {
	g      *Gateway
	grant  *auth.Grant // nil until a token has come; the reader's
	visit  *visit
	c      *connection
	loop   *loop // nil when a writer drives the connection
	ws     *websocket.Conn
	ctx    context.Context // done when the connection takes no more commands
	cancel context.CancelCauseFunc

	deflate int // that of the feeds' frames

	strikes int           // the reader's: frames that made no sense
	budget  *rate.Limiter // the reader's: of frames that cost something; nil: there was none yet
}

// remember has a feed, which the connection hasn't yet, keep what was asked for, if the grant may change.
func (s *webSocketSession) remember(f *feed, req request) {
	if s.grant.Identity() != nil {
		f.remember(req)
	}
}

// pings judges whether a client lives by the pings that it got: while a large write goes to a slow client there are none,
// and that it takes something is the write's to judge.
type pings struct {
	heard  *atomic.Bool // something came from the client since this was set to false
	sent   bool         // one has been put down and isn't written yet
	pinged time.Time    // when the first one was written that nothing came after; zero: there is none
}

// check returns an error when the client has answered none for long.
func (p *pings) check(now time.Time, timeout time.Duration) error {
	if p.heard.Swap(false) {
		p.pinged = time.Time{}
	}
	if !p.pinged.IsZero() && now.Sub(p.pinged) >= timeout {
		return errNoAnswer
	}
	return nil
}

func (p *pings) written(now time.Time) {
	if p.sent && p.pinged.IsZero() {
		p.pinged = now
	}
	p.sent = false
}

var errNoAnswer = fmt.Errorf("no ping was answered: %w", os.ErrDeadlineExceeded)

// accept upgrades a connection whose handshake and origin were checked. Pings are answered with control, since the library
// takes one that crosses its close frame for an error, and then waits for no answer.
func (s *webSocketSession) accept(w http.ResponseWriter, r *http.Request, control func(frame []byte)) (*websocket.Conn, error) {
	compression := websocket.CompressionDisabled
	if s.deflate > 0 {
		compression = websocket.CompressionNoContextTakeover
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // the origin was checked
		CompressionMode:    compression,
		OnPingReceived: func(_ context.Context, payload []byte) bool {
			control(append([]byte{final | opPong, byte(len(payload))}, payload...))
			return false
		},
	})
	if err == nil {
		ws.SetReadLimit(readLimit) // of what a compressed frame has too
	}
	return ws, err
}

// serve upgrades the connection and runs it by its loop, while another goroutine reads. own is the query's subscription, or nil.
func (s *webSocketSession) serve(w http.ResponseWriter, r *http.Request, own *feed) {
	h := &hijacker{ResponseWriter: w, timeout: s.g.cfg.WriteTimeout, ends: &s.c.ends}
	ws, err := s.accept(h, r, func(frame []byte) { _, _ = h.conn.Write(frame) }) // if that fails, so does all else
	if err != nil {
		if own != nil {
			own.sub.Close()
		}
		s.c.close()
		s.g.cfg.Log.Debug("upgrade refused", "error", err)
		return
	}
	s.ws, s.loop.sink, s.c.pings = ws, h.conn, &pings{heard: &h.conn.heard}
	defer context.AfterFunc(s.g.killed, func() { h.conn.Close() })()

	s.c.transport.begin()
	if own != nil {
		s.c.add(own)
	}
	var reader sync.WaitGroup
	reader.Go(s.read)
	err = s.loop.run(s.ctx)
	if cause := context.Cause(s.ctx); errors.Is(err, errClientGone) && cause != nil {
		err = cause
	}
	s.close(err)
	s.cancel(nil) // a subscribe that the reader waits for
	reader.Wait()
	s.c.ended(err, nil)
}

// close ends the connection with the code for err, in a handshake if the client takes part in it.
func (s *webSocketSession) close(err error) {
	if code, text, told := closeFor(err); told {
		_ = s.ws.Close(code, text)
	} else {
		_ = s.ws.CloseNow()
	}
}

// closeFor returns what a client is told of a connection's end, if it is.
func closeFor(err error) (code websocket.StatusCode, text string, told bool) {
	if errors.Is(err, errDraining) {
		return websocket.StatusServiceRestart, "restarting; reconnect with jitter", true
	}
	e, told := errors.AsType[*stream.Error](err)
	if !told {
		return 0, "", false
	}
	p := problemOf(e)
	return p.close, p.name(), true
}
