package kafka

import (
	"slices"
	"sync"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// call is one Publish.
type call struct {
	done    chan struct{} // closed when nothing of it waits any more
	release func()        // gives back what it had reserved

	mu       sync.Mutex // guards what follows
	receipts []stream.Receipt
	left     int // records without an outcome
	failure  error
}

// fail gives up on what has no outcome yet. Records of the call that weren't sent won't be.
func (c *call) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure == nil && c.left > 0 {
		c.failure = err
	}
}

func (c *call) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// settle notes the outcome of one record: its offset, or an error.
func (c *call) settle(index int, offset int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && c.failure == nil {
		c.failure = err
	}
	if c.failure == nil {
		c.receipts[index].Offset = offset
	}
	if c.left--; c.left == 0 {
		c.release()
		close(c.done)
	}
}

// item is one record on its way.
type item struct {
	call     *call
	index    int // in the call
	record   stream.Record
	size     int64
	deadline time.Time
}

// groupByWriter returns the records of a call by their writer, in the call's order. Their bytes are copied: a call
// that gave up may be over while its records still wait.
func groupByWriter(targets []*writer, records []stream.Record, call *call, deadline time.Time) map[*writer][]item {
	groups := map[*writer][]item{}
	now := time.Now()
	for i, r := range records {
		if r.Timestamp.IsZero() {
			r.Timestamp = now
		}
		r.Timestamp = r.Timestamp.Truncate(time.Millisecond)
		r.Key, r.Value, r.Headers = slices.Clone(r.Key), slices.Clone(r.Value), slices.Clone(r.Headers)
		for h := range r.Headers {
			r.Headers[h].Value = slices.Clone(r.Headers[h].Value)
		}
		groups[targets[i]] = append(groups[targets[i]], item{call, i, r, recordSize(&r), deadline})
	}
	return groups
}

// recordSize is what a record takes in a batch, at most.
func recordSize(r *stream.Record) int64 {
	const overhead = 36 // lengths, deltas and attributes
	n := overhead + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += 10 + len(h.Name) + len(h.Value)
	}
	return int64(n)
}
