package kafka

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
)

// decoded returns a block as it looks when it has come over the wire.
func decoded(t *testing.T, block *sarama.FetchResponseBlock) *sarama.FetchResponseBlock {
	t.Helper()
	setSarama() // no client does it here
	broker := sarama.NewMockBroker(t, 1)
	defer broker.Close()
	broker.Returns(&sarama.FetchResponse{Version: 11, Blocks: map[string]map[int32]*sarama.FetchResponseBlock{"topic": {0: block}}})
	cfg := sarama.NewConfig()
	cfg.Version, cfg.ApiVersionsRequest, cfg.MetricRegistry = protocol, false, noMetrics{}
	b := sarama.NewBroker(broker.Addr())
	check(t, b.Open(cfg))
	defer b.Close()
	request := &sarama.FetchRequest{Version: 11, MaxBytes: 1 << 20}
	request.AddBlock("topic", 0, 0, 1<<20, -1)
	return must[*sarama.FetchResponse](t)(b.Fetch(request)).GetBlock("topic", 0)
}

var epoch = time.UnixMilli(1_700_000_000_000).UTC()

// batch returns a batch of records at offsets; last is the batch's last offset, which may be that of none.
func batch(last int64, offsets ...int64) *sarama.RecordBatch {
	b := &sarama.RecordBatch{Version: 2, FirstTimestamp: epoch, MaxTimestamp: epoch.Add(time.Hour), ProducerID: 7, FirstOffset: last}
	if len(offsets) > 0 {
		b.FirstOffset = offsets[0]
	}
	b.LastOffsetDelta = int32(last - b.FirstOffset)
	for _, o := range offsets {
		b.Records = append(b.Records, &sarama.Record{
			OffsetDelta: o - b.FirstOffset, TimestampDelta: time.Duration(o) * time.Millisecond,
			Key: fmt.Append(nil, "key ", o), Value: fmt.Append(nil, "value ", o),
			Headers: []*sarama.RecordHeader{{Key: []byte("h"), Value: fmt.Append(nil, o)}},
		})
	}
	return b
}

func blockOf(batches ...*sarama.RecordBatch) *sarama.FetchResponseBlock {
	block := &sarama.FetchResponseBlock{PreferredReadReplica: -1}
	for _, b := range batches {
		block.RecordsSet = append(block.RecordsSet, &sarama.Records{RecordBatch: b})
	}
	return block
}

func offsets(ms []stream.Message) []int64 {
	var os []int64
	for _, m := range ms {
		os = append(os, m.Offset)
	}
	return os
}

func TestRecords(t *testing.T) {
	transaction := func(b *sarama.RecordBatch, producer int64) *sarama.RecordBatch {
		b.IsTransactional, b.ProducerID = true, producer
		return b
	}
	marker := func(offset, producer int64, kind byte) *sarama.RecordBatch {
		b := transaction(batch(offset, offset), producer)
		b.Control, b.Records[0].Key = true, []byte{0, 0, 0, kind}
		return b
	}
	const abort, commit = 0, 1
	aborted := func(block *sarama.FetchResponseBlock, transactions ...*sarama.AbortedTransaction) *sarama.FetchResponseBlock {
		block.AbortedTransactions = transactions
		return block
	}
	all := span{from: 0, to: forever, budget: forever}
	for name, tt := range map[string]struct {
		block *sarama.FetchResponseBlock
		span  span
		want  []int64
		next  int64
	}{
		"all of two batches":             {blockOf(batch(2, 0, 1, 2), batch(4, 3, 4)), all, []int64{0, 1, 2, 3, 4}, 5},
		"nothing":                        {blockOf(), span{9, forever, forever, false}, nil, 9},
		"from within a batch":            {blockOf(batch(4, 0, 1, 2, 3, 4)), span{3, forever, forever, false}, []int64{3, 4}, 5},
		"to within a batch":              {blockOf(batch(4, 0, 1, 2, 3, 4)), span{1, 3, forever, false}, []int64{1, 2}, 3},
		"to a hole":                      {blockOf(batch(9, 0, 1, 9)), span{0, 5, forever, false}, []int64{0, 1}, 5},
		"all beyond its end":             {blockOf(batch(9, 8, 9)), span{2, 5, forever, false}, nil, 5},
		"hole at a batch's end":          {blockOf(batch(9, 5, 6)), span{5, forever, forever, false}, []int64{5, 6}, 10},
		"hole between batches":           {blockOf(batch(1, 0, 1), batch(9, 8, 9)), all, []int64{0, 1, 8, 9}, 10},
		"no record left of the last":     {blockOf(batch(1, 0, 1), batch(9)), all, []int64{0, 1}, 2}, // the next fetch begins with it
		"no record left of any":          {blockOf(batch(5), batch(9)), all, nil, 10},
		"no record left, to within":      {blockOf(batch(9)), span{3, 7, forever, false}, nil, 7},
		"committed":                      {blockOf(transaction(batch(1, 0, 1), 1), marker(2, 1, commit)), all, []int64{0, 1}, 3},
		"aborted":                        {aborted(blockOf(transaction(batch(1, 0, 1), 1), marker(2, 1, abort)), &sarama.AbortedTransaction{ProducerID: 1}), all, nil, 3},
		"aborted, then committed":        {aborted(blockOf(transaction(batch(1, 0, 1), 1), marker(2, 1, abort), transaction(batch(4, 3, 4), 1), marker(5, 1, commit)), &sarama.AbortedTransaction{ProducerID: 1}), all, []int64{3, 4}, 6},
		"committed, then aborted":        {aborted(blockOf(transaction(batch(1, 0, 1), 1), marker(2, 1, commit), transaction(batch(4, 3, 4), 1), marker(5, 1, abort)), &sarama.AbortedTransaction{ProducerID: 1, FirstOffset: 3}), all, []int64{0, 1}, 6},
		"aborted among others":           {aborted(blockOf(transaction(batch(0, 0), 1), transaction(batch(1, 1), 2), batch(2, 2), marker(3, 1, abort), marker(4, 2, commit)), &sarama.AbortedTransaction{ProducerID: 1}), all, []int64{1, 2}, 5},
		"two aborted, listed late first": {aborted(blockOf(transaction(batch(0, 0), 1), marker(1, 1, abort), transaction(batch(2, 2), 2), marker(3, 2, abort), batch(4, 4)), &sarama.AbortedTransaction{ProducerID: 2, FirstOffset: 2}, &sarama.AbortedTransaction{ProducerID: 1}), all, []int64{4}, 5},
		"aborted, seen from within":      {aborted(blockOf(transaction(batch(4, 3, 4), 1), marker(5, 1, abort)), &sarama.AbortedTransaction{ProducerID: 1, FirstOffset: 0}), span{4, forever, forever, false}, nil, 6},
		"another's aborted, not in one":  {aborted(blockOf(batch(1, 0, 1)), &sarama.AbortedTransaction{ProducerID: 7}), all, []int64{0, 1}, 2},
		"no budget":                      {blockOf(batch(1, 0, 1)), span{0, forever, 0, false}, nil, 0},
		"no budget but for the first":    {blockOf(batch(1, 0, 1)), span{0, forever, 0, true}, []int64{0}, 1},
		"budget for two":                 {blockOf(batch(2, 0, 1, 2)), span{0, forever, 400, false}, []int64{0, 1}, 2},
		"budget gone before a hole":      {blockOf(batch(1, 0), batch(9, 8)), span{0, forever, 200, false}, []int64{0}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			var r recordReader
			page := r.read(decoded(t, tt.block), "topic", 0, tt.span)
			if !slices.Equal(offsets(page.messages), tt.want) || page.next != tt.next {
				t.Errorf("messages %v and next %d, want %v and %d", offsets(page.messages), page.next, tt.want, tt.next)
			}
			var size int64
			for _, m := range page.messages {
				size += m.Size()
				if string(m.Value) != fmt.Sprint("value ", m.Offset) || string(m.Key) != fmt.Sprint("key ", m.Offset) {
					t.Errorf("offset %d has key %q and value %q", m.Offset, m.Key, m.Value)
				}
				if want := epoch.Add(time.Duration(m.Offset) * time.Millisecond); !m.Timestamp.Equal(want) {
					t.Errorf("offset %d is of %v, want %v", m.Offset, m.Timestamp, want)
				}
			}
			if size != page.bytes {
				t.Errorf("the page says that it holds %d bytes, and holds %d", page.bytes, size)
			}
		})
	}
}

func TestRecordTimes(t *testing.T) {
	appended, none := batch(0, 0), batch(0, 0)
	appended.LogAppendTime = true
	none.FirstTimestamp, none.MaxTimestamp = time.Time{}, time.Time{}
	var r recordReader
	for name, tt := range map[string]struct {
		batch *sarama.RecordBatch
		want  time.Time
	}{
		"created":  {batch(0, 0), epoch},
		"appended": {appended, epoch.Add(time.Hour)},
		"none":     {none, time.Time{}},
	} {
		page := r.read(decoded(t, blockOf(tt.batch)), "topic", 0, span{0, forever, forever, false})
		if got := page.messages[0].Timestamp; !got.Equal(tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// Old brokers, and logs as old as they, have messages of formats 0 and 1.
func TestLegacyRecords(t *testing.T) {
	for name, tt := range map[string]struct {
		version    int8
		compressed bool
		want       []int64
	}{
		"format 0":             {0, false, []int64{11, 12}},
		"format 1":             {1, false, []int64{11, 12}},
		"format 0, compressed": {0, true, []int64{11, 12}},
		"format 1, compressed": {1, true, []int64{11, 12}},
	} {
		t.Run(name, func(t *testing.T) {
			set := &sarama.MessageSet{}
			for i := range int64(3) {
				m := &sarama.Message{Version: tt.version, Key: []byte("k"), Value: fmt.Append(nil, "value ", 10+i), Timestamp: epoch}
				offset := 10 + i
				if tt.compressed && tt.version == 1 {
					offset = i // relative to the outer's
				}
				set.Messages = append(set.Messages, &sarama.MessageBlock{Offset: offset, Msg: m})
			}
			if tt.compressed {
				set = &sarama.MessageSet{Messages: []*sarama.MessageBlock{{Offset: 12, Msg: &sarama.Message{Version: tt.version, Timestamp: epoch, Set: set}}}}
			}
			var r recordReader
			block := &sarama.FetchResponseBlock{RecordsSet: []*sarama.Records{{MsgSet: set}}}
			if !tt.compressed {
				block = decoded(t, block)
			}
			page := r.read(block, "topic", 0, span{11, forever, forever, false})
			if !slices.Equal(offsets(page.messages), tt.want) || page.next != 13 {
				t.Errorf("messages %v and next %d, want %v and 13", offsets(page.messages), page.next, tt.want)
			}
			for _, m := range page.messages {
				if string(m.Value) != fmt.Sprint("value ", m.Offset) {
					t.Errorf("offset %d has value %q", m.Offset, m.Value)
				}
			}
		})
	}
}

// A kept message mustn't keep the answer that it came in, nor more than a chunk of its neighbours.
func TestKeptMessagesShareLittle(t *testing.T) {
	b := batch(-1)
	b.FirstOffset = 0
	for i := range int64(1000) {
		b.Records = append(b.Records, &sarama.Record{OffsetDelta: i, Value: []byte(strings.Repeat("x", 1000))})
	}
	b.LastOffsetDelta = 999
	block := decoded(t, blockOf(b))
	raw := block.RecordsSet[0].RecordBatch.Records[500].Value
	var r recordReader
	page := r.read(block, "topic", 0, span{0, forever, forever, false})
	if &page.messages[500].Value[0] == &raw[0] {
		t.Error("a message's value is a part of the answer")
	}
	if n := cap(page.messages[500].Value); n != 1000 {
		t.Errorf("a value of 1000 bytes has room for %d", n)
	}
	small := r.read(decoded(t, blockOf(batch(0, 0))), "topic", 0, span{0, forever, forever, false})
	if n := cap(small.messages); n != 1 {
		t.Errorf("a page of 1 message has room for %d", n)
	}
}

func BenchmarkRecords(b *testing.B) {
	raw := make([]*sarama.Record, 100)
	for i := range raw {
		raw[i] = &sarama.Record{
			OffsetDelta: int64(i), Key: []byte("a key of some bytes"), Value: []byte(strings.Repeat("v", 256)),
			Headers: []*sarama.RecordHeader{{Key: []byte("event-type"), Value: []byte("order.placed.v1")}, {Key: []byte("event-version"), Value: []byte("1")}},
		}
	}
	var r recordReader
	b.ReportAllocs()
	for b.Loop() {
		rb := &sarama.RecordBatch{LastOffsetDelta: 99, Records: slices.Clone(raw)}
		r.read(blockOf(rb), "topic", 0, span{0, forever, forever, false})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/message")
}

// A value of nothing is a part of the answer's bytes as it comes, but not as it is kept.
func TestEmptyValuesHoldNothingOfTheAnswer(t *testing.T) {
	answer := make([]byte, 1<<20)
	b := batch(0, 0)
	b.Records[0].Key, b.Records[0].Value, b.Records[0].Headers = nil, answer[:0], nil
	messages := new(recordReader).read(blockOf(b), "topic", 0, span{to: forever, budget: forever}).messages
	if len(messages) != 1 || messages[0].Key != nil || messages[0].Value == nil || len(messages[0].Value) != 0 {
		t.Fatalf("read %+v, want one message with no key and an empty value", messages)
	}
	if unsafe.SliceData(messages[0].Value) == unsafe.SliceData(answer) {
		t.Error("the empty value holds the answer that it came in")
	}
}
