package devbroker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Codec is how a batch of records is compressed.
type Codec int

// The codecs of Kafka's record batches.
const (
	Uncompressed Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

// Codecs are all of them.
func Codecs() []Codec { return []Codec{Uncompressed, Gzip, Snappy, LZ4, Zstd} }

func (c Codec) String() string { return [...]string{"none", "gzip", "snappy", "lz4", "zstd"}[c] }

func (c Codec) kgo() kgo.CompressionCodec {
	return [...]kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	}[c]
}

// Record is one to be written.
type Record struct {
	Topic     string
	Partition int32
	Key       []byte // nil: none
	Value     []byte // nil: a tombstone
	Headers   []Header
	Timestamp time.Time // zero: now
}

// Header is one header of a record. A nil Value is a null header value.
type Header struct {
	Name  string
	Value []byte
}

// Produce writes records and returns the offset of each, in order, once all replicas have them.
func (a *Admin) Produce(ctx context.Context, records ...Record) ([]int64, error) {
	return a.ProduceCompressed(ctx, Uncompressed, records...)
}

// ProduceCompressed is Produce with a codec.
func (a *Admin) ProduceCompressed(ctx context.Context, codec Codec, records ...Record) ([]int64, error) {
	client, err := a.client(codec)
	if err != nil {
		return nil, err
	}
	a.writing.RLock()
	defer a.writing.RUnlock()
	return produce(ctx, client, records)
}

func produce(ctx context.Context, client *kgo.Client, records []Record) ([]int64, error) {
	out := make([]*kgo.Record, len(records))
	for i, r := range records {
		out[i] = &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
		for _, h := range r.Headers {
			out[i].Headers = append(out[i].Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
	}
	if err := client.ProduceSync(ctx, out...).FirstErr(); err != nil {
		return nil, fmt.Errorf("produce: %w", err)
	}
	offsets := make([]int64, len(out))
	for i, r := range out {
		offsets[i] = r.Offset
	}
	return offsets, nil
}

// Transaction writes records that readers of committed ones see when it commits, or never.
type Transaction struct {
	client *kgo.Client
}

// Begin begins a transaction. An open one of the same id is aborted by it. Commit or Abort ends it and its connections.
func (a *Admin) Begin(_ context.Context, id string) (*Transaction, error) {
	client, err := a.client(Uncompressed, kgo.TransactionalID(id), kgo.TransactionTimeout(time.Minute))
	if err != nil {
		return nil, err
	}
	if err := client.BeginTransaction(); err != nil {
		client.Close()
		return nil, fmt.Errorf("begin transaction %s: %w", id, err)
	}
	return &Transaction{client}, nil
}

// Produce writes records in the transaction and returns their offsets.
func (t *Transaction) Produce(ctx context.Context, records ...Record) ([]int64, error) {
	return produce(ctx, t.client, records)
}

// Commit commits. The marker stands in every partition by the time that readers see it, which may be a moment later.
func (t *Transaction) Commit(ctx context.Context) error { return t.end(ctx, kgo.TryCommit) }

// Abort aborts.
func (t *Transaction) Abort(ctx context.Context) error { return t.end(ctx, kgo.TryAbort) }

func (t *Transaction) end(ctx context.Context, how kgo.TransactionEndTry) error {
	defer t.client.Close()
	return errors.Join(t.client.Flush(ctx), t.client.EndTransaction(ctx, how))
}
