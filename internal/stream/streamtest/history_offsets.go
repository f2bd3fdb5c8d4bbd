package streamtest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

func historyUndelayed(b *bench) {
	topic := b.topic(1, nil)
	b.produce(Records(topic, 0, 0, 10)...)
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
	b.produce(Records(topic, 0, 0, 10)...)
	b.produce(Records(topic, 2, 0, 4)...)
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
		rs := Records(topic, p, 0, 10)
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
	b.produce(Records(topic, 0, 0, 3)...)
	tx, err := b.Cluster.Begin(b.ctx)
	b.must(err)
	_, err = tx.Produce(b.ctx, Records(topic, 0, 3, 6)...)
	b.must(err)
	b.produce(Records(topic, 0, 6, 9)...)
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
