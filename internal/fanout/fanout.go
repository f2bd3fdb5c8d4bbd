// Package fanout spreads each topic to all its subscribers from memory. A topic with subscribers has one [Hub]: a
// window of recent messages in one order, filled by one shared reader. A [Subscription] is a cursor into it: history
// from Kafka, then the window, then live, as one sequence without a gap or a duplicate, in the order of each partition.
//
// Promises: every message after a subscription's position is delivered exactly once, or a gap says which can't be had.
// Nothing waits for a slow subscriber and nothing queues for it. What windows, encoded frames, history and writes
// hold together stays below one bound, [Config.Memory], whatever subscribers do.
package fanout

import (
	"errors"
	"log/slog"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is how hubs hold and hand out messages. Its zero value works.
type Config struct {
	// Memory bounds the bytes that windows, encoded frames, history and pending writes hold together. When it is
	// reached, windows give up their oldest messages first. A message larger than it can't be had: those who come to it
	// end with kind TooLarge. Default 1 GiB; less than LeastMemory isn't enough for ordinary work.
	Memory int64

	// Window returns the bounds of one topic's window. Nil: the default of Window for all.
	Window func(topic string) Window

	// HistoryReads bounds how many reads of history run at once; others wait in line. Default 16.
	HistoryReads int

	// HistoryBytes bounds a read of history for one subscriber; one for several brings up to four times as much.
	// Default 256 KiB.
	HistoryBytes int64

	// Gather returns for a topic how long a subscriber that was woken waits at least until it is woken again: what
	// comes meanwhile leaves in one write. It spares CPU under load and delays nothing that follows a silence of that
	// length. 0: no wait. Nil: 10 ms for all.
	Gather func(topic string) time.Duration

	// Linger is how long a hub outlives its last subscriber, so that a reconnect finds it warm. Default 1 m.
	Linger time.Duration

	// StartTimeout is how long a subscriber waits for its topic's reader to stand. Default 5 s.
	StartTimeout time.Duration

	// Filters bounds the distinct filters of one hub, and Scans those of them that each message has to be held against, since
	// they name neither keys nor types. Who brings another one is refused with ErrFilters or ErrScans. 0: no bound.
	// What wants all messages isn't counted.
	Filters, Scans int

	// ReplaysPerOwner bounds the subscriptions of one owner that began elsewhere than at the end of their topics and haven't
	// come up with them since: each makes Kafka work. Who asks for another one is refused with ErrReplays. 0: no bound.
	ReplaysPerOwner int

	// Formats are the encodings that hubs share among subscribers; Request.Format is an index into it.
	Formats []Format

	Log     *slog.Logger          // nil: none
	Metrics prometheus.Registerer // nil: none
}

// LeastMemory is what [Config.Memory] should be at least, in bytes.
const LeastMemory = 16 << 20

// What a subscription is refused with that is over a bound of [Config].
var (
	ErrFilters = errors.New("all the different filters that it may have here")
	ErrScans   = errors.New("all the filters without keys and types that it may have here")
	ErrReplays = stream.Errorf(stream.TooMany, "this subject has all the replays under way that it may have; come back when they have ended")
)

// Window bounds what a hub keeps of its topic's recent messages. A larger one serves more reconnects without reading
// Kafka again.
type Window struct {
	Bytes int64         // default 64 MiB
	Age   time.Duration // since the hub got the message; default 10 m
}

// Format encodes messages for a transport. A hub calls it once a message and shares the bytes.
type Format interface {
	// AppendMessage appends the frame of m to dst. id is the position that a client resumes from once it has m.
	AppendMessage(dst []byte, m *stream.Message, id string) []byte
}

// BlockFormat is a Format whose frames are packed, many at a time, into blocks: compressed ones. A block is read without
// those before it, so that a client which has come to the end of one can be given any. A hub makes each once and shares
// it; what it packs together is what came since somebody asked last.
type BlockFormat interface {
	Format

	// AppendBlock appends to dst a block of frames, which AppendMessage appended to nothing.
	AppendBlock(dst, frames []byte) []byte
}

// Slow is what becomes of a subscription that falls out of its hub's window.
type Slow string

// What a slow subscription may ask for.
const (
	SlowReplay Slow = "replay" // go on from Kafka; the zero value means it too
	SlowClose  Slow = "close"  // end with an error of kind TooSlow; Position is where to resume
)

// Request is what a subscriber wants.
type Request struct {
	Topics []string      // one or several, each once; they exist or Subscribe says NotFound
	Filter stream.Filter // applies to each topic
	From   From
	Slow   Slow
	Format int // index into Config.Formats; -1: frames aren't shared, Item.Frame is nil

	Waker Waker // nil: only Next is used

	// Bounds are what may be read of each of Topics, in their order, whatever else is asked for. Nil: everything.
	Bounds []Bound

	// Owner is whose subscription it is, for Config.ReplaysPerOwner; "": nobody's.
	Owner string
}

// Bound is what a subscriber may read of a topic.
type Bound struct {
	Filter stream.Filter // of it, only what this wants
	Since  time.Time     // nothing that Kafka has from before; zero: all that it has
}

// Waker is told when a subscription's Poll may have something. It may be told when there is nothing.
type Waker interface {
	// Wake is called from any goroutine, with locks held: it must not block and must not call the subscription.
	Wake()
}

// From is where a subscription begins. The zero value isn't valid.
type From struct {
	At       stream.At        // used when Position is nil: Latest, Earliest or a time
	Position *stream.Position // resume here; a topic that it lacks begins at latest. It knows one of the topics at least.
}

// Item is a message, or a gap where messages can no longer be had.
type Item struct {
	Message *stream.Message // nil for a gap; shared, never written to
	Gap     *stream.Gap     // nil for a message
	ID      string          // the position that a client resumes from once it has this item
	Frame   []byte          // the message in the request's format, alone in its block if that has blocks; shared, never written to; nil: encode it yourself
}

// Run is a stretch of a hub's log in one format: whole frames of messages, or whole blocks of them, one behind the other,
// which all subscribers in step share.
type Run struct {
	Frames []byte    // never written to; empty: there is no run
	Count  int       // of the messages
	Oldest time.Time // the timestamp of the first of them: it has waited longest

	marks []mark // of each frame or block
	from  mark   // in front of it
	seq   uint64 // of the first message
}

// Batch is what one Poll yields: a run of the hub's log, or items, never both. It is filled anew by each Poll; what is
// in it is good until then.
type Batch struct {
	Run   Run
	Items []Item
	More  bool // there may be more at once: Wake needn't be waited for

	budget int64 // bytes that this Poll may still add
}

// Reset empties the batch and lets go of what it held.
func (b *Batch) Reset() {
	clear(b.Items)
	b.Run, b.Items, b.More = Run{}, b.Items[:0], false
}

func (b *Batch) add(item Item) {
	b.Items = append(b.Items, item)
	b.budget -= 64 + int64(len(item.ID)) // of hundreds of partitions it may be longer than the message
	if item.Message != nil {
		b.budget -= item.Message.Size()
	}
}
