package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Posting publishes by HTTP: an event, or several as a JSON array, in the body of a POST.
type Posting struct {
	URL     string
	Headers []string // as "Name: value"

	// Body is the body, with {event} for the event, {event-url} for the event percent-encoded, and {topic} and {key}.
	// Empty: {event}.
	Body  string
	Topic string

	// Together is whether what is due together goes as a JSON array; else each event has a request of its own.
	Together bool

	Conns int // connections, and lanes; 0: 4
}

// Poster is the publisher of a [Posting].
type Poster struct {
	to     Posting
	header http.Header
	client *http.Client
}

// Publisher returns a publisher that posts. An error names the flag at fault.
func (p Posting) Publisher() (*Poster, error) {
	setDefault(&p.Conns, 4)
	setDefault(&p.Body, "{event}")
	u, err := url.Parse(p.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--publish-url: %q isn't an address to post to", p.URL)
	}
	if p.Conns < 1 || p.Conns > 1000 {
		return nil, fmt.Errorf("--publish-conns: %d isn't between 1 and 1000", p.Conns)
	}
	if p.Together && p.Body != "{event}" {
		return nil, errors.New("--publish-batch and --publish-body: choose one")
	}
	header := http.Header{"Content-Type": {"application/json"}}
	for _, h := range p.Headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("--publish-header: %q isn't 'Name: value'", h)
		}
		header.Set(name, strings.TrimSpace(value))
	}
	return &Poster{p, header, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: p.Conns, MaxConnsPerHost: p.Conns}}}, nil
}

// Lanes implements [Publisher].
func (p *Poster) Lanes() int { return p.to.Conns }

// Close ends the connections.
func (p *Poster) Close() { p.client.CloseIdleConnections() }

// Publish implements [Publisher].
func (p *Poster) Publish(ctx context.Context, _ int, events []Event) error {
	if p.to.Together {
		body := []byte("[")
		for i, e := range events {
			if i > 0 {
				body = append(body, ',')
			}
			body = append(body, e.Value...)
		}
		return p.post(ctx, p.to.URL, append(body, ']'))
	}
	for _, e := range events {
		event, key := string(e.Value), string(e.Key)
		fill := strings.NewReplacer("{event}", event, "{event-url}", url.QueryEscape(event), "{topic}", p.to.Topic, "{key}", key)
		to := strings.NewReplacer("{topic}", url.QueryEscape(p.to.Topic), "{key}", url.QueryEscape(key)).Replace(p.to.URL)
		if err := p.post(ctx, to, []byte(fill.Replace(p.to.Body))); err != nil {
			return err
		}
	}
	return nil
}

func (p *Poster) post(ctx context.Context, to string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = p.header
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s%s", to, resp.Status, detail(said))
	}
	return err
}
