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

// TestSource holds env.Source to what [stream.Source] promises.
func TestSource(t *testing.T, env Env) {
	tests := map[string]func(*bench){
		"begins at the end":                          sourceBeginsAtTheEnd,
		"misses nothing published after its start":   sourceMissesNothingAfterStart,
		"several reads of one topic":                 sourceReadsTwice,
		"any key, value and header":                  sourceAwkwardRecords,
		"130 partitions":                             sourceManyPartitions,
		"order within each partition":                sourceOrder,
		"open transaction committed after the start": sourceOpenTransaction,
		"aborted transaction":                        sourceAbortedTransaction,
		"partition that ends in a marker":            sourceEndsInMarker,
		"idle for longer than a long poll":           sourceIdle,
		"added partition":                            sourceAddedPartition,
		"retention overtakes the reader":             sourceRetention,
		"topic created again":                        sourceRecreated,
		"topic created again and already longer":     sourceRecreatedLonger,
		"topic created again with more partitions":   sourceRecreatedWider,
		"topic deleted for good":                     sourceDeleted,
		"unknown topic":                              sourceUnknownTopic,
		"internal topic":                             sourceInternalTopic,
		"name that is none":                          sourceInvalidTopic,
		"end of its context":                         sourceEnds,
		"records of 1 MiB beside busy partitions":    sourceLargeRecords,
	}
	for _, codec := range Codecs() {
		tests["compressed by "+codec] = func(b *bench) { sourceCodec(b, codec) }
	}
	cases(t, env, tests)
}

func sourceBeginsAtTheEnd(b *bench) {
	topic := b.topic(2, nil)
	b.produce(Records(topic, 0, 0, 5)...)
	f := b.follow(topic)
	if s := f.Seen().Starts[0]; !slices.Equal(s.Begin, []int64{0, 0}) || !slices.Equal(s.Next, []int64{5, 0}) {
		b.Fatalf("the start is %+v, want begin 0 0 and next 5 0", s)
	}
	want := b.produce(Records(topic, 0, 5, 8)...)
	b.same("after the start", f.AwaitMessages(3), want)
	f.AwaitNext(0, 8)
}

func sourceMissesNothingAfterStart(b *bench) {
	topic := b.topic(3, nil)
	for i := range 20 {
		f := b.follow(topic)
		want := b.produce(Records(topic, int32(i%3), i, i+1)...)
		b.same(fmt.Sprint("reader ", i), f.AwaitMessages(1), want)
		f.Stop()
	}
}

func sourceReadsTwice(b *bench) {
	topic := b.topic(2, nil)
	first := b.follow(topic)
	early := b.produce(Records(topic, 0, 0, 10)...)
	second := b.follow(topic)
	third := b.follow(topic)
	late := b.produce(Records(topic, 0, 10, 30)...)
	b.same("the first", first.AwaitMessages(30), slices.Concat(early, late))
	b.same("the second", second.AwaitMessages(20), late)
	b.same("the third", third.AwaitMessages(20), late)
	first.Stop()
	more := b.produce(Records(topic, 0, 30, 40)...)
	b.same("the second, alone", second.AwaitMessages(30), slices.Concat(late, more))
}

func sourceAwkwardRecords(b *bench) {
	topic := b.topic(1, nil)
	f := b.follow(topic)
	rs := awkward(topic)
	want := b.produce(rs...)
	b.same("live", f.AwaitMessages(len(rs)), want)
}

func sourceCodec(b *bench, codec string) {
	topic := b.topic(2, nil)
	f := b.follow(topic)
	want := b.compress(codec, Records(topic, 1, 0, 500)...)
	b.same(codec, f.AwaitMessages(500), want)
	f.AwaitNext(1, 500)
}

func sourceManyPartitions(b *bench) {
	const partitions = 130
	topic := b.topic(partitions, nil)
	f := b.follow(topic)
	var rs []stream.Record
	for p := range int32(partitions) {
		rs = append(rs, Records(topic, p, 0, 3)...)
	}
	want := b.produce(rs...)
	got := f.AwaitMessages(3 * partitions)
	slices.SortFunc(got, inOrder)
	slices.SortFunc(want, inOrder)
	b.same("all partitions", got, want)
}

func inOrder(a, b stream.Message) int {
	if a.Partition != b.Partition {
		return int(a.Partition - b.Partition)
	}
	return int(a.Offset - b.Offset)
}

func sourceOrder(b *bench) {
	topic := b.topic(3, nil)
	f := b.follow(topic)
	var want []stream.Message
	for i := range 40 {
		for p := range int32(3) {
			want = append(want, b.produce(Records(topic, p, 5*i, 5*i+1+rand.IntN(5))...)...)
		}
	}
	got := f.AwaitMessages(len(want))
	slices.SortStableFunc(got, func(a, b stream.Message) int { return int(a.Partition - b.Partition) })
	slices.SortFunc(want, inOrder)
	b.same("by partition", got, want)
}

func sourceOpenTransaction(b *bench) {
	topic := b.topic(2, nil)
	before := b.produce(Records(topic, 0, 0, 3)...)
	tx, err := b.Cluster.Begin(b.ctx)
	b.must(err)
	rs := Records(topic, 0, 3, 6)
	offsets, err := tx.Produce(b.ctx, rs...)
	b.must(err)
	f := b.follow(topic)
	if next := f.Seen().Starts[0].Next[0]; next != int64(len(before)) {
		b.Fatalf("the start is at %d, want %d, where the open transaction begins", next, len(before))
	}
	after := b.produce(Records(topic, 0, 6, 8)...)
	b.must(tx.Commit(b.ctx))
	b.same("once committed", f.AwaitMessages(5), slices.Concat(Messages(rs, offsets), after))
}

func sourceAbortedTransaction(b *bench) {
	topic := b.topic(1, nil)
	f := b.follow(topic)
	var want []stream.Message
	for i := range 3 {
		aborted, err := b.Cluster.Begin(b.ctx)
		b.must(err)
		_, err = aborted.Produce(b.ctx, Records(topic, 0, 1000, 1010)...)
		b.must(err)
		between := b.produce(Records(topic, 0, 10*i, 10*i+3)...)
		committed, err := b.Cluster.Begin(b.ctx)
		b.must(err)
		rs := Records(topic, 0, 10*i+3, 10*i+6)
		offsets, err := committed.Produce(b.ctx, rs...)
		b.must(err)
		b.must(aborted.Abort(b.ctx))
		b.must(committed.Commit(b.ctx))
		want = slices.Concat(want, between, Messages(rs, offsets))
	}
	want = append(want, b.produce(Records(topic, 0, 100, 101)...)...)
	b.same("what wasn't aborted", f.AwaitMessages(len(want)), want)
}

func sourceEndsInMarker(b *bench) {
	topic := b.topic(1, nil)
	f := b.follow(topic)
	for i, end := range []func(Transaction) error{
		func(tx Transaction) error { return tx.Commit(b.ctx) },
		func(tx Transaction) error { return tx.Abort(b.ctx) },
	} {
		tx, err := b.Cluster.Begin(b.ctx)
		b.must(err)
		offsets, err := tx.Produce(b.ctx, Records(topic, 0, 0, 4)...)
		b.must(err)
		b.must(end(tx))
		f.AwaitNext(0, offsets[3]+2) // beyond the marker
		if f.AwaitMessages(4); i == 1 && len(f.AwaitMessages(4)) != 4 {
			b.Fatal("messages of an aborted transaction were read")
		}
	}
	if gaps := f.Seen().Gaps; len(gaps) > 0 {
		b.Fatalf("holes are told as gaps: %+v", gaps)
	}
}

func sourceIdle(b *bench) {
	topic := b.topic(2, nil)
	f := b.follow(topic)
	select {
	case <-time.After(2 * time.Second): // longer than a broker holds a request that finds nothing
	case <-f.Done():
		b.Fatal("Read ended")
	}
	want := b.produce(Records(topic, 1, 0, 2)...)
	b.same("after idling", f.AwaitMessages(2), want)
}

func sourceAddedPartition(b *bench) {
	topic := b.topic(1, nil)
	f := b.follow(topic)
	first := b.produce(Records(topic, 0, 0, 2)...)
	b.must(b.Cluster.AddPartitions(b.ctx, topic, 3))
	second := b.produce(Records(topic, 2, 0, 5)...)
	got := f.AwaitMessages(7)
	slices.SortFunc(got, inOrder)
	b.same("of both", got, slices.Concat(first, second))
	if s := f.Seen(); len(s.Starts) != 1 || len(s.Gaps) != 0 {
		b.Fatalf("a partition that was added came with starts %+v and gaps %+v", s.Starts, s.Gaps)
	}
}

func sourceRetention(b *bench) {
	topic := b.topic(2, nil)
	f := b.follow(topic)
	resume := f.Pause()
	b.produce(Records(topic, 0, 0, 1)...)
	f.Await("the pause", func(s *Seen) bool { return s.Waiting })
	rest := b.produce(Records(topic, 0, 1, 20)...)
	b.must(b.Cluster.DeleteRecords(b.ctx, topic, 0, 15))
	resume()
	f.AwaitNext(0, 20)
	gaps := f.Seen().Gaps
	if len(gaps) != 1 {
		b.Fatalf("gaps: %+v, want one up to 15", gaps)
	}
	if g := gaps[0]; g.Reason != stream.GapRetention || g.To != 15 || g.From < 1 {
		b.Fatalf("gap: %+v, want one by retention up to 15", g)
	}
	got := f.AwaitMessages(5)
	b.same("after the gap", got[len(got)-5:], rest[len(rest)-5:])
}

func sourceRecreated(b *bench) {
	topic := b.topic(2, nil)
	f := b.follow(topic)
	b.produce(Records(topic, 0, 0, 10)...)
	f.AwaitNext(0, 10)
	b.must(b.Cluster.DeleteTopic(b.ctx, topic))
	b.create(topic, 2, nil)
	b.wantAnew(f, 2, b.produce(Records(topic, 0, 100, 104)...))
}

func sourceRecreatedLonger(b *bench) {
	topic := b.topic(1, nil)
	f := b.follow(topic)
	b.produce(Records(topic, 0, 0, 3)...)
	f.AwaitNext(0, 3)
	b.must(b.Cluster.DeleteTopic(b.ctx, topic))
	b.create(topic, 1, nil)
	b.wantAnew(f, 1, b.produce(Records(topic, 0, 100, 150)...))
}

func sourceRecreatedWider(b *bench) {
	topic := b.topic(1, nil)
	f := b.follow(topic)
	b.produce(Records(topic, 0, 0, 3)...)
	f.AwaitNext(0, 3)
	b.must(b.Cluster.DeleteTopic(b.ctx, topic))
	b.create(topic, 4, nil)
	b.wantAnew(f, 4, b.produce(Records(topic, 3, 100, 110)...))
}

// wantAnew fails the test unless the follower starts once more, in another topic of the same name, at its start.
func (b *bench) wantAnew(f *Follower, partitions int, want []stream.Message) {
	b.Helper()
	f.Await("a new start", func(s *Seen) bool { return len(s.Starts) > 1 })
	b.same("of the new topic", f.AwaitMessages(len(want)), want)
	starts, gaps := f.Seen().Starts, f.Seen().Gaps
	was, is := starts[0], starts[1]
	zeros := make([]int64, partitions)
	switch {
	case len(starts) != 2 || len(gaps) != 0:
		b.Fatalf("starts %+v and gaps %+v, want one new start", starts, gaps)
	case was.Incarnation == is.Incarnation:
		b.Fatalf("the new start is of the same incarnation, %s", is.Incarnation)
	case !slices.Equal(is.Begin, zeros) || !slices.Equal(is.Next, zeros):
		b.Fatalf("the new start is %+v, want all at 0", is)
	}
}

func sourceDeleted(b *bench) {
	topic := b.topic(2, nil)
	f := b.follow(topic)
	b.produce(Records(topic, 0, 0, 3)...)
	f.AwaitNext(0, 3)
	b.must(b.Cluster.DeleteTopic(b.ctx, topic))
	const longerThanARefresh = 5 * time.Second
	ctx, cancel := context.WithTimeout(b.ctx, longerThanARefresh)
	defer cancel()
	for ctx.Err() == nil {
		if b.exists(topic) {
			b.Fatal("a topic that was deleted has come back because it is read")
		}
		select {
		case <-f.Done():
			b.Fatalf("Read ended with %v, though its context hasn't", f.Stop())
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	f.Await("word that the topic is gone", func(s *Seen) bool { return s.Gone })
	if s := f.Seen(); len(s.Starts) != 1 || len(s.Gaps) != 0 {
		b.Fatalf("a topic that is gone gave starts %+v and gaps %+v", s.Starts, s.Gaps)
	}
}

func sourceUnknownTopic(b *bench) {
	b.wantNoTopic("contract.unknown." + fmt.Sprint(rand.Uint64()))
}

func sourceInternalTopic(b *bench) { b.wantNoTopic("__consumer_offsets") }

func sourceInvalidTopic(b *bench) {
	for _, name := range []string{"", "..", "a b", "a/b", "ä"} {
		b.wantNoTopic(name)
	}
}

// wantNoTopic fails the test unless a Read says at once that there is no such topic, and doesn't make one.
func (b *bench) wantNoTopic(topic string) {
	b.Helper()
	there := b.exists(topic)
	ctx, cancel := context.WithTimeout(b.ctx, 3*time.Second)
	defer cancel()
	err := b.Source.Read(ctx, topic, func(stream.Batch) { b.Error("a topic that isn't there was emitted") })
	b.wantKind("read "+topic, err, stream.NotFound)
	if b.exists(topic) != there {
		b.Fatalf("topic %s exists because it was asked for", topic)
	}
}

func sourceEnds(b *bench) {
	topic := b.topic(1, nil)
	f := b.follow(topic)
	b.produce(Records(topic, 0, 0, 1)...)
	f.AwaitMessages(1)
	begun := time.Now()
	err := f.Stop()
	if took := time.Since(begun); took > time.Second {
		b.Errorf("Read returned %v after its context ended", took)
	}
	if !errors.Is(err, context.Canceled) {
		b.Errorf("Read returned %v, want the context's error", err)
	}
	other := b.follow(topic)
	b.produce(Records(topic, 0, 1, 2)...)
	other.AwaitMessages(1)
	if got := len(f.Seen().Messages); got != 1 {
		b.Errorf("emit was called after Read returned: %d messages", got)
	}
}

func sourceLargeRecords(b *bench) {
	const partitions, rounds = 4, 10
	topic := b.topic(partitions, nil)
	f := b.follow(topic)
	var work sync.WaitGroup
	defer work.Wait()
	want := make([][]stream.Message, partitions)
	for p := range int32(partitions) {
		work.Go(func() {
			for i := range rounds {
				rs := Records(topic, p, 10*i, 10*i+10)
				if p == 0 {
					rs = awkward(topic)
				}
				offsets, err := b.Cluster.Produce(b.ctx, "none", rs...)
				if err != nil {
					b.Error(err)
					return
				}
				want[p] = append(want[p], Messages(rs, offsets)...)
			}
		})
	}
	work.Wait()
	total := slices.Concat(want...)
	got := f.AwaitMessages(len(total))
	slices.SortStableFunc(got, func(a, b stream.Message) int { return int(a.Partition - b.Partition) })
	b.same("all", got, total)
}
