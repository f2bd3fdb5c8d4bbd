package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// SSE is a stream of server-sent events, read as the HTML standard says ("Interpreting an event stream"). It is lean:
// hundreds of them share the cores with what they test.
type SSE struct {
	conn net.Conn
	body *bufio.Reader

	line  []byte   // a line longer than body's buffer
	lines [][]byte // what is left of a line that carriage returns divide
	data  []byte
	id    []byte
	name  []byte
	ended bool // id and data belong to an event that was returned
	ids   bool // the block has an id field

	// Comments is the number of comments received: heartbeats.
	Comments int
}

// Dial is how a client opens a stream.
type Dial struct {
	URL      string     // of the gateway
	Query    url.Values // of the stream: topic, key, from, …
	Position string     // where to resume; "" as the query says
	InQuery  bool       // send it as lastEventId= instead of the header (SSE), as lastEventId= instead of from= (WebSocket)
	Header   http.Header
	Cut      *Cut
	Rand     *rand.Rand // needed with Cut
}

func (d Dial) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return newCutConn(conn, d.Cut, d.Rand), nil
}

func (d Dial) url(path string, positionAs string) (*url.URL, error) {
	u, err := url.Parse(d.URL + path)
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	for name, values := range d.Query {
		q[name] = values
	}
	if positionAs != "" && d.Position != "" {
		q.Set(positionAs, d.Position)
	}
	u.RawQuery = q.Encode()
	return u, nil
}

// OpenSSE opens a stream of server-sent events; ctx bounds the opening only. An answer that isn't one is a *StatusError.
func OpenSSE(ctx context.Context, d Dial) (*SSE, error) {
	as := ""
	if d.InQuery {
		as = "lastEventId"
	}
	u, err := d.url("/v1/events", as)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = d.Header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Accept", "text/event-stream")
	if !d.InQuery && d.Position != "" {
		req.Header.Set("Last-Event-ID", d.Position)
	}
	conn, err := d.connect(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	s, err := handshake(conn, req)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func handshake(conn net.Conn, req *http.Request) (*SSE, error) {
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return nil, &StatusError{Status: resp.StatusCode, Body: string(body), Header: resp.Header}
	}
	return &SSE{conn: conn, body: bufio.NewReader(resp.Body)}, nil
}

// Close ends the connection.
func (s *SSE) Close() { s.conn.Close() }

// Next waits for the end of the next block that isn't only comments.
func (s *SSE) Next() (Event, error) {
	for {
		line, err := s.readLine()
		if err != nil {
			return Event{}, err
		}
		if s.ended {
			s.ended, s.ids = false, false
			s.data, s.id, s.name = s.data[:0], s.id[:0], s.name[:0]
		}
		if len(line) == 0 {
			if len(s.data) == 0 && !s.ids {
				s.name = s.name[:0]
				continue // a comment's block, or retry:
			}
			s.ended = true
			return s.event(), nil
		}
		if err := s.field(line); err != nil {
			return Event{}, err
		}
	}
}

func (s *SSE) field(line []byte) error {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		s.data = append(append(s.data, value...), '\n')
	case "id":
		s.id, s.ids = append(s.id[:0], value...), true
	case "event":
		s.name = append(s.name[:0], value...)
	case "":
		s.Comments++
	case "retry":
	default:
		return fmt.Errorf("a field that server-sent events don't have: %.200q", line)
	}
	return nil
}

func (s *SSE) event() Event {
	e := Event{Position: s.id}
	if len(s.name) > 0 {
		e.Name = string(s.name)
	}
	if len(s.data) == 0 {
		e.Kind = Position
		return e
	}
	e.Data = s.data[:len(s.data)-1]
	switch {
	case e.Name == "streamgw.gap":
		e.Kind = Gap
	case e.Name != "streamgw.delete" && strings.HasPrefix(e.Name, "streamgw."):
		e.Kind = Control
	}
	return e
}

// readLine returns the next line without its end, which is a line feed, a carriage return or both.
func (s *SSE) readLine() ([]byte, error) {
	if len(s.lines) > 0 {
		line := s.lines[0]
		s.lines = s.lines[1:]
		return line, nil
	}
	line, err := s.body.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		s.line = append(s.line[:0], line...)
		for errors.Is(err, bufio.ErrBufferFull) {
			line, err = s.body.ReadSlice('\n')
			s.line = append(s.line, line...)
		}
		line = s.line
	}
	if err != nil {
		return nil, err // what came of the line doesn't count
	}
	line = line[:len(line)-1]
	if bytes.IndexByte(line, '\r') < 0 {
		return line, nil
	}
	s.lines = bytes.Split(bytes.TrimSuffix(line, []byte("\r")), []byte("\r"))
	line, s.lines = s.lines[0], s.lines[1:]
	return line, nil
}
