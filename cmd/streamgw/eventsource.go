package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// eventSource is a client of Server-Sent Events that comes back by itself and goes on where it was.
// https://html.spec.whatwg.org/multipage/server-sent-events.html
type eventSource struct {
	url     string
	lastID  string                 // where to go on; "" at first
	token   func() (string, error) // what to come with; nil: nothing
	onEvent func(event) error      // its error ends run, which returns it
	idle    func(id string)        // called when all that came together was given to onEvent
	notice  func(text string)      // told of what goes wrong and will be tried again
	client  *http.Client           // newStreamClient's
	retry   time.Duration          // the least wait before coming back; the server may set another
	silence time.Duration          // after so long without a byte the connection counts as dead
}

// event is one event as it was dispatched.
type event struct {
	name string // "" for one without a name
	data []byte // good until the next event
	id   string // the last id by then
}

const (
	leastRetry  = 100 * time.Millisecond
	firstRetry  = 2 * time.Second
	longestWait = 30 * time.Second
	longSilence = time.Minute // the gateway sends a heartbeat every 15 s
	maxEvent    = 64 << 20    // bytes of one event; Kafka's largest records are far smaller
)

func newStreamClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		DisableCompression:    true, // it would hold events back
		ForceAttemptHTTP2:     true,
	}}
}

// refusal is an answer that coming back won't change.
type refusal struct {
	status int
	detail string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the gateway refuses (%d): %s", r.status, r.detail)
}

// run reads events until ctx ends, onEvent has enough or the gateway refuses for good.
func (s *eventSource) run(ctx context.Context) error {
	failures := 0
	for {
		opened, err := s.connect(ctx)
		if opened {
			failures = 0
		}
		if stop, ok := errors.AsType[*stopError](err); ok {
			return stop.reason
		}
		if ctx.Err() != nil {
			return nil
		}
		wait := s.retry
		if err != nil {
			wait = s.backOff(failures, err)
			s.notice(fmt.Sprintf("%v; again in %v", err, wait.Round(100*time.Millisecond)))
			failures++
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// stopError ends run, which returns its reason.
type stopError struct{ reason error }

func (e *stopError) Error() string { return e.reason.Error() }

// laterError is a refusal that passes.
type laterError struct {
	error
	after time.Duration // what the server asked for; 0: nothing
}

// bearer returns the token to come with, or "".
func (s *eventSource) bearer() (string, error) {
	if s.token == nil {
		return "", nil
	}
	return s.token()
}

// backOff returns how long to wait after failures in a row: twice as long each time, with jitter, so that many clients
// don't come back in one moment.
func (s *eventSource) backOff(failures int, err error) time.Duration {
	wait := min(longestWait, s.retry<<min(failures, 10))
	if later, ok := errors.AsType[*laterError](err); ok && later.after > 0 {
		wait = min(longestWait, later.after)
	}
	return wait/2 + rand.N(wait/2+1)
}

// connect reads one connection until it ends. opened says that a stream was begun.
func (s *eventSource) connect(ctx context.Context) (opened bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return false, &stopError{err}
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Cache-Control", "no-store")
	token, err := s.bearer()
	if err != nil {
		return false, &stopError{err}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if s.lastID != "" {
		req.Header.Set("Last-Event-ID", s.lastID)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if err := check(resp); err != nil {
		return false, err
	}
	watchdog := time.AfterFunc(s.silence, cancel)
	defer watchdog.Stop()
	return true, s.read(&watched{resp.Body, func() { watchdog.Reset(s.silence) }})
}

// check returns nil for a stream, a stopError for a refusal that stays and a laterError for one that passes.
func check(resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusNoContent:
		return &stopError{&refusal{resp.StatusCode, "there is nothing to read any more"}}
	case resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream"):
		return nil
	case resp.StatusCode == http.StatusOK:
		return &stopError{fmt.Errorf("this isn't a stream of events but %q: is the URL that of a gateway?", resp.Header.Get("Content-Type"))}
	}
	said := &refusal{resp.StatusCode, problemText(resp)}
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &laterError{said, time.Duration(seconds) * time.Second}
	}
	return &stopError{said}
}

// problemText returns what an answer says is wrong: problem details (RFC 9457), else its text.
func problemText(resp *http.Response) string {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var problem struct{ Title, Detail, Field string }
	if json.Unmarshal(body, &problem) != nil || problem.Title == "" && problem.Detail == "" {
		return printable(strings.TrimSpace(resp.Status + " " + string(body[:min(len(body), 200)])))
	}
	said := problem.Detail
	if said == "" {
		said = problem.Title
	}
	if problem.Field != "" && !strings.HasPrefix(said, problem.Field) {
		said = problem.Field + ": " + said
	}
	return printable(said)
}

// watched is a reader that tells of each read that brought something.
type watched struct {
	io.Reader
	alive func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.alive()
	}
	return n, err
}

// read gives the events of a stream to onEvent until it ends. An event that was cut short isn't given, nor is its id taken.
func (s *eventSource) read(body io.Reader) error {
	lines := lineReader{in: bufio.NewReaderSize(body, 64<<10)}
	var (
		name string
		data []byte
		id   = s.lastID
		any  bool // a data field was seen
	)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
			return nil // a cut is nothing special: what is missing comes again
		}
		if err != nil {
			return err
		}
		if len(line) > 0 {
			field, v := splitField(line)
			switch field {
			case "event":
				name = string(v)
			case "data":
				data, any = append(append(data, v...), '\n'), true
				if len(data) > maxEvent {
					return fmt.Errorf("an event is larger than %d bytes", maxEvent)
				}
			case "id":
				if !bytes.ContainsRune(v, 0) {
					id = string(v)
				}
			case "retry":
				if ms, err := strconv.ParseUint(string(v), 10, 31); err == nil {
					s.retry = max(leastRetry, time.Duration(ms)*time.Millisecond)
				}
			}
			continue
		}
		s.lastID = id
		if any {
			if err := s.onEvent(event{name, data[:len(data)-1], id}); err != nil {
				return &stopError{err}
			}
		}
		name, data, any = "", data[:0], false
		if lines.in.Buffered() == 0 {
			s.idle(id)
		}
	}
}

// splitField returns a line's field and value. A comment has the field "".
func splitField(line []byte) (field string, v []byte) {
	name, v, _ := bytes.Cut(line, []byte(":"))
	return string(name), bytes.TrimPrefix(v, []byte(" "))
}

// lineReader reads lines that end in LF, CR or CRLF.
type lineReader struct {
	in      *bufio.Reader
	begun   bool
	afterCR bool // the line before ended in CR: an LF that comes now is a part of its end
	line    []byte
}

// next returns the next whole line, good until it is called again. What stands after the last end of line isn't one.
func (l *lineReader) next() ([]byte, error) {
	l.line = l.line[:0]
	if !l.begun {
		l.begun = true
		const byteOrderMark = "\uFEFF"
		if first, _ := l.in.Peek(len(byteOrderMark)); string(first) == byteOrderMark {
			_, _ = l.in.Discard(len(byteOrderMark))
		}
	}
	for {
		if _, err := l.in.Peek(1); err != nil {
			return nil, err
		}
		chunk, _ := l.in.Peek(l.in.Buffered())
		if l.afterCR {
			l.afterCR = false
			if chunk[0] == '\n' {
				_, _ = l.in.Discard(1)
				continue
			}
		}
		end := bytes.IndexAny(chunk, "\r\n")
		if end < 0 {
			if l.line = append(l.line, chunk...); len(l.line) > maxEvent {
				return nil, fmt.Errorf("a line is longer than %d bytes", maxEvent)
			}
			_, _ = l.in.Discard(len(chunk))
			continue
		}
		l.line = append(l.line, chunk[:end]...)
		l.afterCR = chunk[end] == '\r'
		_, _ = l.in.Discard(end + 1)
		return l.line, nil
	}
}
