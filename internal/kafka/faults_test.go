package kafka

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
	"github.com/goodgo/streamgw/internal/stream/streamtest"
)

// Real brokers are killed (-9) and started again, one after the other, under a stream and under reads of history.
// KAFKA_FAULTS names a program that does it: it is called with "kill" or "restart" and a number from 1 to 3.
func TestReaderSurvivesKilledBrokers(t *testing.T) {
	brokers, program := os.Getenv("KAFKA_BROKERS"), strings.Fields(os.Getenv("KAFKA_FAULTS"))
	for round := range 2 * min(1, len(program)) {
		t.Run("round "+strconv.Itoa(round+1), func(t *testing.T) {
			testKilledBrokers(t, strings.Split(brokers, ","), func(act string, id int) {
				t.Helper()
				out, err := exec.Command(program[0], append(program[1:], act, strconv.Itoa(id))...).CombinedOutput()
				if err != nil {
					t.Fatalf("%s %d: %v: %s", act, id, err, out)
				}
			})
		})
	}
}

func testKilledBrokers(t *testing.T, addrs []string, act func(string, int)) {
	cluster := newContractCluster(t, addrs, func() {})
	client := newClient(t, Config{Brokers: addrs})
	b := &readerBench{T: t, cluster: cluster, client: client, reader: runReader(t, client)}
	topic := b.topic(6)
	f := b.follow(topic)
	stop := b.publish(topic, 6)
	f.AwaitMessages(1)
	read := b.readHistory(topic, f)
	for id := 1; id <= 3; id++ {
		f.AwaitMessages(len(f.Seen().Messages) + 500)
		act("kill", id)
		f.AwaitMessages(len(f.Seen().Messages) + 500)
		act("restart", id)
		f.AwaitMessages(len(f.Seen().Messages) + 500)
	}
	all := stop()
	b.wantAll(f, all)
	reads, messages := read()
	t.Logf("%d messages live; %d reads of history had %d messages", len(all), reads, messages)
	if reads == 0 {
		t.Error("no history was read")
	}
}

// readHistory reads all that the follower has seen, again and again, until it is stopped. It fails the test unless each
// read has all of it.
func (b *readerBench) readHistory(topic string, f *streamtest.Follower) (stop func() (reads, messages int)) {
	ctx, cancel := context.WithCancel(b.Context())
	history := NewHistory(b.client)
	b.Cleanup(func() { history.Close() })
	var work sync.WaitGroup
	reads, messages := 0, 0
	work.Go(func() {
		for ctx.Err() == nil {
			seen := f.Seen()
			req := stream.HistoryRequest{Topic: topic, Incarnation: seen.Starts[0].Incarnation, MaxBytes: 256 << 10}
			var want int
			for p, next := range seen.Next {
				if next > 0 {
					req.Ranges = append(req.Ranges, stream.Range{Partition: int32(p), To: next})
					want += int(next)
				}
			}
			got, err := collectHistory(ctx, history, req)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				b.Logf("read history: %v", err) // it may be that a leader was away for too long
				continue
			}
			if got != want {
				b.Errorf("history has %d messages, want %d", got, want)
			}
			reads, messages = reads+1, messages+got
		}
	})
	b.Cleanup(func() { cancel(); work.Wait() })
	return func() (int, int) {
		cancel()
		work.Wait()
		return reads, messages
	}
}

// collectHistory reads ranges to their ends and returns how many messages there are, each at the offset that comes next.
func collectHistory(ctx context.Context, history *History, req stream.HistoryRequest) (n int, err error) {
	for len(req.Ranges) > 0 {
		parts, err := history.Read(ctx, req)
		if err != nil {
			return n, err
		}
		for _, part := range parts {
			for i := range req.Ranges {
				if r := &req.Ranges[i]; r.Partition == part.Partition {
					for _, m := range part.Messages {
						if m.Offset == r.From {
							n++
							r.From++
						}
					}
					r.From = part.Next
				}
			}
		}
		var left []stream.Range
		for _, r := range req.Ranges {
			if r.From < r.To {
				left = append(left, r)
			}
		}
		req.Ranges = left
	}
	return n, nil
}
