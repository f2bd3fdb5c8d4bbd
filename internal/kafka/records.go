package kafka

import (
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
)

// span is what is wanted of a partition: the offsets from from up to, not including, to, as long as their messages
// together hold no more than budget bytes of memory.
type span struct {
	from, to int64
	budget   int64
	must     bool // the first message comes even if it is larger than budget
}

// forever is the end of a span without one, and the budget of a span without a bound.
const forever = math.MaxInt64

// page is what a fetched block has of a span.
type page struct {
	messages []stream.Message
	next     int64 // where to go on: beyond the last message, and beyond what is none (markers, aborted, compacted)
	bytes    int64 // what messages hold of memory
	full     bool  // the budget ended it
}

// recordReader turns fetched blocks into messages. What it returns shares no memory with the response, so that a
// message which is kept doesn't keep a whole response. It is used by one goroutine.
type recordReader struct {
	names map[string]string // of headers: a few, repeated in every record
}

const (
	maxNames    = 256
	maxNameSize = 64
	chunkSize   = 64 << 10 // the most that one kept message can hold of its neighbours
)

// read returns what block has of s. Control records are none, nor are those of transactions that the block lists as
// aborted. A batch that the answer's bound cut off is left to the next fetch.
func (r *recordReader) read(block *sarama.FetchResponseBlock, topic string, partition int32, s span) page {
	pr := pageReader{
		recordReader: r,
		span:         s,
		proto:        stream.Message{Topic: topic, Partition: partition},
		page:         page{next: s.from},
		aborted:      slices.Clone(block.AbortedTransactions),
	}
	slices.SortFunc(pr.aborted, func(a, b *sarama.AbortedTransaction) int {
		return int(min(max(a.FirstOffset-b.FirstOffset, -1), 1))
	})
	for _, set := range block.RecordsSet {
		switch {
		case pr.page.full || pr.page.next >= s.to:
			return pr.page
		case set.RecordBatch != nil:
			pr.readBatch(set.RecordBatch)
		case set.MsgSet != nil:
			pr.readLegacy(set.MsgSet)
		}
	}
	if len(block.RecordsSet) == 0 {
		if end, ok := emptyBatchesEnd(block); ok {
			pr.advance(end)
		}
	}
	return pr.page
}

// emptyBatchesEnd returns where the block's last batch ends. It matters when no batch has a record: compaction leaves
// the head of a batch behind without one, to remember its producer by, and sarama leaves such a batch out of RecordsSet
// and keeps where it ends to itself.
func emptyBatchesEnd(block *sarama.FetchResponseBlock) (int64, bool) {
	f := reflect.ValueOf(block).Elem().FieldByName("recordsNextOffset")
	if !f.IsValid() || f.IsNil() {
		return 0, false
	}
	return f.Elem().Int(), true
}

// pageReader reads one block.
type pageReader struct {
	*recordReader
	span
	page    page
	proto   stream.Message
	aborted []*sarama.AbortedTransaction // those not yet begun, by first offset
	dropped map[int64]bool               // producers in an aborted transaction where the reader is
	bytes   []byte                       // memory for what is kept, taken off its front
	uncut   int                          // bytes that the batch's records still need
	headers []stream.Header
}

// advance moves the page's end up to next, within the span.
func (r *pageReader) advance(next int64) {
	r.page.next = max(r.page.next, min(next, r.to))
}

func (r *pageReader) readBatch(b *sarama.RecordBatch) {
	if b.PartialTrailingRecord { // it is the answer's last; what lies before it is empty
		r.advance(b.FirstOffset)
		return
	}
	if b.Control {
		r.begin(b.LastOffset())
		if endsAborted(b) {
			delete(r.dropped, b.ProducerID)
		}
		r.advance(b.LastOffset() + 1)
		return
	}
	r.begin(b.LastOffset())
	if b.IsTransactional && r.dropped[b.ProducerID] {
		r.advance(b.LastOffset() + 1)
		return
	}
	records := slices.DeleteFunc(b.Records, func(rec *sarama.Record) bool {
		offset := b.FirstOffset + rec.OffsetDelta
		return offset < r.page.next || offset >= r.to
	})
	r.reserve(records)
	for i, rec := range records {
		m := r.proto
		m.Offset = b.FirstOffset + rec.OffsetDelta
		m.Timestamp = b.FirstTimestamp.Add(rec.TimestampDelta).UTC()
		if b.LogAppendTime {
			m.Timestamp = b.MaxTimestamp.UTC()
		}
		m.Key, m.Value, m.Headers = rec.Key, rec.Value, nil
		if !r.keep(m, rec.Headers, len(records)-i) {
			return
		}
	}
	r.advance(b.LastOffset() + 1)
}

// begin enters the aborted transactions that began at or before an offset.
func (r *pageReader) begin(offset int64) {
	for len(r.aborted) > 0 && r.aborted[0].FirstOffset <= offset {
		if r.dropped == nil {
			r.dropped = map[int64]bool{}
		}
		r.dropped[r.aborted[0].ProducerID] = true
		r.aborted = r.aborted[1:]
	}
}

// endsAborted reports whether a control batch is the marker of an aborted transaction: the second number of its
// record's key, its type, is 0.
func endsAborted(b *sarama.RecordBatch) bool {
	return len(b.Records) > 0 && len(b.Records[0].Key) >= 4 && binary.BigEndian.Uint16(b.Records[0].Key[2:]) == 0
}

// readLegacy reads the formats before Kafka 0.11, which brokers of today still hold on disk. In format 1 the offsets
// inside a compressed message count from its first; in format 0 they are absolute.
func (r *pageReader) readLegacy(set *sarama.MessageSet) {
	for _, outer := range set.Messages {
		inner := outer.Messages()
		var base int64
		if n := len(inner); n > 0 && outer.Msg.Set != nil && outer.Msg.Version >= 1 {
			base = outer.Offset - inner[n-1].Offset
		}
		for i, block := range inner {
			m := r.proto
			m.Offset = base + block.Offset
			if m.Offset < r.page.next || m.Offset >= r.to {
				continue
			}
			m.Key, m.Value, m.Timestamp = block.Msg.Key, block.Msg.Value, legacyTime(outer.Msg, block.Msg)
			if !r.keep(m, nil, len(inner)-i) {
				return
			}
		}
		r.advance(outer.Offset + 1)
	}
}

func legacyTime(outer, inner *sarama.Message) time.Time {
	if outer.LogAppendTime {
		return outer.Timestamp.UTC()
	}
	return inner.Timestamp.UTC()
}

// keep adds a copy of m to the page, or reports that it is over the budget. left is how many records the batch still
// has.
func (r *pageReader) keep(m stream.Message, headers []*sarama.RecordHeader, left int) bool {
	if len(headers) > 0 {
		m.Headers = r.takeHeaders(len(headers))
		for i, h := range headers {
			m.Headers[i] = stream.Header{Name: r.name(h.Key), Value: h.Value}
		}
	}
	size := m.Size()
	if r.page.bytes+size > r.budget && (len(r.page.messages) > 0 || !r.must) {
		r.page.full = true
		r.page.next = max(r.page.next, m.Offset)
		return false
	}
	m.Key, m.Value = r.copy(m.Key), r.copy(m.Value)
	for i := range m.Headers {
		m.Headers[i].Value = r.copy(m.Headers[i].Value)
	}
	if len(r.page.messages) == cap(r.page.messages) {
		r.page.messages = slices.Grow(r.page.messages, int(min(int64(left), (r.budget-r.page.bytes)/size+1)))
	}
	r.page.messages = append(r.page.messages, m)
	r.page.bytes += size
	r.advance(m.Offset + 1)
	return true
}

// reserve notes how much memory the records' bytes take, and makes that of their headers.
func (r *pageReader) reserve(records []*sarama.Record) {
	var headers int
	r.bytes, r.uncut = nil, 0
	for _, rec := range records {
		r.uncut += len(rec.Key) + len(rec.Value)
		for _, h := range rec.Headers {
			r.uncut += len(h.Value)
		}
		headers += len(rec.Headers)
	}
	r.headers = make([]stream.Header, min(headers, chunkSize/64))
}

// copy returns a copy of b that keeps nil and empty apart. Small ones share chunks of memory.
func (r *pageReader) copy(b []byte) []byte {
	n := len(b)
	switch {
	case b == nil:
		return nil
	case n == 0:
		return []byte{} // b[:0:0] would hold all that b is a part of
	}
	if n > len(r.bytes) {
		size := int(min(int64(r.uncut), chunkSize, max(r.budget-r.page.bytes, 0)))
		if n > chunkSize/4 || n > size {
			r.uncut -= n
			return append(make([]byte, 0, n), b...)
		}
		r.bytes = make([]byte, size)
	}
	c := r.bytes[:n:n]
	r.bytes, r.uncut = r.bytes[n:], r.uncut-n
	copy(c, b)
	return c
}

func (r *pageReader) takeHeaders(n int) []stream.Header {
	if n > len(r.headers) {
		return make([]stream.Header, n)
	}
	h := r.headers[:n:n]
	r.headers = r.headers[n:]
	return h
}

// name returns a header's name, the same string for the same name.
func (r *recordReader) name(b []byte) string {
	if name, ok := r.names[string(b)]; ok {
		return name
	}
	name := string(b)
	if len(r.names) < maxNames && len(name) <= maxNameSize {
		if r.names == nil {
			r.names = map[string]string{}
		}
		r.names[name] = name
	}
	return name
}
