package kafka

import (
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// answerOf3 returns what a fetcher needs to read an answer with so many messages in each of three partitions, again and
// again.
func answerOf3(tb testing.TB, messages int) (read func(), got *int) {
	tb.Helper()
	client := must[*Client](tb)(New(Config{Brokers: []string{"127.0.0.1:1"}}))
	got = new(int)
	rd := &reading{topic: "topic", number: 1, consumed: prometheus.NewCounter(prometheus.CounterOpts{}), emit: func(b stream.Batch) {
		for _, part := range b.Parts {
			*got += len(part.Messages)
		}
	}}
	rd.begin(stream.Incarnation{}, make([]int64, 3), make([]int64, 3), func(int32) prometheus.Gauge { return prometheus.NewGauge(prometheus.GaugeOpts{}) })
	response := &sarama.FetchResponse{Version: 11, Blocks: map[string]map[int32]*sarama.FetchResponseBlock{"topic": {}}}
	offsets := make([]int64, messages)
	for i := range offsets {
		offsets[i] = int64(i)
	}
	for p := range int32(3) {
		block := blockOf(batch(int64(messages-1), offsets...))
		block.HighWaterMarkOffset, block.LastStableOffset = int64(messages), int64(messages)
		response.Blocks["topic"][p] = block
	}
	f := newFetcher(NewReader(client), 1, time.Second, func() {})
	return func() {
		for _, p := range rd.parts {
			p.next, p.asked, p.checked = 0, 0, true
		}
		check(tb, f.handle(tb.Context(), rd.parts, response))
	}, got
}

// What is made of an answer is one list of parts, and of each part its messages, their headers and their bytes; one more of
// each where races are looked for.
func TestAllocationsOfAnAnswer(t *testing.T) {
	for _, messages := range []int{1, 2, 20} {
		read, got := answerOf3(t, messages)
		read()
		if *got != 3*messages {
			t.Fatalf("%d messages, want %d", *got, 3*messages)
		}
		if n := testing.AllocsPerRun(100, read); n > 1+3*4 {
			t.Errorf("%v allocations for an answer of 3 partitions with %d messages each, want 10, or 13 with -race", n, messages)
		}
	}
}

// What is added after a fetcher took in its parts and before its long poll stands is in no request: then there is no long
// poll.
func TestNoLongPollWhileAnAddedPartWaits(t *testing.T) {
	client := must[*Client](t)(New(Config{Brokers: []string{"127.0.0.1:1"}}))
	f := newFetcher(NewReader(client), 1, time.Second, func() {})
	rd := &reading{topic: "topic"}
	f.addLocked(&part{reading: rd})
	if !f.take() || !f.beginPoll() {
		t.Error("no long poll stands for what was taken in")
	}
	f.endPoll()
	f.addLocked(&part{reading: rd, partition: 1})
	if f.beginPoll() {
		t.Error("a long poll stands while an added part waits")
	}
	f.endPoll()
	if !f.take() || !f.beginPoll() {
		t.Error("no long poll stands after the part was taken in")
	}
}

// BenchmarkAnswer reads an answer of two messages in each of three partitions, which is what 1,000 events a second bring
// with a pause of 5 ms.
func BenchmarkAnswer(b *testing.B) {
	read, _ := answerOf3(b, 2)
	b.ReportAllocs()
	for b.Loop() {
		read()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/6, "ns/message")
}
