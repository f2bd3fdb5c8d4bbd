// Package streamtest is the contract of [stream.Source] and [stream.History]: the promises that their doc comments
// make, as tests. It runs on whatever an [Env] gives it, so that an embedded broker and a real Kafka are held to the
// same. Every topic it makes has a random name; it deletes them in the end.
package streamtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// Env is what the contract is tested on. Source and History run for as long as the tests do, and share a cluster.
type Env struct {
	Source  stream.Source
	History stream.History
	Cluster Cluster
}

// Cluster does to the brokers what the tests need done, with other software than what is tested. Each call returns
// when the brokers have done it and show it to others.
type Cluster interface {
	// CreateTopic creates a topic; one that was deleted before comes back as another.
	CreateTopic(ctx context.Context, name string, partitions int, configs map[string]string) error
	DeleteTopic(ctx context.Context, name string) error
	AddPartitions(ctx context.Context, name string, total int) error
	// Produce writes records, each to its Partition, and returns their offsets. Those of one call and partition are
	// written in few batches, with a codec of Codecs.
	Produce(ctx context.Context, codec string, records ...stream.Record) ([]int64, error)
	// Begin begins a transaction.
	Begin(ctx context.Context) (Transaction, error)
	// DeleteRecords moves the log start of a partition up to an offset.
	DeleteRecords(ctx context.Context, topic string, partition int32, before int64) error
	// Compact returns when no key of the topic has more than one record, but for the newest batch.
	Compact(ctx context.Context, topic string) error
	// Topics returns the names of all topics.
	Topics(ctx context.Context) ([]string, error)
}

// Transaction is one that is open.
type Transaction interface {
	Produce(ctx context.Context, records ...stream.Record) ([]int64, error)
	Commit(ctx context.Context) error
	Abort(ctx context.Context) error
}

// Codecs are the compressions of record batches.
func Codecs() []string { return []string{"none", "gzip", "snappy", "lz4", "zstd"} }

// CompactedTopic are the configs of a topic whose log a broker compacts as soon as it ever does.
func CompactedTopic() map[string]string {
	return map[string]string{
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "100", "max.compaction.lag.ms": "100",
		"min.compaction.lag.ms": "0", "delete.retention.ms": "100",
	}
}

// patience is how long a test waits for what must come. Nothing takes that long unless it is broken.
const patience = 45 * time.Second

// bench is a test with its environment.
type bench struct {
	*testing.T
	Env
	ctx context.Context
}

// cases runs each of several tests by its name, at the same time: they share the source, as topics in use do.
func cases(t *testing.T, env Env, tests map[string]func(*bench)) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&bench{t, env, t.Context()})
		})
	}
}

// follow follows a topic of the source.
func (b *bench) follow(topic string) *Follower {
	b.Helper()
	return Follow(b.T, b.Source, topic)
}

// topic creates a topic.
func (b *bench) topic(partitions int, configs map[string]string) string {
	b.Helper()
	name := "contract." + strings.ToLower(rand.Text()[:12])
	b.create(name, partitions, configs)
	b.Cleanup(func() { b.Cluster.DeleteTopic(context.WithoutCancel(b.ctx), name) })
	return name
}

func (b *bench) create(name string, partitions int, configs map[string]string) {
	b.Helper()
	b.must(b.Cluster.CreateTopic(b.ctx, name, partitions, configs))
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// Records returns so many records for one partition, whose values say which is which.
func Records(topic string, partition int32, from, to int) []stream.Record {
	var rs []stream.Record
	now := time.Now().UTC().Truncate(time.Millisecond) // not so old that retention takes them
	for i := from; i < to; i++ {
		rs = append(rs, stream.Record{
			Topic: topic, Partition: &partition,
			Key: fmt.Appendf(nil, "key %d", i), Value: fmt.Appendf(nil, `{"number":%d}`, i),
			Headers:   []stream.Header{{Name: "number", Value: fmt.Append(nil, i)}},
			Timestamp: now.Add(time.Duration(i) * time.Millisecond),
		})
	}
	return rs
}

// produce writes records uncompressed and returns what is to be read of them.
func (b *bench) produce(rs ...stream.Record) []stream.Message {
	b.Helper()
	return b.compress("none", rs...)
}

func (b *bench) compress(codec string, rs ...stream.Record) []stream.Message {
	b.Helper()
	offsets, err := b.Cluster.Produce(b.ctx, codec, rs...)
	b.must(err)
	return Messages(rs, offsets)
}

// Messages returns what is to be read of records that were written at offsets.
func Messages(rs []stream.Record, offsets []int64) []stream.Message {
	ms := make([]stream.Message, len(rs))
	for i, r := range rs {
		ms[i] = stream.Message{
			Topic: r.Topic, Partition: *r.Partition, Offset: offsets[i], Timestamp: r.Timestamp,
			Key: r.Key, Value: r.Value, Headers: r.Headers,
		}
	}
	return ms
}

// Same fails the test unless both are the same messages, with nil and empty told apart.
func Same(t *testing.T, what string, got, want []stream.Message) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %d messages, want %d: %s", what, len(got), len(want), offsetsOf(got))
	}
	for i := range want {
		if diff := differ(&got[i], &want[i]); diff != "" {
			t.Fatalf("%s: message %d of %d, offset %d: %s", what, i, len(want), got[i].Offset, diff)
		}
	}
}

func (b *bench) same(what string, got, want []stream.Message) {
	b.Helper()
	Same(b.T, what, got, want)
}

func differ(got, want *stream.Message) string {
	blob := func(p []byte) string {
		if p == nil {
			return "nil"
		}
		return fmt.Sprintf("%d bytes %.40q", len(p), p)
	}
	equal := func(p, q []byte) bool { return (p == nil) == (q == nil) && bytes.Equal(p, q) }
	switch {
	case got.Topic != want.Topic || got.Partition != want.Partition || got.Offset != want.Offset:
		return fmt.Sprintf("is %s/%d at %d, want %s/%d at %d", got.Topic, got.Partition, got.Offset, want.Topic, want.Partition, want.Offset)
	case !want.Timestamp.IsZero() && !got.Timestamp.Equal(want.Timestamp):
		return fmt.Sprintf("time is %v, want %v", got.Timestamp, want.Timestamp)
	case !equal(got.Key, want.Key):
		return fmt.Sprintf("key is %s, want %s", blob(got.Key), blob(want.Key))
	case !equal(got.Value, want.Value):
		return fmt.Sprintf("value is %s, want %s", blob(got.Value), blob(want.Value))
	case len(got.Headers) != len(want.Headers):
		return fmt.Sprintf("has %d headers, want %d", len(got.Headers), len(want.Headers))
	}
	for i, h := range got.Headers {
		if w := want.Headers[i]; h.Name != w.Name || !equal(h.Value, w.Value) {
			return fmt.Sprintf("header %d is %q: %s, want %q: %s", i, h.Name, blob(h.Value), w.Name, blob(w.Value))
		}
	}
	return ""
}

func offsetsOf(ms []stream.Message) string {
	var s strings.Builder
	for i, m := range ms {
		if i == 20 {
			return s.String() + "…"
		}
		fmt.Fprintf(&s, "%d/%d ", m.Partition, m.Offset)
	}
	return s.String()
}

// wantKind fails the test unless err is an Error of a kind.
func (b *bench) wantKind(what string, err error, kind stream.Kind) {
	b.Helper()
	if e, ok := errors.AsType[*stream.Error](err); !ok || e.Kind != kind {
		b.Fatalf("%s: got %v, want an error of kind %d", what, err, kind)
	}
}

// exists reports whether the brokers know a topic.
func (b *bench) exists(topic string) bool {
	b.Helper()
	topics, err := b.Cluster.Topics(b.ctx)
	b.must(err)
	return slices.Contains(topics, topic)
}

// awkward are records whose keys, values and headers are what other software trips over.
func awkward(topic string) []stream.Record {
	partition := new(int32)
	at := time.Now().UTC().Truncate(time.Millisecond)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16-64) // 1 MiB less what the record takes beside it
	rs := []stream.Record{
		{Key: nil, Value: nil},
		{Key: nil, Value: []byte{}},
		{Key: []byte{}, Value: nil},
		{Key: []byte{}, Value: []byte{}},
		{Key: []byte("k"), Value: []byte{0, 255, '\r', '\n', 0xC3}},
		{Key: []byte{0xff, 0}, Value: []byte("line\rline\nline\r\nend")},
		{Value: large},
		{Value: []byte("headers"), Headers: []stream.Header{
			{Name: "null", Value: nil}, {Name: "empty", Value: []byte{}}, {Name: "twice", Value: []byte("1")},
			{Name: "twice", Value: []byte("2")}, {Name: "", Value: []byte("no name")}, {Name: "a\r\nb", Value: []byte{0, 1, 2}},
			{Name: "large", Value: bytes.Repeat([]byte("h"), 40_000)},
		}},
		{Key: []byte("last"), Value: []byte("last")},
	}
	for i := range rs {
		rs[i].Topic, rs[i].Partition, rs[i].Timestamp = topic, partition, at.Add(time.Duration(i)*time.Millisecond)
	}
	return rs
}
