package streamtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// Seen is what a Read has emitted so far.
type Seen struct {
	Starts   []stream.Start
	Messages []stream.Message // since the last start, in the order they came
	Gaps     []stream.Gap
	Next     []int64 // where it stands, by partition
	Gone     bool    // the topic doesn't exist, said the last batch
	Waiting  bool    // an emit waits, see Pause
}

// Follower is a Read that is under way. It checks of each batch what holds for all.
type Follower struct {
	t      *testing.T
	topic  string
	cancel context.CancelFunc
	done   chan struct{} // closed when Read has returned; then err holds what

	emitting atomic.Int32

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	hold    chan struct{} // non-nil: emit waits until it is closed
	seen    Seen
	wrong   string
	err     error
}

// Follow begins to read a topic and returns once the source has said where it stands. It ends with the test.
func Follow(t *testing.T, source stream.Source, topic string) *Follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	f := &Follower{t: t, topic: topic, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(f.done)
		err := source.Read(ctx, topic, f.emit)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.err = err
		f.tellLocked()
	}()
	t.Cleanup(func() { f.Stop() })
	f.Await("the start", func(s *Seen) bool { return len(s.Starts) > 0 })
	return f
}

// Done is closed when Read has returned.
func (f *Follower) Done() <-chan struct{} { return f.done }

// Stop ends the Read and returns what it returns.
func (f *Follower) Stop() error {
	f.cancel()
	select {
	case <-f.done:
		return f.err
	case <-time.After(patience):
		f.t.Errorf("Read of %s doesn't return when its context has ended", f.topic)
		return nil
	}
}

// Seen returns what was emitted so far.
func (f *Follower) Seen() Seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seenLocked()
}

func (f *Follower) seenLocked() Seen {
	s := f.seen
	s.Next = slices.Clone(s.Next)
	return s
}

// Await waits until what was emitted fulfils a condition, and returns it.
func (f *Follower) Await(what string, fulfilled func(*Seen) bool) Seen {
	f.t.Helper()
	timeout := time.After(patience)
	for {
		f.mu.Lock()
		wrong, err, seen, changed := f.wrong, f.err, f.seenLocked(), f.changed
		f.mu.Unlock()
		switch {
		case wrong != "":
			f.t.Fatalf("waiting for %s: %s", what, wrong)
		case fulfilled(&seen):
			return seen
		case err != nil:
			f.t.Fatalf("waiting for %s: Read returned %v", what, err)
		}
		select {
		case <-changed:
		case <-timeout:
			f.t.Fatalf("%s didn't come within %v; came: %d starts, %d messages, gaps %v, next %.200s",
				what, patience, len(seen.Starts), len(seen.Messages), seen.Gaps, fmt.Sprint(seen.Next))
		}
	}
}

// AwaitMessages waits for so many messages since the last start, and returns those.
func (f *Follower) AwaitMessages(n int) []stream.Message {
	f.t.Helper()
	return slices.Clone(f.Await(fmt.Sprintf("%d messages", n), func(s *Seen) bool { return len(s.Messages) >= n }).Messages)
}

// AwaitNext waits until the Read stands at an offset of a partition, or beyond.
func (f *Follower) AwaitNext(partition int, next int64) {
	f.t.Helper()
	f.Await(fmt.Sprintf("offset %d of partition %d", next, partition), func(s *Seen) bool {
		return partition < len(s.Next) && s.Next[partition] >= next
	})
}

// Pause makes the next emit wait, until resume is called. What reads for it stands still meanwhile.
func (f *Follower) Pause() (resume func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hold := make(chan struct{})
	f.hold = hold
	resume = sync.OnceFunc(func() {
		f.mu.Lock()
		f.hold = nil
		f.mu.Unlock()
		close(hold)
	})
	f.t.Cleanup(resume)
	return resume
}

func (f *Follower) emit(batch stream.Batch) {
	alone := f.emitting.Add(1) == 1
	defer f.emitting.Add(-1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !alone {
		f.failLocked("emit is called by two goroutines at once")
	}
	if hold := f.hold; hold != nil {
		f.seen.Waiting = true
		f.tellLocked()
		f.mu.Unlock()
		<-hold
		f.mu.Lock()
		f.seen.Waiting = false
	}
	if batch.Start != nil {
		f.seen.Starts = append(f.seen.Starts, *batch.Start)
		f.seen.Messages, f.seen.Next = nil, slices.Clone(batch.Start.Next)
		if len(batch.Start.Begin) != len(batch.Start.Next) {
			f.failLocked("the start has %d begins and %d nexts", len(batch.Start.Begin), len(batch.Start.Next))
		}
	} else if len(f.seen.Starts) == 0 {
		f.failLocked("the first batch has no start")
	}
	f.seen.Gone = batch.Gone
	for i := range batch.Parts {
		f.takeLocked(&batch.Parts[i])
	}
	f.tellLocked()
}

func (f *Follower) takeLocked(part *stream.PartBatch) {
	p := int(part.Partition)
	for p >= len(f.seen.Next) { // the topic has grown
		f.seen.Next = append(f.seen.Next, 0)
	}
	at := &f.seen.Next[p]
	if gap := part.Gap; gap != nil {
		if gap.From != *at || gap.Topic != f.topic || gap.Partition != part.Partition {
			f.failLocked("gap %+v at offset %d of partition %d", *gap, *at, p)
		}
		f.seen.Gaps = append(f.seen.Gaps, *gap)
		*at = gap.To
	}
	for _, m := range part.Messages {
		if m.Offset < *at || m.Partition != part.Partition || m.Topic != f.topic {
			f.failLocked("message %s/%d/%d where %s/%d/%d or a later one comes next", m.Topic, m.Partition, m.Offset, f.topic, p, *at)
		}
		*at = m.Offset + 1
		f.seen.Messages = append(f.seen.Messages, m)
	}
	if part.Next < *at {
		f.failLocked("partition %d goes on at %d, though it stood at %d", p, part.Next, *at)
	}
	*at = part.Next
}

func (f *Follower) failLocked(format string, args ...any) {
	if f.wrong == "" {
		f.wrong = fmt.Sprintf(format, args...)
	}
}

func (f *Follower) tellLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}
