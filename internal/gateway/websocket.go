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
	"time"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/stream"
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
	if err := g.enter(); err != nil {
		g.refuse(w, r, err)
		return
	}
	defer g.leave()
	if !checkHandshake(w, r) {
		return
	}
	if !g.sameOrListed(r) {
		g.refuse(w, r, &stream.Error{Kind: stream.Forbidden, Field: "Origin", Detail: "pages of this origin may not open a WebSocket"})
		return
	}
	grant, err := g.access.Grant(r)
	var req request
	if err == nil {
		req, err = g.parseRequest(r, grant, false)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	s := &webSocketSession{g: g, grant: grant, cancel: cancel}
	s.c = g.newConnection("websocket", webSocketFrames{heartbeatEvent: req.heartbeatEvent}, nil)
	s.c.commands = make(chan func() error)
	var own *feed
	if err == nil && len(req.Topics) > 0 {
		own = &feed{frames: webSocketFrames{record: req.record}}
		err = g.subscribe(ctx, s.c, own, req)
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	s.serve(ctx, w, r, own)
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
	case r.ProtoMajor != 1 || !has("Connection", "upgrade") || !has("Upgrade", "websocket"):
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

// webSocketSession is a WebSocket connection. The request's goroutine runs the connection's loop; another one reads
// what the client sends and hands it to the loop as commands, so that only the loop touches the feeds.
type webSocketSession struct {
	g      *Gateway
	grant  auth.Grant
	c      *connection
	conn   *webSocketConn
	ws     *websocket.Conn
	cancel context.CancelCauseFunc // ends the loop

	pinged  time.Time // the loop's: when the first ping was sent that nothing came after; zero: there is none
	strikes int       // the reader's: frames that made no sense
}

var errNoAnswer = fmt.Errorf("no ping was answered: %w", os.ErrDeadlineExceeded)

// serve upgrades the connection and runs it. own is the query's subscription, or nil.
func (s *webSocketSession) serve(ctx context.Context, w http.ResponseWriter, r *http.Request, own *feed) {
	h := &hijacker{ResponseWriter: w, timeout: s.g.cfg.WriteTimeout}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // the origin was checked
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		if own != nil {
			own.sub.Close()
		}
		s.g.cfg.Log.Debug("upgrade refused", "error", err)
		return
	}
	ws.SetReadLimit(readLimit)
	s.ws, s.conn, s.c.sink, s.c.ping = ws, h.conn, h.conn, s.ping
	defer context.AfterFunc(s.g.killed, func() { h.conn.Close() })()

	closed := s.g.metrics.open("websocket")
	if own != nil {
		s.c.add(own)
	}
	var reader sync.WaitGroup
	reader.Go(func() { s.read(ctx) })
	err = s.c.run(ctx)
	if cause := context.Cause(ctx); errors.Is(err, errClientGone) && cause != nil {
		err = cause
	}
	s.close(err)
	s.cancel(nil) // a subscribe that the reader waits for
	reader.Wait()
	closed(reason(err))
	s.g.logEnd("websocket", nil, err)
}

// close ends the connection with the code for err, in a handshake if the client takes part in it.
func (s *webSocketSession) close(err error) {
	e, ok := errors.AsType[*stream.Error](err)
	switch {
	case errors.Is(err, errDraining):
		_ = s.ws.Close(websocket.StatusServiceRestart, "restarting; reconnect with jitter")
	case ok:
		_ = s.ws.Close(problemOf(e).close, problemOf(e).name())
	default:
		_ = s.ws.CloseNow()
	}
}

// ping sends a ping, and ends the connection of a client that answered none for long. It is judged by the pings that it
// got: while a large write goes to a slow client there are none, and that it takes something is the write's to judge.
func (s *webSocketSession) ping() error {
	if s.conn.heard.Swap(false) {
		s.pinged = time.Time{}
	}
	if !s.pinged.IsZero() && time.Since(s.pinged) >= max(s.g.cfg.WriteTimeout, 2*s.g.cfg.Heartbeat) {
		return errNoAnswer
	}
	if err := s.conn.write([]byte{final | opPing, 0}); err != nil {
		return err
	}
	if s.pinged.IsZero() {
		s.pinged = time.Now()
	}
	return nil
}
