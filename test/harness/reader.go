package harness

import (
	"context"
	"testing"
	"time"
)

// patience bounds each wait for one event.
const patience = 30 * time.Second

// Reader is a stream that a test reads step by step, into a ledger. It never reconnects by itself.
type Reader struct {
	t      testing.TB
	stream Stream
	ledger *Ledger
	// Position is where the reader stands.
	Position string
	// Gaps are those that it was told of.
	Gaps []GapData
}

// OpenReader opens a stream and waits until it knows its position: from then on it misses nothing.
func OpenReader(t testing.TB, transport Transport, d Dial, ledger *Ledger) *Reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := transport.Open(ctx, d)
	if err != nil {
		t.Fatalf("%s of %s: %v", transport, d.URL, err)
	}
	t.Cleanup(s.Close)
	r := &Reader{t: t, stream: s, ledger: ledger}
	for r.Position == "" {
		r.next("its position")
	}
	return r
}

// next reads one event, and fails the test when none comes or it isn't right.
func (r *Reader) next(what string) Event {
	r.t.Helper()
	late := time.AfterFunc(patience, r.stream.Close)
	defer late.Stop()
	e, err := r.stream.Next()
	if err != nil {
		r.t.Fatalf("waiting for %s at position %q after %d numbers: %v", what, r.Position, r.ledger.Count(), err)
	}
	switch e.Kind {
	case Message:
		n, err := ParseNumber(e.Data)
		if err == nil {
			err = r.ledger.Take(n)
		}
		if err != nil {
			r.t.Fatalf("after position %q, while waiting for %s: %v", r.Position, what, err)
		}
	case Gap:
		g, err := e.Gap()
		if err != nil {
			r.t.Fatal(err)
		}
		r.Gaps = append(r.Gaps, g)
	}
	if len(e.Position) > 0 {
		r.Position = string(e.Position)
	}
	return e
}

// Take reads until count more numbers have come. A gap meanwhile fails the test, unless gaps are awaited.
func (r *Reader) Take(count int) {
	r.t.Helper()
	for want := r.ledger.Count() + int64(count); r.ledger.Count() < want; {
		if e := r.next("numbers"); e.Kind == Gap {
			r.t.Fatalf("a gap where nothing was lost: %s", e.Data)
		}
	}
}

// TakeGaps reads until count more gaps have been told, and the position after them has, before any event: a client cut
// then isn't told again.
func (r *Reader) TakeGaps(count int) []GapData {
	r.t.Helper()
	first := len(r.Gaps)
	before := r.Position
	for len(r.Gaps) < first+count {
		before = r.Position
		r.next("a gap")
	}
	received := r.ledger.Count()
	for r.Position == before {
		r.next("the position after a gap")
	}
	if r.ledger.Count() != received {
		r.t.Errorf("an event came before the position after a gap")
	}
	return r.Gaps[first:]
}

// Close ends the stream.
func (r *Reader) Close() { r.stream.Close() }
