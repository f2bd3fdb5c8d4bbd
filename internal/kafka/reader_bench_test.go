package kafka

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkReader reads a topic of 3 partitions, of which others are quiet, while another process publishes so many events
// of 256 bytes a second to it. It reports what an event costs this process of CPU, and how long it takes from its
// publisher to emit. With $KAFKA_BROKERS that is by way of a real Kafka, else of a broker embedded in the publisher.
func BenchmarkReader(b *testing.B) {
	for _, c := range []struct {
		rate, quiet int // events a second; quiet topics beside
		pace        time.Duration
	}{
		{50, 0, 0}, {1000, 0, 0}, {10_000, 0, 0}, {100_000, 0, 0}, {1000, 0, -1}, {10_000, 0, 10 * time.Millisecond}, {50, 1000, 0}, {1000, 1000, 0}, {0, 1000, 0},
	} {
		b.Run(fmt.Sprintf("events=%d/quiet=%d/pace=%v", c.rate, c.quiet, c.pace), func(b *testing.B) { benchReader(b, c.rate, c.quiet, c.pace) })
	}
}

func benchReader(b *testing.B, rate, quiet int, pace time.Duration) {
	publisher := startPublisher(b, rate, quiet)
	registry := prometheus.NewRegistry()
	client, err := New(Config{Brokers: publisher.brokers, Pace: pace, Metrics: registry})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	reader := NewReader(client)
	ctx, cancel := context.WithCancel(b.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { reader.Run(ctx) })

	stands := make(chan struct{}, quiet+1)
	for i := range quiet {
		work.Go(func() {
			reader.Read(ctx, publisher.topic+fmt.Sprintf(".%d", i), func(stream.Batch) { stands <- struct{}{} })
		})
	}
	taken := newTaker(rate)
	work.Go(func() {
		reader.Read(ctx, publisher.topic, func(batch stream.Batch) {
			if batch.Start != nil {
				stands <- struct{}{}
			}
			taken.take(batch)
		})
	})
	for range quiet + 1 {
		<-stands
	}
	publisher.begin(b)
	var tick <-chan time.Time = taken.ticks
	if rate == 0 {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		tick = ticker.C
	}
	for range 5 { // until it runs evenly
		<-tick
	}
	taken.begin()
	requests := gatherOne(b, registry, "streamgw_fetch_requests_total")
	before, begun := cpuTime(b), time.Now()
	for b.Loop() {
		<-tick
	}
	spent, took := cpuTime(b)-before, time.Since(begun)
	requests = gatherOne(b, registry, "streamgw_fetch_requests_total") - requests
	delays := taken.end()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(spent.Milliseconds())/took.Seconds(), "cpu-ms/s")
	b.ReportMetric(requests/took.Seconds(), "fetches/s")
	if n := len(delays); n > 0 {
		b.ReportMetric(float64(spent.Microseconds())/float64(n), "cpu-µs/event")
		b.ReportMetric(delays[n/2].Seconds()*1e3, "p50-ms")
		b.ReportMetric(delays[n*99/100].Seconds()*1e3, "p99-ms")
	}
}

// taker takes events in and keeps how long each was on its way.
type taker struct {
	every int            // events to a tick
	ticks chan time.Time // ten a second

	mu     sync.Mutex // guards what follows
	count  int
	keeps  bool
	delays []time.Duration
}

func newTaker(rate int) *taker {
	return &taker{every: max(1, rate/10), ticks: make(chan time.Time, 1000)}
}

func (t *taker) take(batch stream.Batch) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, part := range batch.Parts {
		for i := range part.Messages {
			if t.keeps {
				t.delays = append(t.delays, now.Sub(time.Unix(0, int64(binary.BigEndian.Uint64(part.Messages[i].Value)))))
			}
			if t.count++; t.count%t.every == 0 {
				t.ticks <- now
			}
		}
	}
}

func (t *taker) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keeps, t.delays = true, make([]time.Duration, 0, 100*t.every)
}

// end returns the delays from the shortest to the longest.
func (t *taker) end() []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keeps = false
	slices.Sort(t.delays)
	return t.delays
}

// cpuTime returns what this process has used of CPU.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func gatherOne(tb testing.TB, registry *prometheus.Registry, name string) float64 {
	tb.Helper()
	values := gather(tb, registry)[name]
	if len(values) != 1 {
		tb.Fatalf("%d series of %s", len(values), name)
	}
	return values[0]
}

// publisherVariable has this program be a publisher. Its value is the rate and the number of quiet topics.
const publisherVariable = "STREAMGW_BENCH_PUBLISHER"

// publisher is another process: the measured one's CPU is that of reading alone.
type publisher struct {
	brokers []string
	topic   string
	begins  func() error
}

func startPublisher(b *testing.B, rate, quiet int) *publisher {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", publisherVariable, rate, quiet))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("the publisher: %v", err)
		}
	})
	p := &publisher{begins: func() error { _, err := fmt.Fprintln(in); return err }}
	var addrs string
	if _, err := fmt.Fscanln(out, &addrs, &p.topic); err != nil {
		b.Fatal(err)
	}
	p.brokers = strings.Split(addrs, ",")
	return p
}

func (p *publisher) begin(b *testing.B) {
	b.Helper()
	if err := p.begins(); err != nil {
		b.Fatal(err)
	}
}

// publishForBenchmark says where it publishes to, begins when it gets a line and ends with its input.
func publishForBenchmark() int {
	if err := publishEvenly(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func publishEvenly() error {
	var rate, quiet int
	if _, err := fmt.Sscan(os.Getenv(publisherVariable), &rate, &quiet); err != nil {
		return err
	}
	addrs := strings.Split(os.Getenv("KAFKA_BROKERS"), ",")
	if addrs[0] == "" {
		broker, err := devbroker.Start(devbroker.Config{})
		if err != nil {
			return err
		}
		defer broker.Close()
		addrs = broker.Addrs()
	}
	topic := fmt.Sprint("bench.", time.Now().UnixNano())
	if err := createForBenchmark(addrs, topic, quiet); err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer client.Close()
	in := bufio.NewReader(os.Stdin)
	fmt.Println(strings.Join(addrs, ","), topic)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		in.ReadString('\n')
		cancel()
	}()
	if rate == 0 {
		<-ctx.Done()
		return nil
	}
	for begun, n := time.Now(), 0; ctx.Err() == nil; n++ {
		if wait := time.Until(begun.Add(time.Duration(n) * time.Second / time.Duration(rate))); wait > 0 {
			sleep(ctx, wait) // then the loop ends by itself
		}
		value := binary.BigEndian.AppendUint64(make([]byte, 0, 256), uint64(time.Now().UnixNano()))[:256]
		client.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(n % 3), Value: value}, nil)
	}
	return nil
}

// createForBenchmark creates the topic that is published to, and quiet ones.
func createForBenchmark(addrs []string, topic string, quiet int) error {
	admin, err := devbroker.NewAdmin(addrs...)
	if err != nil {
		return err
	}
	defer admin.Close()
	names := []string{topic}
	for i := range quiet {
		names = append(names, fmt.Sprintf("%s.%d", topic, i))
	}
	for _, name := range names {
		if err := admin.CreateTopic(context.Background(), devbroker.Topic{Name: name, Partitions: 3}); err != nil {
			return err
		}
	}
	return nil
}
