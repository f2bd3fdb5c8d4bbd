package streamtest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// transaction writes n records in one and ends it.
func (b *bench) transaction(topic string, from, to int, end func(Transaction, context.Context) error) []stream.Message {
	b.Helper()
	tx, err := b.Cluster.Begin(b.ctx)
	b.must(err)
	rs := Records(topic, 0, from, to)
	offsets, err := tx.Produce(b.ctx, rs...)
	b.must(err)
	b.must(end(tx, b.ctx))
	return Messages(rs, offsets)
}

// end waits until a partition has its end at an offset, and returns where it stands.
func (b *bench) end(topic string, partition int, end int64) int64 {
	b.Helper()
	deadline := time.Now().Add(patience)
	for {
		at, err := b.History.Offsets(b.ctx, topic, stream.Latest)
		b.must(err)
		if at.Next[partition] >= end {
			return at.Next[partition]
		}
		if time.Now().After(deadline) {
			b.Fatalf("partition %d ends at %d, want %d", partition, at.Next[partition], end)
		}
	}
}

func historyEndsInMarker(b *bench) {
	topic := b.topic(1, nil)
	want := b.transaction(topic, 0, 5, Transaction.Commit)
	end := b.end(topic, 0, 6)
	b.wantAll("with the marker", b.request(topic, 0, 0, end), want)
	b.wantAll("only the marker", b.request(topic, 0, 5, end), nil)
}

func historyAllAborted(b *bench) {
	topic := b.topic(1, nil)
	for range 3 {
		b.transaction(topic, 0, 5, Transaction.Abort)
	}
	end := b.end(topic, 0, 18)
	b.wantAll("nothing to be read", b.request(topic, 0, 0, end), nil)
	b.wantAll("a part of it", b.request(topic, 0, 2, 9), nil)
}

func historyMixedTransactions(b *bench) {
	topic := b.topic(1, nil)
	var want []stream.Message
	for i := range 4 {
		aborted, err := b.Cluster.Begin(b.ctx)
		b.must(err)
		_, err = aborted.Produce(b.ctx, Records(topic, 0, 1000, 1003)...)
		b.must(err)
		want = append(want, b.transaction(topic, 100*i, 100*i+3, Transaction.Commit)...)
		want = append(want, b.produce(Records(topic, 0, 100*i+3, 100*i+5)...)...)
		_, err = aborted.Produce(b.ctx, Records(topic, 0, 1003, 1006)...)
		b.must(err)
		b.must(aborted.Abort(b.ctx))
	}
	want = append(want, b.produce(Records(topic, 0, 9000, 9001)...)...)
	last := want[len(want)-1].Offset
	end := b.end(topic, 0, last+1)
	for from := int64(0); from <= last; from += 3 {
		rest := slices.DeleteFunc(slices.Clone(want), func(m stream.Message) bool { return m.Offset < from })
		b.wantAll(fmt.Sprint("from ", from), b.request(topic, 0, from, end), rest)
	}
}

func historyCompacted(b *bench) {
	topic := b.topic(1, CompactedTopic())
	var all []stream.Message
	for i := range 6 {
		rs := Records(topic, 0, 100*i, 100*i+20)
		for j := range rs[1:] {
			rs[j+1].Key = fmt.Appendf(nil, "the same %d", j%7)
		}
		rs[0].Key = fmt.Append(nil, "once ", i)
		for j := range rs { // none in the future: by their times the broker knows that a segment is over
			rs[j].Timestamp = time.Now().UTC().Truncate(time.Millisecond)
		}
		all = append(all, b.produce(rs...)...)
	}
	b.must(b.Cluster.Compact(b.ctx, topic))
	got, gaps, _ := b.all(b.request(topic, 0, 0, 120))
	if len(gaps) > 0 || len(got) >= len(all) {
		b.Fatalf("%d of %d messages and gaps %+v, want fewer and none", len(got), len(all), gaps)
	}
	for _, m := range got {
		if diff := differ(&m, &all[m.Offset]); diff != "" {
			b.Fatalf("offset %d: %s", m.Offset, diff)
		}
	}
	for to := int64(1); to <= 120; to += 7 { // it ends though the next record is beyond
		want := slices.DeleteFunc(slices.Clone(got), func(m stream.Message) bool { return m.Offset < to/2 || m.Offset >= to })
		b.wantAll(fmt.Sprintf("%d to %d", to/2, to), b.request(topic, 0, to/2, to), want)
	}
}

func historyRetention(b *bench) {
	topic := b.topic(2, nil)
	all := b.produce(Records(topic, 0, 0, 20)...)
	b.must(b.Cluster.DeleteRecords(b.ctx, topic, 0, 12))
	got, gaps, _ := b.all(b.request(topic, 0, 5, 20))
	b.same("after the gap", got, all[12:])
	want := stream.Gap{Topic: topic, Partition: 0, From: 5, To: 12, Reason: stream.GapRetention}
	if len(gaps) != 1 || gaps[0] != want {
		b.Fatalf("gaps %+v, want %+v", gaps, want)
	}
	if _, gaps, _ = b.all(b.request(topic, 0, 3, 8)); len(gaps) != 1 || gaps[0].From != 3 || gaps[0].To < 8 {
		b.Fatalf("a range all of which is lost: gaps %+v, want one from 3 to 8 or beyond", gaps)
	}
}

func historyBeyondEnd(b *bench) {
	topic := b.topic(1, nil)
	b.produce(Records(topic, 0, 0, 10)...)
	parts := b.page(b.request(topic, 0, 50, 60))
	want := stream.Gap{Topic: topic, Partition: 0, From: 50, To: 10, Reason: stream.GapTruncated}
	if len(parts) != 1 || parts[0].Gap == nil || *parts[0].Gap != want || parts[0].Next != 10 {
		b.Fatalf("%+v, want %+v", parts, want)
	}
}

func historyProbes(b *bench) {
	topic := b.topic(5, nil)
	for p := range int32(5) {
		b.produce(Records(topic, p, 0, 10)...)
	}
	b.must(b.Cluster.DeleteRecords(b.ctx, topic, 3, 6))
	req := stream.HistoryRequest{Topic: topic, Incarnation: b.incarnation(topic), MaxBytes: 1 << 20, Ranges: []stream.Range{
		{Partition: 0, From: 0, To: 0}, {Partition: 1, From: 5, To: 5}, {Partition: 2, From: 10, To: 10}, // within, or at an end
		{Partition: 3, From: 2, To: 2},   // before the start
		{Partition: 4, From: 11, To: 11}, // beyond the end
	}}
	var parts []stream.PartBatch
	for len(req.Ranges) > 0 {
		for _, part := range b.page(req) {
			parts = append(parts, part)
			req.Ranges = slices.DeleteFunc(req.Ranges, func(r stream.Range) bool { return r.Partition == part.Partition })
		}
	}
	for _, part := range parts {
		var want *stream.Gap
		switch part.Partition {
		case 3:
			want = &stream.Gap{Topic: topic, Partition: 3, From: 2, To: 6, Reason: stream.GapRetention}
		case 4:
			want = &stream.Gap{Topic: topic, Partition: 4, From: 11, To: 10, Reason: stream.GapTruncated}
		}
		if len(part.Messages) > 0 || (want == nil) != (part.Gap == nil) || want != nil && *part.Gap != *want {
			b.Errorf("partition %d: %d messages and gap %+v, want none and %+v", part.Partition, len(part.Messages), part.Gap, want)
		}
	}
}
