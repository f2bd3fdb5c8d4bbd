package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
)

// wantKind checks that err is for a client, and of a kind.
func wantKind(t *testing.T, err error, want stream.Kind) {
	t.Helper()
	if e, ok := errors.AsType[*stream.Error](err); !ok || e.Kind != want {
		t.Errorf("the error is %v, want one of kind %d", err, want)
	}
}

// within fails the test when more than d has passed since start.
func within(t *testing.T, start time.Time, d time.Duration) {
	t.Helper()
	if took := time.Since(start); took > d {
		t.Errorf("it took %v, want less than %v", took, d)
	}
}

// silent is the address of a broker that takes connections and never answers.
func silent(t *testing.T) string {
	t.Helper()
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	var mu sync.Mutex
	var conns []net.Conn
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		ln.Close()
		accepting.Wait()
		for _, conn := range conns {
			conn.Close()
		}
	})
	return ln.Addr().String()
}

// refusing is an address where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	ln.Close()
	return ln.Addr().String()
}

func TestMetadataTellsATopicFromOneOfTheSameNameBefore(t *testing.T) {
	k, topic := onCluster(t, 3)
	c := k.client(t)
	ask := func() topicMetadata {
		return must[*metadata](t)(c.metadata(t.Context(), topic)).topics[topic]
	}
	first := ask()
	if len(first.partitions) != 3 || first.err != sarama.ErrNoError || first.internal || first.id == (stream.Incarnation{}) {
		t.Fatalf("metadata is %+v", first)
	}
	if full := must[[16]byte](t)(k.TopicID(t.Context(), topic)); !slices.Equal(full[:4], first.id[:]) {
		t.Errorf("the incarnation is %v, want the first bytes of %x", first.id, full)
	}
	check(t, k.DeleteTopic(t.Context(), topic))
	if gone := ask(); gone.err != sarama.ErrUnknownTopicOrPartition || len(gone.partitions) != 0 {
		t.Errorf("metadata of the deleted topic is %+v", gone)
	}
	check(t, k.CreateTopic(t.Context(), devbroker.Topic{Name: topic, Partitions: 5}))
	if again := ask(); len(again.partitions) != 5 || again.id == first.id {
		t.Errorf("metadata of the topic created again is %+v", again)
	}
}

func TestABrokerThatIsAwayDoesNotStallLookups(t *testing.T) {
	for name, away := range map[string]func(*testing.T) string{"silent": silent, "refusing": refusing} {
		t.Run(name, func(t *testing.T) {
			k, topic := onCluster(t, 1)
			c := newClient(t, Config{Brokers: append([]string{away(t), away(t)}, k.brokers...)})
			start := time.Now()
			must[*metadata](t)(c.metadata(t.Context(), topic))
			within(t, start, 1500*time.Millisecond)
			start = time.Now() // the one that answered is asked first now
			must[*metadata](t)(c.metadata(t.Context(), topic))
			within(t, start, 350*time.Millisecond)
		})
	}
}

func TestLookupsEndWithTheirContext(t *testing.T) {
	c := newClient(t, Config{Brokers: []string{silent(t)}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := c.metadata(ctx, "orders")
	wantKind(t, err, stream.Unavailable)
	within(t, start, time.Second)
}

func TestLookupsDoNotQueueBehindASlowOne(t *testing.T) {
	c := newClient(t, Config{Brokers: []string{embedded(t, devbroker.Config{}).Addr()}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waiting := make(chan struct{})
	var slow sync.WaitGroup
	slow.Go(func() {
		_, err := exchange(ctx, c, lookups, c.cfg.Brokers[0], func(*sarama.Broker) (int, error) {
			close(waiting)
			<-ctx.Done()
			return 0, io.EOF
		})
		if err == nil {
			t.Error("the slow look-up had an answer")
		}
	})
	<-waiting
	start := time.Now()
	must[*metadata](t)(c.metadata(t.Context()))
	within(t, start, time.Second)
	cancel()
	slow.Wait()
}

func TestLookupsOutliveARestartOfTheBroker(t *testing.T) {
	b := embedded(t, devbroker.Config{Topics: []devbroker.Topic{{Name: "orders"}}})
	c := newClient(t, Config{Brokers: b.Addrs()})
	must[*metadata](t)(c.metadata(t.Context(), "orders"))
	b.Down()
	_, err := c.metadata(t.Context(), "orders")
	wantKind(t, err, stream.Unavailable)
	check(t, b.Up())
	must[*metadata](t)(c.metadata(t.Context(), "orders"))

	b.Down() // and back before anybody asks: the idle connection is dead
	check(t, b.Up())
	must[*metadata](t)(c.metadata(t.Context(), "orders"))
}

func TestOffsetsOfEveryPlace(t *testing.T) {
	k, topic := onCluster(t, 2)
	c := k.client(t)
	at := time.UnixMilli(1_700_000_000_000)
	for i := range 5 {
		must[[]int64](t)(k.Produce(t.Context(), devbroker.Record{Topic: topic, Timestamp: at.Add(time.Duration(i) * time.Minute), Value: []byte("v")}))
	}
	check(t, k.DeleteRecords(t.Context(), topic, 0, 2))
	md := must[*metadata](t)(c.metadata(t.Context(), topic)).topics[topic]
	for name, tt := range map[string]struct {
		at   stream.At
		want []int64
	}{
		"earliest":                     {stream.Earliest, []int64{2, 0}},
		"latest":                       {stream.Latest, []int64{5, 0}},
		"a record's own time":          {stream.AtTime(at.Add(3 * time.Minute)), []int64{3, 0}},
		"between two records":          {stream.AtTime(at.Add(200 * time.Second)), []int64{4, 0}},
		"before the log's start":       {stream.AtTime(at), []int64{2, 0}},
		"after everything: the latest": {stream.AtTime(at.Add(time.Hour)), []int64{5, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := must[[]int64](t)(c.offsets(t.Context(), topic, md, tt.at)); !slices.Equal(got, tt.want) {
				t.Errorf("offsets are %v, want %v", got, tt.want)
			}
		})
	}
}

func TestLatestIsTheLastStableOffset(t *testing.T) {
	for isolation, want := range map[string]int64{readCommitted: 1, readUncommitted: 3} {
		t.Run(isolation, func(t *testing.T) {
			k, topic := onCluster(t, 1)
			c := newClient(t, Config{Brokers: k.brokers, Isolation: isolation})
			must[[]int64](t)(k.Produce(t.Context(), devbroker.Record{Topic: topic}))
			tx := must[*devbroker.Transaction](t)(k.Begin(t.Context(), topic))
			must[[]int64](t)(tx.Produce(t.Context(), devbroker.Record{Topic: topic}, devbroker.Record{Topic: topic}))
			md := must[*metadata](t)(c.metadata(t.Context(), topic)).topics[topic]
			for name, at := range map[string]stream.At{"latest": stream.Latest, "in an hour": stream.AtTime(time.Now().Add(time.Hour))} {
				if got := must[[]int64](t)(c.offsets(t.Context(), topic, md, at)); got[0] != want {
					t.Errorf("%s is %d while the transaction is open, want %d", name, got[0], want)
				}
			}
			check(t, tx.Commit(t.Context()))
			waitFor(t, func() bool { // the marker shows a moment later
				return must[[]int64](t)(c.offsets(t.Context(), topic, md, stream.Latest))[0] == 4
			})
		})
	}
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !holds() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatal("it didn't come to hold within 10 seconds")
		}
	}
}

func TestOffsetsWaitForALeaderThatMoves(t *testing.T) {
	b := embedded(t, devbroker.Config{Brokers: 3, Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}}})
	c := newClient(t, Config{Brokers: b.Addrs()})
	md := must[*metadata](t)(c.metadata(t.Context(), "orders")).topics["orders"]
	leader := b.Leader("orders", 0)
	b.Down(leader)
	got := make(chan error, 1)
	go func() {
		_, err := c.offsets(t.Context(), "orders", md, stream.Latest)
		got <- err
	}()
	check(t, b.MoveLeader("orders", 0, (leader+1)%3))
	if err := <-got; err != nil {
		t.Errorf("offsets: %v", err)
	}
}

func TestOffsetsOfAPartitionWithoutALeaderFailWithTheirContext(t *testing.T) {
	b := embedded(t, devbroker.Config{Brokers: 2, Topics: []devbroker.Topic{{Name: "orders", Partitions: 1}}})
	c := newClient(t, Config{Brokers: b.Addrs()})
	md := must[*metadata](t)(c.metadata(t.Context(), "orders")).topics["orders"]
	b.Down(b.Leader("orders", 0))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := c.offsets(ctx, "orders", md, stream.Latest)
	wantKind(t, err, stream.Unavailable)
	within(t, start, 2*time.Second)
}

func TestOffsetsOfATopicThatIsGoneOrAnother(t *testing.T) {
	k, topic := onCluster(t, 1)
	c := k.client(t)
	md := must[*metadata](t)(c.metadata(t.Context(), topic)).topics[topic]
	check(t, k.DeleteTopic(t.Context(), topic))
	_, err := c.offsets(t.Context(), topic, md, stream.Latest)
	wantKind(t, err, stream.NotFound)

	check(t, k.CreateTopic(t.Context(), devbroker.Topic{Name: topic, Partitions: 1}))
	md.partitions[0].leader = 99 // it has to ask again
	_, err = c.offsets(t.Context(), topic, md, stream.Latest)
	if !isRecreated(err) {
		t.Errorf("the error is %v, want that it was created again", err)
	}
}

func TestADialledConnectionIsTheCallersOwn(t *testing.T) {
	k, _ := onCluster(t, 0)
	c := k.client(t)
	md := must[*metadata](t)(c.metadata(t.Context()))
	for id := range md.brokers {
		b := must[*sarama.Broker](t)(c.dial(t.Context(), id))
		must[*sarama.MetadataResponse](t)(b.GetMetadata(sarama.NewMetadataRequest(protocol, nil)))
		c.hangUp(b)
		if _, err := b.GetMetadata(sarama.NewMetadataRequest(protocol, nil)); err == nil {
			t.Error("a request after hanging up had an answer")
		}
		b.Close()
	}
	if _, err := c.dial(t.Context(), 12345); err == nil {
		t.Error("a broker that doesn't exist could be dialled")
	}
}

func TestClosingEndsWhatWaits(t *testing.T) {
	c := must[*Client](t)(New(Config{Brokers: []string{silent(t)}}))
	waits := make(chan error, 1)
	go func() {
		_, err := c.metadata(context.Background(), "orders")
		waits <- err
	}()
	waitFor(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.wires) > 0
	})
	check(t, c.Close())
	wantKind(t, <-waits, stream.Unavailable)
	_, err := c.metadata(context.Background(), "orders")
	if wantKind(t, err, stream.Unavailable); !errors.Is(err, errClosed) {
		t.Errorf("after closing the error is %v", err)
	}
	if len(c.wires) != 0 {
		t.Errorf("%d connections are left", len(c.wires))
	}
}

func TestManyLookupsAtOnceShareFewConnections(t *testing.T) {
	k, topic := onCluster(t, 3)
	c := k.client(t)
	var work sync.WaitGroup
	for range 50 {
		work.Go(func() {
			md, err := c.metadata(t.Context(), topic)
			if err == nil {
				_, err = c.offsets(t.Context(), topic, md.topics[topic], stream.Latest)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.wires); n > laneConnections*(len(c.brokers)+len(c.cfg.Brokers)) {
		t.Errorf("%d connections are open", n)
	}
}

func TestBrokersAreNamedAsHostAndPort(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"kafka", "kafka:9092"}, {"kafka:19092", "kafka:19092"}, {"::1", "[::1]:9092"}, {"[::1]:9093", "[::1]:9093"},
	} {
		c := must[*Client](t)(New(Config{Brokers: []string{tt.addr}}))
		if got := c.candidates(); !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s is dialled as %q, want %s", tt.addr, got, tt.want)
		}
	}
}

func TestSettingsThatCannotBeAreNamed(t *testing.T) {
	for want, cfg := range map[string]Config{
		"kafka.brokers":        {},
		"kafka.brokers: \"":    {Brokers: []string{"kafka:port"}},
		"kafka.isolation":      {Brokers: []string{"k"}, Isolation: "serializable"},
		"kafka.maxWait":        {Brokers: []string{"k"}, MaxWait: -1},
		"kafka.dialTimeout":    {Brokers: []string{"k"}, DialTimeout: -1},
		"kafka.requestTimeout": {Brokers: []string{"k"}, RequestTimeout: 100 * time.Millisecond},
	} {
		_, err := New(cfg)
		if wantKind(t, err, stream.BadRequest); !strings.HasPrefix(fmt.Sprint(err), want) {
			t.Errorf("%q doesn't begin with %q", err, want)
		}
	}
}
