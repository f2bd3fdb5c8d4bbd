package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Client is a resuming client: it enters every number that it is sent into its ledger, and whenever its connection ends
// it opens another, to any of its targets, at the position it has reached.
type Client struct {
	Name      string
	Transport Transport
	Targets   []string   // gateways to choose from
	Query     url.Values // topics and filters; from= is for the first connection
	Header    http.Header
	Ledger    *Ledger
	Rand      *rand.Rand

	// Cut is asked for each connection when the client is to cut it. Nil never cuts.
	Cut func(r *rand.Rand) *Cut

	// Gap is called for each gap. Nil takes a gap as a loss.
	Gap func(GapData) error

	mu       sync.Mutex // guards what follows
	position []byte
	fault    error
	trouble  error // why the last connection ended
	tally    Tally
}

// Tally is what became of a client's connections.
type Tally struct {
	Connected int // streams opened
	Cuts      int // ended by the client itself
	Broken    int // ended by the other side
	Refused   int // not opened
	Bare      int // ended before their first record
	Resumed   int // opened at a position
}

func (t *Tally) add(u Tally) {
	t.Connected += u.Connected
	t.Cuts += u.Cuts
	t.Broken += u.Broken
	t.Refused += u.Refused
	t.Bare += u.Bare
	t.Resumed += u.Resumed
}

// Run connects again and again until ctx ends or something is wrong that no reconnect mends; Fault has it then.
func (c *Client) Run(ctx context.Context) {
	for ctx.Err() == nil {
		away, err := c.session(ctx)
		if err != nil {
			c.mu.Lock()
			c.fault = fmt.Errorf("%s: %w", c.Name, err)
			c.mu.Unlock()
			return
		}
		pause(ctx, away)
	}
}

// session is one connection. It returns how long to stay away, or what is wrong with the product.
func (c *Client) session(ctx context.Context) (away time.Duration, fault error) {
	d := Dial{
		URL:      c.Targets[c.Rand.IntN(len(c.Targets))],
		Query:    c.Query,
		Position: c.Position(),
		Header:   c.Header,
		InQuery:  c.Rand.IntN(4) == 0,
		Rand:     c.Rand,
	}
	if d.Position != "" {
		d.Query = resumeQuery(c.Query)
	}
	if c.Cut != nil {
		d.Cut = c.Cut(c.Rand)
	}
	away = time.Duration(50+c.Rand.IntN(400)) * time.Millisecond
	opening, cancel := context.WithTimeout(ctx, 30*time.Second)
	s, err := c.Transport.Open(opening, d)
	cancel()
	if err != nil {
		return c.refused(ctx, d, away, err)
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	c.count(Tally{Connected: 1, Resumed: one(d.Position != "")})
	records, err := c.receive(s)
	if ctx.Err() != nil {
		return 0, nil
	}
	if f, ok := errors.AsType[*faultError](err); ok {
		return 0, f.err
	}
	cut := d.Cut != nil && d.Cut.done.Load()
	c.ended(err, Tally{Cuts: one(cut), Broken: one(!cut), Bare: one(records == 0)})
	if cut {
		return d.Cut.Away, nil
	}
	return away, nil
}

// resumeQuery returns a stream's query without where it began.
func resumeQuery(q url.Values) url.Values {
	resume := url.Values{}
	for name, values := range q {
		if name != "from" {
			resume[name] = values
		}
	}
	return resume
}

func (c *Client) refused(ctx context.Context, d Dial, away time.Duration, err error) (time.Duration, error) {
	if ctx.Err() != nil {
		return 0, nil
	}
	if d.Cut != nil && d.Cut.done.Load() {
		c.ended(err, Tally{Cuts: 1, Bare: 1})
		return d.Cut.Away, nil
	}
	if status, ok := errors.AsType[*StatusError](err); ok && status.Final() {
		return 0, fmt.Errorf("%s refuses position %q: %w", d.URL, d.Position, err)
	}
	c.ended(err, Tally{Refused: 1})
	return away, nil
}

// faultError is what the product did wrong, apart from a connection's end.
type faultError struct{ err error }

func (e *faultError) Error() string { return e.err.Error() }

func (c *Client) receive(s Stream) (records int, err error) {
	var position []byte
	for {
		e, err := s.Next()
		if err != nil {
			return records, err
		}
		switch e.Kind {
		case Message:
			records++
			n, err := ParseNumber(e.Data)
			if err == nil {
				err = c.Ledger.Take(n)
			}
			if err == nil && len(e.Position) == 0 {
				err = fmt.Errorf("%s has no position", e.Data)
			}
			if err != nil {
				return records, &faultError{fmt.Errorf("%w (the event before ended at position %q, this one at %q)", err, position, e.Position)}
			}
		case Gap:
			if err := c.gap(e); err != nil {
				return records, &faultError{err}
			}
		}
		if len(e.Position) > 0 {
			position = append(position[:0], e.Position...)
			c.stand(position)
		}
	}
}

func (c *Client) gap(e Event) error {
	g, err := e.Gap()
	if err != nil {
		return err
	}
	if c.Gap == nil {
		return fmt.Errorf("a gap where nothing was lost: %s", e.Data)
	}
	return c.Gap(g)
}

func (c *Client) stand(position []byte) {
	c.mu.Lock()
	c.position = append(c.position[:0], position...)
	c.mu.Unlock()
}

func (c *Client) count(t Tally) {
	c.mu.Lock()
	c.tally.add(t)
	c.mu.Unlock()
}

func (c *Client) ended(err error, t Tally) {
	c.mu.Lock()
	c.trouble = err
	c.tally.add(t)
	c.mu.Unlock()
}

// Position returns where the client stands.
func (c *Client) Position() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.position)
}

// Fault returns what the product did wrong towards this client.
func (c *Client) Fault() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fault
}

// Tally returns what became of the client's connections.
func (c *Client) Tally() Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
