package streamtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// TestHistory holds env.History to what [stream.History] promises.
func TestHistory(t *testing.T, env Env) {
	tests := map[string]func(*bench){
		"any part of a partition":             historyParts,
		"pages of a bounded size":             historyPages,
		"first message larger than the bound": historyLargeMessage,
		"any key, value and header":           historyAwkwardRecords,
		"130 partitions":                      historyManyPartitions,
		"partition that ends in a marker":     historyEndsInMarker,
		"all aborted":                         historyAllAborted,
		"transactions that mix":               historyMixedTransactions,
		"compacted":                           historyCompacted,
		"before the log's start":              historyRetention,
		"beyond the log's end":                historyBeyondEnd,
		"does this offset exist":              historyProbes,
		"another incarnation":                 historyRecreated,
		"partition added since the last read": historyAddedPartition,
		"unknown topic":                       historyUnknownTopic,
		"internal topic":                      historyInternalTopic,
		"many at once":                        historyConcurrent,
		"not delayed by an idle live reader":  historyUndelayed,
		"offsets at the ends":                 historyOffsets,
		"offsets at a time":                   historyOffsetsAtTime,
		"offsets before an open transaction":  historyOffsetsInTransaction,
		"end of its context":                  historyEnds,
	}
	for _, codec := range Codecs() {
		tests["compressed by "+codec] = func(b *bench) { historyCodec(b, codec) }
	}
	cases(t, env, tests)
}

// incarnation returns the topic's.
func (b *bench) incarnation(topic string) stream.Incarnation {
	b.Helper()
	at, err := b.History.Offsets(b.ctx, topic, stream.Earliest)
	b.must(err)
	return at.Incarnation
}

// page reads once, and checks of the answer what holds for all.
func (b *bench) page(req stream.HistoryRequest) []stream.PartBatch {
	b.Helper()
	parts, err := b.History.Read(b.ctx, req)
	b.must(err)
	moved, bytes, count := false, int64(0), 0
	for _, part := range parts {
		i := slices.IndexFunc(req.Ranges, func(r stream.Range) bool { return r.Partition == part.Partition })
		if i < 0 {
			b.Fatalf("a part of partition %d, which wasn't asked for", part.Partition)
		}
		r := req.Ranges[i]
		at := r.From
		if part.Gap != nil {
			at = part.Gap.To
		}
		for _, m := range part.Messages {
			if m.Offset < at || m.Offset >= r.To {
				b.Fatalf("partition %d: message at %d, want one from %d up to %d", r.Partition, m.Offset, at, r.To)
			}
			at = m.Offset + 1
			bytes += m.Size()
			count++
		}
		if part.Next > r.To || part.Gap == nil && part.Next < at {
			b.Fatalf("partition %d: next is %d; stands at %d of %d to %d", r.Partition, part.Next, at, r.From, r.To)
		}
		moved = moved || part.Next != r.From || r.From == r.To
	}
	if !moved {
		b.Fatalf("nothing moved: %+v for %+v", parts, req.Ranges)
	}
	if bytes > req.MaxBytes && count > 1 {
		b.Fatalf("%d messages hold %d bytes, want %d at most", count, bytes, req.MaxBytes)
	}
	return parts
}

// all reads ranges to their ends and returns their messages by partition, the gaps, and how many reads it took.
func (b *bench) all(req stream.HistoryRequest) (ms []stream.Message, gaps []stream.Gap, reads int) {
	b.Helper()
	if req.MaxBytes == 0 {
		req.MaxBytes = 1 << 20
	}
	for len(req.Ranges) > 0 {
		if reads++; reads > 100_000 {
			b.Fatal("no end of it")
		}
		for _, part := range b.page(req) {
			i := slices.IndexFunc(req.Ranges, func(r stream.Range) bool { return r.Partition == part.Partition })
			if part.Gap != nil {
				gaps = append(gaps, *part.Gap)
			}
			ms = append(ms, part.Messages...)
			if req.Ranges[i].From = part.Next; part.Next >= req.Ranges[i].To {
				req.Ranges = slices.Delete(slices.Clone(req.Ranges), i, i+1)
			}
		}
	}
	slices.SortStableFunc(ms, func(a, b stream.Message) int { return int(a.Partition - b.Partition) })
	return ms, gaps, reads
}

// request asks for one range of a topic.
func (b *bench) request(topic string, partition int32, from, to int64) stream.HistoryRequest {
	b.Helper()
	return stream.HistoryRequest{
		Topic: topic, Incarnation: b.incarnation(topic), MaxBytes: 1 << 20,
		Ranges: []stream.Range{{Partition: partition, From: from, To: to}},
	}
}

// wantAll fails the test unless a range of a partition holds just these messages, and no gap.
func (b *bench) wantAll(what string, req stream.HistoryRequest, want []stream.Message) {
	b.Helper()
	got, gaps, _ := b.all(req)
	b.same(what, got, want)
	if len(gaps) > 0 {
		b.Fatalf("%s: gaps %+v, want none", what, gaps)
	}
}

func historyCodec(b *bench, codec string) {
	topic := b.topic(2, nil)
	want := b.compress(codec, records(topic, 1, 0, 500)...)
	req := b.request(topic, 1, 0, 500)
	b.wantAll(codec, req, want)
	req.Ranges[0] = stream.Range{Partition: 1, From: 123, To: 321}
	b.wantAll(codec+", from within a batch to within it", req, want[123:321])
}

func historyParts(b *bench) {
	topic := b.topic(3, nil)
	var all [3][]stream.Message
	for i := range 10 {
		for p := range int32(3) {
			all[p] = append(all[p], b.produce(records(topic, p, 20*i, 20*i+20)...)...)
		}
	}
	for range 20 {
		req := stream.HistoryRequest{Topic: topic, Incarnation: b.incarnation(topic), MaxBytes: 1 + rand.Int64N(1<<16)}
		var want []stream.Message
		for p := range all {
			from := rand.Int64N(200)
			to := from + 1 + rand.Int64N(200-from)
			req.Ranges = append(req.Ranges, stream.Range{Partition: int32(p), From: from, To: to})
			want = append(want, all[p][from:to]...)
		}
		b.wantAll(fmt.Sprint(req.Ranges), req, want)
	}
}

func historyPages(b *bench) {
	const n = 10_000
	topic := b.topic(2, nil)
	codecs := Codecs()
	var want []stream.Message
	for p := range int32(2) {
		for i := 0; i < n/2; i += 500 {
			want = append(want, b.compress(codecs[i/500%len(codecs)], records(topic, p, i, i+500)...)...)
		}
	}
	req := stream.HistoryRequest{Topic: topic, Incarnation: b.incarnation(topic), MaxBytes: 64 << 10, Ranges: []stream.Range{
		{Partition: 0, From: 0, To: n / 2}, {Partition: 1, From: 0, To: n / 2},
	}}
	got, gaps, reads := b.all(req)
	b.same("all pages", got, want)
	var size int64
	for i := range want {
		size += want[i].Size()
	}
	if least := size / req.MaxBytes; int64(reads) < least || len(gaps) > 0 {
		b.Fatalf("%d reads of %d bytes at most for %d bytes, and gaps %+v", reads, req.MaxBytes, size, gaps)
	}
}

func historyLargeMessage(b *bench) {
	topic := b.topic(1, nil)
	rs := awkward(topic)
	want := b.produce(rs...)
	req := b.request(topic, 0, 0, int64(len(rs)))
	req.MaxBytes = 1
	got, _, reads := b.all(req)
	b.same("one by one", got, want)
	if reads != len(want) {
		b.Fatalf("%d reads for %d messages each larger than the bound", reads, len(want))
	}
}

func historyAwkwardRecords(b *bench) {
	topic := b.topic(1, nil)
	rs := awkward(topic)
	want := b.produce(rs...)
	b.wantAll("history", b.request(topic, 0, 0, int64(len(rs))), want)
}

func historyManyPartitions(b *bench) {
	const partitions = 130
	topic := b.topic(partitions, nil)
	var rs []stream.Record
	req := stream.HistoryRequest{Topic: topic, Incarnation: b.incarnation(topic), MaxBytes: 256 << 10}
	for p := range int32(partitions) {
		rs = append(rs, records(topic, p, 0, 30)...)
		req.Ranges = append(req.Ranges, stream.Range{Partition: p, From: int64(p % 30), To: 30})
	}
	all := b.produce(rs...)
	slices.SortFunc(all, inOrder)
	want := slices.DeleteFunc(all, func(m stream.Message) bool { return m.Offset < int64(m.Partition%30) })
	b.wantAll("all partitions", req, want)
}

// transaction writes n records in one and ends it.
func (b *bench) transaction(topic string, from, to int, end func(Transaction, context.Context) error) []stream.Message {
	b.Helper()
	tx, err := b.Cluster.Begin(b.ctx)
	b.must(err)
	rs := records(topic, 0, from, to)
	offsets, err := tx.Produce(b.ctx, rs...)
	b.must(err)
	b.must(end(tx, b.ctx))
	return messages(rs, offsets)
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
		_, err = aborted.Produce(b.ctx, records(topic, 0, 1000, 1003)...)
		b.must(err)
		want = append(want, b.transaction(topic, 100*i, 100*i+3, Transaction.Commit)...)
		want = append(want, b.produce(records(topic, 0, 100*i+3, 100*i+5)...)...)
		_, err = aborted.Produce(b.ctx, records(topic, 0, 1003, 1006)...)
		b.must(err)
		b.must(aborted.Abort(b.ctx))
	}
	want = append(want, b.produce(records(topic, 0, 9000, 9001)...)...)
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
		rs := records(topic, 0, 100*i, 100*i+20)
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
	all := b.produce(records(topic, 0, 0, 20)...)
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
	b.produce(records(topic, 0, 0, 10)...)
	parts := b.page(b.request(topic, 0, 50, 60))
	want := stream.Gap{Topic: topic, Partition: 0, From: 50, To: 10, Reason: stream.GapTruncated}
	if len(parts) != 1 || parts[0].Gap == nil || *parts[0].Gap != want || parts[0].Next != 10 {
		b.Fatalf("%+v, want %+v", parts, want)
	}
}

func historyProbes(b *bench) {
	topic := b.topic(5, nil)
	for p := range int32(5) {
		b.produce(records(topic, p, 0, 10)...)
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

func historyRecreated(b *bench) {
	topic := b.topic(1, nil)
	b.produce(records(topic, 0, 0, 5)...)
	req := b.request(topic, 0, 0, 5)
	b.page(req)
	b.must(b.Cluster.DeleteTopic(b.ctx, topic))
	_, err := b.History.Read(b.ctx, req)
	b.wantKind("read what is gone", err, stream.NotFound)
	b.create(topic, 1, nil)
	want := b.produce(records(topic, 0, 100, 120)...) // longer than before
	_, err = b.History.Read(b.ctx, req)
	recreated, ok := errors.AsType[*stream.RecreatedError](err)
	if !ok {
		b.Fatalf("read of an earlier incarnation: got %v, want a RecreatedError", err)
	}
	now := b.request(topic, 0, 0, 20)
	if recreated.Now != now.Incarnation || recreated.Topic != topic {
		b.Fatalf("%v, want %s", recreated, now.Incarnation)
	}
	b.wantAll("the new topic", now, want)
	req.Ranges[0].From = 5 // a probe, too
	if _, err = b.History.Read(b.ctx, req); !errors.As(err, &recreated) {
		b.Fatalf("probe of an earlier incarnation: got %v, want a RecreatedError", err)
	}
}

func historyAddedPartition(b *bench) {
	topic := b.topic(1, nil)
	b.produce(records(topic, 0, 0, 5)...)
	b.page(b.request(topic, 0, 0, 5))
	b.must(b.Cluster.AddPartitions(b.ctx, topic, 3))
	want := b.produce(records(topic, 2, 0, 5)...)
	b.wantAll("the added one", b.request(topic, 2, 0, 5), want)
}

func historyUnknownTopic(b *bench) {
	b.wantNoHistory("contract.unknown." + fmt.Sprint(rand.Uint64()))
}

func historyInternalTopic(b *bench) { b.wantNoHistory("__consumer_offsets") }

// wantNoHistory fails the test unless all say at once that there is no such topic, and none makes one.
func (b *bench) wantNoHistory(topic string) {
	b.Helper()
	there := b.exists(topic)
	ctx, cancel := context.WithTimeout(b.ctx, 3*time.Second)
	defer cancel()
	_, err := b.History.Read(ctx, stream.HistoryRequest{Topic: topic, MaxBytes: 1, Ranges: []stream.Range{{To: 1}}})
	b.wantKind("read", err, stream.NotFound)
	_, err = b.History.Offsets(ctx, topic, stream.Latest)
	b.wantKind("offsets", err, stream.NotFound)
	if b.exists(topic) != there {
		b.Fatalf("topic %s exists because it was asked for", topic)
	}
}

func historyConcurrent(b *bench) {
	topic := b.topic(3, nil)
	var all []stream.Message
	for p := range int32(3) {
		all = append(all, b.compress("lz4", records(topic, p, 0, 300)...)...)
	}
	req := stream.HistoryRequest{Topic: topic, Incarnation: b.incarnation(topic), MaxBytes: 20 << 10}
	for p := range int32(3) {
		req.Ranges = append(req.Ranges, stream.Range{Partition: p, To: 300})
	}
	var work sync.WaitGroup
	for range 16 {
		work.Go(func() {
			mine := *b
			mine.T = b.T
			again := req
			again.Ranges = slices.Clone(req.Ranges)
			if got, err := mine.collect(again); err != nil || len(got) != len(all) {
				b.Errorf("%d messages and %v, want %d", len(got), err, len(all))
			}
		})
	}
	work.Wait()
}

// collect is all for a goroutine that isn't the test's own.
func (b *bench) collect(req stream.HistoryRequest) (ms []stream.Message, err error) {
	for len(req.Ranges) > 0 {
		parts, err := b.History.Read(b.ctx, req)
		if err != nil {
			return nil, err
		}
		for _, part := range parts {
			i := slices.IndexFunc(req.Ranges, func(r stream.Range) bool { return r.Partition == part.Partition })
			ms = append(ms, part.Messages...)
			if req.Ranges[i].From = part.Next; part.Next >= req.Ranges[i].To {
				req.Ranges = slices.Delete(req.Ranges, i, i+1)
			}
		}
	}
	return ms, nil
}

func historyUndelayed(b *bench) {
	topic := b.topic(1, nil)
	b.produce(records(topic, 0, 0, 10)...)
	b.follow(topic) // and then nothing comes: its request waits at the broker
	req := b.request(topic, 0, 0, 10)
	var took []time.Duration
	for range 41 {
		begun := time.Now()
		b.page(req)
		_, err := b.History.Offsets(b.ctx, topic, stream.Latest)
		b.must(err)
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > 120*time.Millisecond {
		b.Errorf("a read and a look-up took %v, as if they waited for the live reader", median)
	}
}

func historyOffsets(b *bench) {
	topic := b.topic(3, nil)
	b.produce(records(topic, 0, 0, 10)...)
	b.produce(records(topic, 2, 0, 4)...)
	b.must(b.Cluster.DeleteRecords(b.ctx, topic, 0, 3))
	for at, want := range map[stream.At][]int64{stream.Earliest: {3, 0, 0}, stream.Latest: {10, 0, 4}} {
		got, err := b.History.Offsets(b.ctx, topic, at)
		b.must(err)
		if got.Topic != topic || !slices.Equal(got.Next, want) {
			b.Errorf("at %d: %+v, want %v", at.Kafka(), got, want)
		}
	}
}

func historyOffsetsAtTime(b *bench) {
	topic := b.topic(3, nil)
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	for p := range int32(2) {
		rs := records(topic, p, 0, 10)
		for i := range rs {
			rs[i].Timestamp = at.Add(time.Duration(i) * time.Second)
		}
		b.produce(rs[:10-5*p]...)
	}
	for back, want := range map[time.Duration][]int64{
		-time.Second:            {0, 0, 0},
		0:                       {0, 0, 0},
		3 * time.Second:         {3, 3, 0},
		3500 * time.Millisecond: {4, 4, 0},
		7 * time.Second:         {7, 5, 0}, // nothing as late as that in partition 1: its end
		time.Hour:               {10, 5, 0},
	} {
		got, err := b.History.Offsets(b.ctx, topic, stream.AtTime(at.Add(back)))
		b.must(err)
		if !slices.Equal(got.Next, want) {
			b.Errorf("%v after the first message: %v, want %v", back, got.Next, want)
		}
	}
}

func historyOffsetsInTransaction(b *bench) {
	topic := b.topic(1, nil)
	b.produce(records(topic, 0, 0, 3)...)
	tx, err := b.Cluster.Begin(b.ctx)
	b.must(err)
	_, err = tx.Produce(b.ctx, records(topic, 0, 3, 6)...)
	b.must(err)
	b.produce(records(topic, 0, 6, 9)...)
	at, err := b.History.Offsets(b.ctx, topic, stream.Latest)
	b.must(err)
	if at.Next[0] != 3 {
		b.Errorf("latest is %d, want 3, where the open transaction begins", at.Next[0])
	}
	b.must(tx.Commit(b.ctx))
	b.end(topic, 0, 10)
}

func historyEnds(b *bench) {
	topic := b.topic(1, nil)
	req := b.request(topic, 0, 0, 10) // nothing there yet, but asked for: it waits
	ctx, cancel := context.WithTimeout(b.ctx, 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := b.History.Read(ctx, req); !errors.Is(err, context.DeadlineExceeded) {
		b.Errorf("got %v, want the context's error", err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		b.Errorf("Read returned %v after its context ended", took)
	}
}
