package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"
)

// WebSocket is a stream over a WebSocket, subscribed by its URL.
type WebSocket struct {
	conn *websocket.Conn
	buf  []byte
}

// OpenWebSocket opens a WebSocket; ctx bounds the opening only. A refused one is a *StatusError.
func OpenWebSocket(ctx context.Context, d Dial) (*WebSocket, error) {
	as := "from"
	if d.InQuery {
		as = "lastEventId"
	}
	u, err := d.url("/v1/ws", as)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DialContext: d.connect, DisableKeepAlives: true}
	conn, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: transport},
		HTTPHeader:   d.Header,
		Subprotocols: []string{"streamgw.v1"},
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
			return nil, &StatusError{Status: resp.StatusCode, Body: string(body), Header: resp.Header}
		}
		return nil, err
	}
	conn.SetReadLimit(16 << 20)
	return &WebSocket{conn: conn}, nil
}

// Close ends the connection without a handshake.
func (w *WebSocket) Close() { _ = w.conn.CloseNow() }

// Write sends a frame.
func (w *WebSocket) Write(ctx context.Context, frame string) error {
	return w.conn.Write(ctx, websocket.MessageText, []byte(frame))
}

// Next waits for the next frame. An error frame is an error.
func (w *WebSocket) Next() (Event, error) {
	kind, r, err := w.conn.Reader(context.Background()) // Close ends it
	if err != nil {
		return Event{}, err
	}
	if kind != websocket.MessageText {
		return Event{}, fmt.Errorf("a frame that isn't text")
	}
	if w.buf, err = readAll(w.buf[:0], r); err != nil {
		return Event{}, err
	}
	return parseFrame(w.buf)
}

func readAll(b []byte, r io.Reader) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// parseFrame reads a frame of the gateway's. Events come by the million: their two fields are cut out where they are
// where the gateway writes them; any other shape is read as JSON.
func parseFrame(frame []byte) (Event, error) {
	if rest, ok := bytes.CutPrefix(frame, []byte(`{"type":"event",`)); ok {
		const event, position, end = `,"event":`, `,"position":"`, `"}`
		i, j := bytes.Index(rest, []byte(event)), bytes.LastIndex(rest, []byte(position))
		if 0 <= i && i < j && bytes.HasSuffix(rest, []byte(end)) {
			token := rest[j+len(position) : len(rest)-len(end)]
			if bytes.IndexByte(token, '"') < 0 {
				return Event{Name: "event", Position: token, Data: rest[i+len(event) : j]}, nil
			}
		}
	}
	var f struct {
		Type     string
		Position string
		Event    json.RawMessage
		Title    string
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		return Event{}, fmt.Errorf("frame %.200q: %w", frame, err)
	}
	e := Event{Name: f.Type, Position: []byte(f.Position)}
	switch f.Type {
	case "event":
		e.Data = f.Event
	case "gap":
		e.Kind, e.Data = Gap, frame
	case "error":
		return e, &FrameError{Frame: string(frame)}
	default:
		e.Kind, e.Data = Control, frame
		if f.Position != "" {
			e.Kind = Position
		}
	}
	return e, nil
}

// FrameError is an error frame.
type FrameError struct{ Frame string }

func (e *FrameError) Error() string { return "error frame: " + e.Frame }

// Transport opens streams.
type Transport string

// The transports that scenarios run over.
const (
	OverSSE       Transport = "sse"
	OverWebSocket Transport = "websocket"
)

// Transports are all of them.
func Transports() []Transport { return []Transport{OverSSE, OverWebSocket} }

// Open opens a stream over the transport.
func (tr Transport) Open(ctx context.Context, d Dial) (Stream, error) {
	if tr == OverWebSocket {
		w, err := OpenWebSocket(ctx, d)
		if err != nil {
			return nil, err
		}
		return w, nil
	}
	s, err := OpenSSE(ctx, d)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Topics returns a query for topics, and for further parameters, each as name=value.
func Topics(topics []string, parameters ...string) url.Values {
	q := url.Values{"topic": topics}
	for _, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		q.Add(name, value)
	}
	return q
}
