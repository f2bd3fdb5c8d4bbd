// Package stream holds the words every other package speaks: a [Message] read from a topic, the [Position]
// a client resumes from, the [Source], [History], [Topics] and [Publisher] that a broker provides, and the
// [Error] all of them return.
//
// Two promises made here are kept everywhere: messages of one partition arrive in offset order, and
// resuming from a Position repeats nothing that it covers. This package imports no sibling.
package stream

import (
	"context"
	"encoding/hex"
	"strings"
	"time"
)

// Message is a record as a hub holds it. Its byte slices are shared by every subscriber and never written to.
type Message struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time // the record's own, in milliseconds: when it was created, or appended (KIP-32)
	Key       []byte    // nil: the record has no key, which differs from an empty one
	Value     []byte    // nil: a tombstone, which differs from an empty value
	Headers   []Header  // in the record's order; names may repeat
}

// Header is one header of a record (KIP-82). A nil Value is a null header value.
type Header struct {
	Name  string
	Value []byte
}

// Header returns the value of the first header of that name.
func (m *Message) Header(name string) (value []byte, ok bool) {
	for i := range m.Headers {
		if m.Headers[i].Name == name {
			return m.Headers[i].Value, true
		}
	}
	return nil, false
}

// Size is what the message holds of memory, in bytes, as the bounds of windows and history count it.
func (m *Message) Size() int64 {
	const fixed = 128 // the struct itself and the headers of its slices
	n := fixed + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += 40 + len(m.Headers[i].Name) + len(m.Headers[i].Value)
	}
	return int64(n)
}

// Incarnation tells a topic from an earlier one of the same name: the first bytes of Kafka's topic id (KIP-516).
// The zero value stands for a broker without topic ids (before 2.8).
type Incarnation [4]byte

func (i Incarnation) String() string { return hex.EncodeToString(i[:]) }

// GapReason says why messages can no longer be had.
type GapReason string

// The reasons of a gap.
const (
	GapRetention GapReason = "retention" // the topic's log now starts later
	GapTruncated GapReason = "truncated" // the log ends before the position: an unclean leader election
	GapRecreated GapReason = "recreated" // the topic was deleted and created again
	GapForbidden GapReason = "forbidden" // they may not be read: they are older than the token's history goes back
)

// Gap is a run of offsets of one partition that can no longer be had: those from From up to, not including, To.
// When the topic was created again or truncated, To may be smaller than From: reading goes on at To of the new log.
type Gap struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	From      int64     `json:"from"`
	To        int64     `json:"to"`
	Reason    GapReason `json:"reason"`
}

// PartBatch is what was read of one partition in one go. A reader of it first takes Gap, if there is one, then the
// Messages, and then stands at Next.
type PartBatch struct {
	Partition int32
	Gap       *Gap      // nil but where messages were lost just before Messages
	Messages  []Message // in offset order
	Next      int64     // the offset to read next: beyond the last message, and beyond holes (markers, aborted or compacted records)
}

// Start is where a Source begins: at the topic's first read, and again when the topic was created anew.
type Start struct {
	Incarnation Incarnation
	Begin       []int64 // the log start of every partition
	Next        []int64 // where the Source stands, for every partition: its messages go on from here
}

// Batch is what a Source read in one go. The first one of a Read carries Start, and so does one that follows a
// re-creation: what was read before then belongs to a topic that is no more. A part whose partition is new
// to the reader (the topic has grown) begins at offset 0, or says with a Gap where it begins.
type Batch struct {
	Start *Start
	Parts []PartBatch
	Gone  bool // the topic doesn't exist any more, until the next Batch. The Source waits for its return.
}

// Source reads topics as they grow. One Read serves any number of subscribers.
type Source interface {
	// Read reads every partition of a topic from its end (the last stable offset, where transactions are respected)
	// until ctx ends, and calls emit with what it reads, never from two goroutines at once. The first call comes
	// when the offset of every partition is known, so that nothing published after it is missed. emit must not
	// block, and owns the batch.
	//
	// Read survives whatever a cluster does, for as long as ctx lasts: it waits and retries, and says what was
	// lost with a Gap or a new Start. Before its first emit it returns an [Error]: NotFound when there is
	// no such topic, Unavailable when a partition can't be read (no leader) for several seconds.
	Read(ctx context.Context, topic string, emit func(Batch)) error
}

// Range is a run of offsets of one partition: those from From up to, not including, To.
// From == To asks only whether From lies within the log: the answer is an empty part, or one with a Gap.
type Range struct {
	Partition int32
	From, To  int64
}

// HistoryRequest asks for some of what a topic holds.
type HistoryRequest struct {
	Topic       string
	Incarnation Incarnation // the answer is of this incarnation, or a [RecreatedError]
	Ranges      []Range     // at most one for a partition
	MaxBytes    int64       // bounds the answer in memory, but for its first message
}

// At names a place in every partition of a topic at once.
type At struct{ millis int64 }

// Places that don't depend on a time. Latest is the last stable offset where transactions are respected.
var (
	Latest   = At{-1}
	Earliest = At{-2}
)

// AtTime is the first message with this timestamp or a later one, in each partition.
func AtTime(t time.Time) At { return At{max(0, t.UnixMilli())} }

// Kafka returns a as the timestamp field of a ListOffsets request has it.
func (a At) Kafka() int64 { return a.millis }

// History reads what lies behind: bounded reads of the log, apart from the live reader.
type History interface {
	// Read returns some of what the request's ranges hold, in offset order by partition, with at least one
	// part that moved (its Next beyond its From; at or beyond To when that range is done), or an error. Nothing of
	// a range at or beyond its To is returned, and Next never exceeds To. It ends at To though nothing before it may be readable.
	// A range that begins before the log's start or beyond its end has a part with a Gap.
	Read(ctx context.Context, req HistoryRequest) ([]PartBatch, error)

	// Offsets returns where every partition of a topic stands at a place. NotFound when there is no such topic.
	Offsets(ctx context.Context, topic string, at At) (TopicPosition, error)
}

// Topic is what a broker knows of a topic.
type Topic struct {
	Name        string
	Incarnation Incarnation
	Begin, End  []int64 // the log start and the end of every partition
}

// Topics finds topics. Internal ones (their names begin with two underscores) are left out and NotFound.
type Topics interface {
	// List returns all topics by name.
	List(ctx context.Context) ([]Topic, error)
	// Lookup returns one, or an [Error] of kind NotFound. It never creates it.
	Lookup(ctx context.Context, name string) (Topic, error)
}

// Record is a message to be written.
type Record struct {
	Topic     string
	Partition *int32 // nil: by the key's hash, or any without a key
	Key       []byte
	Value     []byte
	Headers   []Header
	Timestamp time.Time // zero: now
}

// Receipt says where a record was written.
type Receipt struct {
	Topic     string
	Partition int32
	Offset    int64
}

// Publisher writes records.
type Publisher interface {
	// Publish returns once the broker has acknowledged every record, with a receipt of each in order. On an error
	// none, some or all of them may have been written. A topic is never created by it.
	Publish(ctx context.Context, records []Record) ([]Receipt, error)
}

// InternalTopic reports whether a topic is one that is never served, such as __consumer_offsets.
func InternalTopic(name string) bool { return strings.HasPrefix(name, "__") }

// ValidTopic reports whether Kafka would accept a topic's name: 1 to 249 of the letters a-z A-Z 0-9 . _ -, not . or ..
func ValidTopic(name string) bool {
	if name == "" || len(name) > 249 || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
