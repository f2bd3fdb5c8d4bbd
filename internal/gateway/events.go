package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/stream"
)

// serveEvents answers GET /v1/events: a stream of events as SSE or as lines of JSON.
func (g *Gateway) serveEvents(w http.ResponseWriter, r *http.Request) {
	v, err := g.enter(r)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	outlives := false // the stream, the request
	defer func() {
		if !outlives {
			g.leave(v)
		}
	}()
	if g.cfg.Compression {
		w.Header().Add("Vary", "Accept-Encoding")
	}
	mediaType, err := negotiate(r)
	if err != nil {
		g.metrics.refused(notAcceptable)
		notAcceptable.with(err.Error()).write(w)
		return
	}
	grant, req, err := g.eventsRequest(r, &v, mediaType)
	if err == nil {
		err = g.keepSession(w, r, grant)
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	f, transport := framesFor(req, mediaType)
	if g.cfg.Compression && acceptsGzip(r) {
		f = gzipped{f}
	}
	if ws := g.takers(r); ws != nil && mediaType == sseType {
		outlives = ws.takeEvents(w, r, v, grant, req, f, transport)
		return
	}
	out := g.newStreamWriter(w, r)
	l := g.newLoop(transport, f, out)
	out.ends = &l.ends
	feed := &feed{frames: f}
	if err := g.subscribe(r.Context(), &l.connection, feed, req); err != nil {
		g.refuse(w, r, err)
		return
	}
	l.admit(grant)
	l.transport.begin()
	stop := context.AfterFunc(g.killed, out.cut)
	defer stop()
	begin := beginBody(f, w.Header())
	out.open(mediaType)
	_, _ = io.WriteString(w, begin) // it leaves with the first write, which has the error
	l.add(feed)
	err = l.run(r.Context())
	l.ended(err, req.Topics)
	if errors.Is(err, errBrokenOff) {
		panic(http.ErrAbortHandler) // a response that ends as it should would pass off half an event as a whole one
	}
}

// ended counts a stream out and logs why it ended.
func (c *connection) ended(err error, topics []string) {
	c.transport.end(reason(err))
	c.g.logEnd(c.transport.name, topics, err)
}

func (g *Gateway) eventsRequest(r *http.Request, v *visit, mediaType string) (*auth.Grant, request, error) {
	grant, err := g.admit(r, v)
	if err != nil {
		return nil, request{}, err
	}
	req, err := g.parseRequest(r, grant, mediaType == sseType)
	if err == nil && len(req.Topics) == 0 {
		err = stream.BadField("topic", "no topic is given")
	}
	return grant, req, err
}

// admit returns what a request may do, and counts it in as its subject's.
func (g *Gateway) admit(r *http.Request, v *visit) (*auth.Grant, error) {
	grant, err := g.access.Admit(r)
	if err == nil {
		err = g.limiter.identify(v, owner(grant.Identity()))
	}
	return grant, err
}

func framesFor(req request, mediaType string) (f frames, transport string) {
	if mediaType == ndjsonType {
		return ndjson{record: req.record}, "ndjson"
	}
	s := sse{record: req.record, named: req.named}
	if req.heartbeatEvent {
		return sseEventHeartbeat{s}, "sse"
	}
	return s, "sse"
}

// subscribe opens the subscription of a feed of c. It gives up when the gateway stops.
func (g *Gateway) subscribe(ctx context.Context, c *connection, f *feed, req request) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.draining, cancel)()
	req.Format = f.frames.format()
	f.driver, req.Waker = c.driver, f
	f.since = time.Now()
	var err error
	if f.sub, err = g.hubs.subscribe(ctx, req.Request); err == nil {
		f.count(req.Topics, c.transport.name, g.metrics)
		return nil
	}
	if g.draining.Err() != nil {
		return errDraining
	}
	switch problemOf(err).Type {
	case problems[stream.BadPosition].Type:
		return inField(req.positionField, err)
	case problems[stream.NotFound].Type:
		return inField(req.topicField, err)
	default:
		return err
	}
}

func (g *Gateway) logEnd(transport string, topics []string, err error) {
	if r := reason(err); r == problems[stream.Internal].name() {
		g.cfg.Log.Error("stream ended", "transport", transport, "topics", topics, "error", err)
	} else if g.cfg.Log.Enabled(context.Background(), slog.LevelDebug) {
		g.cfg.Log.Debug("stream ended", "transport", transport, "topics", topics, "reason", r, "error", err)
	}
}

// streamWriter is the sink of a response that goes on.
type streamWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	killed  context.Context // nothing is written once it is done
	ends    *atomic.Int64   // see writePieces
	http2   bool
}

func (g *Gateway) newStreamWriter(w http.ResponseWriter, r *http.Request) *streamWriter {
	return &streamWriter{w: w, rc: http.NewResponseController(w), timeout: g.cfg.WriteTimeout, killed: g.killed, http2: r.ProtoMajor >= 2}
}

// open sends the headers with the first write. Nothing between us and the client may hold back, change or keep a stream.
func (s *streamWriter) open(mediaType string) {
	h := s.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx
	s.w.WriteHeader(http.StatusOK)
}

// piece is what a client has one timeout for, in bytes: a slow one that takes something isn't cut in a large message.
const piece = 64 << 10

func (s *streamWriter) write(b []byte) error {
	if err := writePieces(s, b, s.timeout, s.ends); err != nil {
		return err
	}
	if err := s.rc.Flush(); err != nil {
		return err
	}
	if s.http2 { // whose streams end at their deadline, written to or not
		return s.rc.SetWriteDeadline(time.Time{})
	}
	return nil
}

// Write is for writePieces, as SetWriteDeadline is.
func (s *streamWriter) Write(b []byte) (int, error) { return s.w.Write(b) }

func (s *streamWriter) SetWriteDeadline(t time.Time) error {
	if err := s.rc.SetWriteDeadline(t); err != nil {
		return err
	}
	return s.killed.Err() // a cut that comes later moves the deadline that was just set
}

// cut makes a write that waits fail, from any goroutine. killed is done by then, so that none begins anew.
func (s *streamWriter) cut() {
	_ = s.rc.SetWriteDeadline(time.Unix(1, 0)) // if the connection is gone already, all the better
}
