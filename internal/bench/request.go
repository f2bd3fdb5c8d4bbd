package bench

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// place is what a client asks for beside the topic.
type place struct {
	key      string
	position string // where it resumes; empty: it doesn't
}

// webSocketKey and webSocketAccept are a client's key and the server's answer to it (RFC 6455 section 1.3): the key
// need not be secret here.
const (
	webSocketKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	webSocketAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// request returns what a client sends first. base has scheme, host and perhaps a path.
func (cfg Config) request(base *url.URL, at place) []byte {
	path := cfg.Path
	if at.key != "" && !strings.Contains(path, "{key}") && !cfg.foreign() {
		path += "&key={key}"
	}
	if at.position != "" && !strings.Contains(path, "{position}") && !cfg.foreign() {
		path += "&lastEventId={position}"
	}
	fill := func(s string, escape func(string) string) string {
		return strings.NewReplacer("{topic}", escape(cfg.Topic), "{key}", escape(at.key), "{position}", escape(at.position)).Replace(s)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: streamgw-bench\r\n",
		strings.TrimSuffix(base.EscapedPath(), "/"), fill(path, url.QueryEscape), base.Host)
	if cfg.Transport == WebSocket {
		b.WriteString("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + webSocketKey + "\r\n")
		if cfg.Subprotocol != "-" {
			b.WriteString("Sec-WebSocket-Protocol: " + cfg.Subprotocol + "\r\n")
		}
	} else {
		b.WriteString("Accept: text/event-stream\r\nCache-Control: no-cache\r\n")
		if at.position != "" && cfg.foreign() && !strings.Contains(path, "{position}") {
			b.WriteString("Last-Event-ID: " + at.position + "\r\n")
		}
	}
	plainly := func(s string) string { return s }
	for _, h := range cfg.Headers {
		b.WriteString(fill(h, plainly) + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// greeting returns the WebSocket frames that a client begins with once its handshake is done.
func (cfg Config) greeting(at place) (sent []byte) {
	for _, message := range cfg.Send {
		message = strings.NewReplacer("{topic}", cfg.Topic, "{key}", at.key, "{position}", at.position).Replace(message)
		sent = append(sent, clientFrame(opText, []byte(message))...)
	}
	return sent
}

// maxHead bounds a response's head.
const maxHead = 64 << 10

// responseHead reads a response's head once b has all of it, and returns how long it is; before, 0.
func responseHead(b []byte, transport Transport) (size int, how framing, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxHead {
			return 0, plain, errors.New("the response's head has no end")
		}
		return 0, plain, nil
	}
	lines := strings.Split(string(b[:end]), "\r\n")
	want := "200"
	if transport == WebSocket {
		want = "101"
	}
	_, status, _ := strings.Cut(lines[0], " ")
	if !strings.HasPrefix(lines[0], "HTTP/1.") || !strings.HasPrefix(status, want) {
		return 0, plain, fmt.Errorf("answered %q, not with %s%s", lines[0], want, detail(b[end+4:]))
	}
	accepted := false
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); {
		case strings.EqualFold(name, "Transfer-Encoding") && strings.EqualFold(value, "chunked"):
			how = chunked
		case strings.EqualFold(name, "Sec-WebSocket-Accept"):
			accepted = value == webSocketAccept
		case strings.EqualFold(name, "Content-Encoding") && !strings.EqualFold(value, "identity"):
			return 0, plain, fmt.Errorf("answered in %s, which wasn't asked for", value)
		}
	}
	if transport == WebSocket {
		if how = frames; !accepted {
			return 0, plain, errors.New("answered the WebSocket handshake with the wrong Sec-WebSocket-Accept")
		}
	}
	return end + 4, how, nil
}

// detail returns the beginning of a refusal's body, for an error's text.
func detail(body []byte) string {
	body = bytes.TrimSpace(body[:min(len(body), 300)])
	if len(body) == 0 {
		return ""
	}
	return fmt.Sprintf(": %q", body)
}
