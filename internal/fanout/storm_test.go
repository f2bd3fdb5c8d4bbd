package fanout

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// slowHistory is memLog's History over a wire: a read takes a moment.
type slowHistory struct {
	memHistory
	parts *atomic.Int64 // partitions that were asked for
	takes time.Duration
}

func (h slowHistory) Read(ctx context.Context, req stream.HistoryRequest) ([]stream.PartBatch, error) {
	h.parts.Add(int64(len(req.Ranges)))
	select {
	case <-time.After(h.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return h.memHistory.Read(ctx, req)
}

// storm is a cold gateway to which many clients come back at once.
type storm struct {
	hubs  *Hubs
	parts atomic.Int64 // read of history, each counted once a read
	runs  atomic.Int64 // that clients got
	pend  chan *stormClient
	left  sync.WaitGroup
}

// stormClient counts what it gets of each partition.
type stormClient struct {
	sub     *Subscription
	pending atomic.Bool

	polling sync.Mutex // guards what follows: it is polled by one goroutine at a time
	next    []int64
	lacks   int
}

// newStorm returns hubs that have just begun to read a log, and their clients, each behind by its own measure.
func newStorm(t testing.TB, log *memLog, clients int, behind func(client, partition int) int64) (*storm, []*stormClient) {
	s := &storm{pend: make(chan *stormClient, clients)}
	s.hubs = New(Config{Formats: []Format{simFormat{}}}, log, slowHistory{memHistory{log}, &s.parts, 3 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.hubs.Run(ctx) })
	var all []*stormClient
	t.Cleanup(func() {
		for _, c := range all {
			c.sub.Close()
		}
		cancel()
		running.Wait()
	})
	log.mu.Lock()
	ends := log.endsLocked()
	log.mu.Unlock()
	for i := range clients {
		c := &stormClient{next: make([]int64, len(ends))}
		for p, end := range ends {
			c.next[p] = end - behind(i, p)
			c.lacks += int(end - c.next[p])
		}
		s.left.Add(1)
		at := stream.NewPosition(stream.Incarnation{1}, "t", c.next...)
		sub, err := s.hubs.Subscribe(ctx, Request{Topics: []string{"t"}, From: From{Position: &at}, Waker: wakeFunc(func() { s.wake(c) })})
		if err != nil {
			t.Fatal(err)
		}
		c.sub = sub
		all = append(all, c)
	}
	return s, all
}

func (s *storm) wake(c *stormClient) {
	if !c.pending.Swap(true) {
		s.pend <- c
	}
}

// serve polls all clients until none lacks anything.
func (s *storm) serve(t testing.TB, clients []*stormClient) {
	t.Helper()
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			var b Batch
			for c := range s.pend {
				if err := s.poll(c, &b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, c := range clients {
		s.wake(c)
	}
	s.left.Wait()
	close(s.pend)
	writers.Wait()
}

func (s *storm) poll(c *stormClient, b *Batch) error {
	c.pending.Store(false)
	c.polling.Lock()
	defer c.polling.Unlock()
	lacked := c.lacks
	if err := c.sub.Poll(b); err != nil {
		return err
	}
	for i := range b.Items {
		if err := c.take(b.Items[i].Message.Partition, b.Items[i].Message.Offset); err != nil {
			return err
		}
	}
	if b.Run.Count > 0 {
		s.runs.Add(1)
	}
	for frame := range bytes.Lines(b.Run.Frames) {
		fields := bytes.Fields(frame) // as simFormat makes them
		partition, _ := strconv.Atoi(string(fields[1]))
		offset, _ := strconv.Atoi(string(fields[2]))
		if err := c.take(int32(partition), int64(offset)); err != nil {
			return err
		}
	}
	if b.More && c.lacks > 0 {
		s.wake(c)
	}
	if c.lacks == 0 && lacked > 0 {
		s.left.Done()
	}
	return nil
}

// take counts a message, which must be the next of its partition.
func (c *stormClient) take(partition int32, offset int64) error {
	if offset != c.next[partition] {
		return fmt.Errorf("partition %d: offset %d after %d", partition, offset, c.next[partition])
	}
	c.next[partition]++
	c.lacks--
	return nil
}

func longLog(partitions, each int) *memLog {
	log := newMemLog(partitions)
	for i := range each {
		for p := range partitions {
			log.produce(p, fmt.Sprint("k", i%16), 256)
		}
	}
	return log
}

func TestAStormToAColdGatewayIsAFewReads(t *testing.T) {
	log := longLog(3, 1000)
	for name, spread := range map[string]int64{"all at one position": 1, "spread over some hundred": 300} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			s, clients := newStorm(t, log, 300, func(int, int) int64 { return 333 + rng.Int64N(spread) })
			s.serve(t, clients)
			if spread == 1 && s.runs.Load() < 300 {
				t.Errorf("%d runs were shared by 300 clients at one position", s.runs.Load())
			}
			if n := s.parts.Load(); n > 3*20 {
				t.Errorf("%d reads of a partition; 20 for each of 3 are enough", n)
			}
			if n, _, waiting := s.hubs.archive.size(); waiting != 0 || n > 3*20 {
				t.Errorf("%d stretches, and %d wait", n, waiting)
			}
		})
	}
}

// BenchmarkColdStorm is 5,000 clients that resume 1,000 messages behind on a gateway that has just begun: all at one
// position, as those are that were in step when they were cut, or each at one of its own.
func BenchmarkColdStorm(b *testing.B) {
	for name, spread := range map[string]int64{"one-position": 1, "own-positions": 200} {
		b.Run(name, func(b *testing.B) { benchmarkColdStorm(b, spread) })
	}
}

func benchmarkColdStorm(b *testing.B, spread int64) {
	const clients = 5000
	log := longLog(3, 1000)
	var got, parts int64
	for b.Loop() {
		b.StopTimer()
		rng := rand.New(rand.NewPCG(1, 2))
		s, all := newStorm(b, log, clients, func(int, int) int64 { return 333 - spread/2 + rng.Int64N(spread) })
		for _, c := range all {
			got += int64(c.lacks)
		}
		b.StartTimer()
		s.serve(b, all)
		parts += s.parts.Load()
		b.StopTimer()
		for _, c := range all {
			c.sub.Close()
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(parts)/3/float64(b.N), "reads/partition")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(got), "ns/delivery")
}
