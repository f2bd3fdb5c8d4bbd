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
	want := b.compress(codec, Records(topic, 1, 0, 500)...)
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
			all[p] = append(all[p], b.produce(Records(topic, p, 20*i, 20*i+20)...)...)
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
			want = append(want, b.compress(codecs[i/500%len(codecs)], Records(topic, p, i, i+500)...)...)
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
		rs = append(rs, Records(topic, p, 0, 30)...)
		req.Ranges = append(req.Ranges, stream.Range{Partition: p, From: int64(p % 30), To: 30})
	}
	all := b.produce(rs...)
	slices.SortFunc(all, inOrder)
	want := slices.DeleteFunc(all, func(m stream.Message) bool { return m.Offset < int64(m.Partition%30) })
	b.wantAll("all partitions", req, want)
}

func historyRecreated(b *bench) {
	topic := b.topic(1, nil)
	b.produce(Records(topic, 0, 0, 5)...)
	req := b.request(topic, 0, 0, 5)
	b.page(req)
	b.must(b.Cluster.DeleteTopic(b.ctx, topic))
	_, err := b.History.Read(b.ctx, req)
	b.wantKind("read what is gone", err, stream.NotFound)
	b.create(topic, 1, nil)
	want := b.produce(Records(topic, 0, 100, 120)...) // longer than before
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
	b.produce(Records(topic, 0, 0, 5)...)
	b.page(b.request(topic, 0, 0, 5))
	b.must(b.Cluster.AddPartitions(b.ctx, topic, 3))
	want := b.produce(Records(topic, 2, 0, 5)...)
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
		all = append(all, b.compress("lz4", Records(topic, p, 0, 300)...)...)
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
