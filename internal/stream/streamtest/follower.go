package streamtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// follower is a Read that is under way, and what it has emitted. It checks of each batch what holds for all.
type follower struct {
	b      *bench
	topic  string
	cancel context.CancelFunc
	done   chan struct{} // closed when Read has returned; then err holds what

	emitting atomic.Int32

	mu       sync.Mutex // guards what follows
	changed  chan struct{}
	hold     chan struct{} // non-nil: emit waits until it is closed
	held     bool          // it does
	starts   []stream.Start
	messages []stream.Message // since the last start
	gaps     []stream.Gap
	next     []int64
	wrong    string
	err      error
}

// follow begins to read a topic and returns once the source has said where it stands.
func (b *bench) follow(topic string) *follower {
	b.Helper()
	f := b.read(topic)
	f.await("the start", func() bool { return len(f.starts) > 0 })
	return f
}

// read begins to read a topic.
func (b *bench) read(topic string) *follower {
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.ctx))
	f := &follower{b: b, topic: topic, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(f.done)
		err := b.Source.Read(ctx, topic, f.emit)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.err = err
		f.tellLocked()
	}()
	b.Cleanup(f.stop)
	return f
}

// stop ends the Read and waits for its return.
func (f *follower) stop() {
	f.cancel()
	select {
	case <-f.done:
	case <-time.After(patience):
		f.b.Errorf("Read of %s doesn't return when its context has ended", f.topic)
	}
}

func (f *follower) emit(batch stream.Batch) {
	if f.emitting.Add(1) > 1 {
		f.fail("emit is called by two goroutines at once")
	}
	defer f.emitting.Add(-1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if hold := f.hold; hold != nil {
		f.held = true
		f.tellLocked()
		f.mu.Unlock()
		<-hold
		f.mu.Lock()
		f.held = false
	}
	if batch.Start != nil {
		f.starts = append(f.starts, *batch.Start)
		f.messages, f.next = nil, slices.Clone(batch.Start.Next)
		if len(batch.Start.Begin) != len(batch.Start.Next) {
			f.failLocked("the start has %d begins and %d nexts", len(batch.Start.Begin), len(batch.Start.Next))
		}
	} else if len(f.starts) == 0 {
		f.failLocked("the first batch has no start")
	}
	for i := range batch.Parts {
		f.takeLocked(&batch.Parts[i])
	}
	f.tellLocked()
}

func (f *follower) takeLocked(part *stream.PartBatch) {
	p := int(part.Partition)
	for p >= len(f.next) { // the topic has grown
		f.next = append(f.next, 0)
	}
	at := &f.next[p]
	if gap := part.Gap; gap != nil {
		if gap.From != *at || gap.Topic != f.topic || gap.Partition != part.Partition {
			f.failLocked("gap %+v at offset %d of partition %d", *gap, *at, p)
		}
		f.gaps = append(f.gaps, *gap)
		*at = gap.To
	}
	for _, m := range part.Messages {
		if m.Offset < *at || m.Partition != part.Partition || m.Topic != f.topic {
			f.failLocked("message %s/%d/%d where %s/%d/%d or a later one comes next", m.Topic, m.Partition, m.Offset, f.topic, p, *at)
		}
		*at = m.Offset + 1
		f.messages = append(f.messages, m)
	}
	if part.Next < *at {
		f.failLocked("partition %d goes on at %d, though it stood at %d", p, part.Next, *at)
	}
	*at = part.Next
}

func (f *follower) fail(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failLocked(format, args...)
}

func (f *follower) failLocked(format string, args ...any) {
	if f.wrong == "" {
		f.wrong = fmt.Sprintf(format, args...)
	}
	f.tellLocked()
}

func (f *follower) tellLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// await waits until what the follower has seen fulfils a condition, which is called with its lock held.
func (f *follower) await(what string, fulfilled func() bool) {
	f.b.Helper()
	timeout := time.After(patience)
	for {
		f.mu.Lock()
		wrong, err, ok, changed := f.wrong, f.err, fulfilled(), f.changed
		summary := fmt.Sprintf("%d starts, %d messages, gaps %v, next %.200s", len(f.starts), len(f.messages), f.gaps, fmt.Sprint(f.next))
		f.mu.Unlock()
		switch {
		case wrong != "":
			f.b.Fatalf("waiting for %s: %s", what, wrong)
		case ok:
			return
		case err != nil:
			f.b.Fatalf("waiting for %s: Read returned %v", what, err)
		}
		select {
		case <-changed:
		case <-timeout:
			f.b.Fatalf("%s didn't come within %v; came: %s", what, patience, summary)
		}
	}
}

// awaitMessages waits for so many messages since the last start, and returns those.
func (f *follower) awaitMessages(n int) []stream.Message {
	f.b.Helper()
	var ms []stream.Message
	f.await(fmt.Sprintf("%d messages", n), func() bool {
		ms = slices.Clone(f.messages)
		return len(ms) >= n
	})
	return ms
}

// awaitNext waits until the follower stands at an offset of a partition, or beyond.
func (f *follower) awaitNext(partition int, next int64) {
	f.b.Helper()
	f.await(fmt.Sprintf("offset %d of partition %d", next, partition), func() bool {
		return partition < len(f.next) && f.next[partition] >= next
	})
}

// pause makes the next emit wait, until resume is called. The source stands still meanwhile.
func (f *follower) pause() (resume func()) {
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
	f.b.Cleanup(resume)
	return resume
}

// state returns what was seen so far.
func (f *follower) state() (starts []stream.Start, gaps []stream.Gap, next []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.starts), slices.Clone(f.gaps), slices.Clone(f.next)
}
