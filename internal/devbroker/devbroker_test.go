package devbroker

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const orders = "orders.order.placed"

func start(t *testing.T, cfg Config) (*Broker, *Admin) {
	t.Helper()
	b, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	a, err := b.Admin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return b, a
}

// must returns a value, or ends the test.
func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// consume reads n records of a topic's partition from its start, as readers of committed ones see them.
func consume(t *testing.T, topic string, partition int32, n int, brokers ...string) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	check(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		check(t, fetches.Err())
		records = append(records, fetches.Records()...)
	}
	return records
}

func values(records []*kgo.Record) (values []string) {
	for _, r := range records {
		values = append(values, string(r.Value))
	}
	return values
}

func TestRecordsComeBackAsTheyWereWritten(t *testing.T) {
	for _, codec := range Codecs() {
		t.Run(codec.String(), func(t *testing.T) {
			b, a := start(t, Config{Topics: []Topic{{Name: orders, Partitions: 2}}})
			at := time.UnixMilli(1_700_000_000_123)
			sent := []Record{
				{Topic: orders, Partition: 1, Key: []byte("k"), Value: []byte("v"), Timestamp: at, Headers: []Header{{"a", []byte("1")}, {"a", nil}, {"b", []byte{}}}},
				{Topic: orders, Partition: 1, Key: nil, Value: []byte{}},
				{Topic: orders, Partition: 1, Key: []byte{}, Value: nil},
			}
			offsets := must[[]int64](t)(a.ProduceCompressed(t.Context(), codec, sent...))
			if !slices.Equal(offsets, []int64{0, 1, 2}) {
				t.Errorf("offsets %v, want 0 1 2", offsets)
			}
			got := consume(t, orders, 1, 3, b.Addr())
			if !got[0].Timestamp.Equal(at) || string(got[0].Key) != "k" {
				t.Errorf("first record is %v %q", got[0].Timestamp, got[0].Key)
			}
			h := got[0].Headers
			if len(h) != 3 || h[0].Key != "a" || string(h[0].Value) != "1" || h[1].Value != nil || h[2].Value == nil {
				t.Errorf("headers are %q", h)
			}
			if got[1].Key != nil || got[1].Value == nil || got[2].Key == nil || got[2].Value != nil {
				t.Errorf("nil and empty are confused: %#v, %#v", got[1], got[2])
			}
		})
	}
}

func TestTopicsAreCreatedDeletedAndGrow(t *testing.T) {
	b, a := start(t, Config{Brokers: 3})
	ctx := t.Context()
	check(t, a.CreateTopic(ctx, Topic{Name: orders}))
	if err := a.CreateTopic(ctx, Topic{Name: orders}); !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Errorf("creating it twice gives %v", err)
	}
	first := must[[16]byte](t)(a.TopicID(ctx, orders))
	must[[]int64](t)(a.Produce(ctx, Record{Topic: orders}))
	check(t, a.DeleteRecords(ctx, orders, 0, 1)) // at once: nothing is remembered of when it wasn't there
	check(t, a.AddPartitions(ctx, orders, 5))
	check(t, b.MoveLeader(orders, 4, 2))
	if leader := b.Leader(orders, 4); leader != 2 {
		t.Errorf("broker %d leads partition 4, want 2", leader)
	}
	must[[]int64](t)(a.Produce(ctx, Record{Topic: orders, Partition: 4}))
	check(t, a.DeleteTopic(ctx, orders))
	if names := must[[]string](t)(a.Topics(ctx)); len(names) != 0 {
		t.Errorf("left are %q", names)
	}
	check(t, a.CreateTopic(ctx, Topic{Name: orders}))
	if second := must[[16]byte](t)(a.TopicID(ctx, orders)); second == first {
		t.Error("the topic that was created again has the old one's id")
	}
}

func TestLookingUpCreatesOnlyWhereThatIsAllowed(t *testing.T) {
	for name, auto := range map[string]bool{"allowed": true, "not allowed": false} {
		t.Run(name, func(t *testing.T) {
			b, a := start(t, Config{AutoCreate: auto})
			client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
			check(t, err)
			defer client.Close()
			err = client.ProduceSync(t.Context(), &kgo.Record{Topic: orders}).FirstErr()
			if created := slices.Contains(must[[]string](t)(a.Topics(t.Context())), orders); created != auto || (err == nil) != auto {
				t.Errorf("created: %v (%v), want %v", created, err, auto)
			}
		})
	}
}

func TestRecordsAreDeleted(t *testing.T) {
	b, a := start(t, Config{Topics: []Topic{{Name: orders, Partitions: 1}}})
	for _, v := range []string{"0", "1", "2"} {
		must[[]int64](t)(a.Produce(t.Context(), Record{Topic: orders, Value: []byte(v)}))
	}
	check(t, a.DeleteRecords(t.Context(), orders, 0, 2))
	if got := consume(t, orders, 0, 1, b.Addr()); got[0].Offset != 2 {
		t.Errorf("the log begins at %d, want 2", got[0].Offset)
	}
}

func TestTransactionsCommitAndAbort(t *testing.T) {
	b, a := start(t, Config{Topics: []Topic{{Name: orders, Partitions: 1}}})
	ctx := t.Context()
	for _, commit := range []bool{true, false, true} {
		tx := must[*Transaction](t)(a.Begin(ctx, "tx"))
		value := map[bool]string{true: "committed", false: "aborted"}[commit]
		must[[]int64](t)(tx.Produce(ctx, Record{Topic: orders, Value: []byte(value)}))
		if commit {
			check(t, tx.Commit(ctx))
		} else {
			check(t, tx.Abort(ctx))
		}
	}
	offsets := must[[]int64](t)(a.Produce(ctx, Record{Topic: orders, Value: []byte("plain")}))
	if offsets[0] != 6 {
		t.Errorf("a record after three transactions of one has offset %d, want 6", offsets[0])
	}
	if got := values(consume(t, orders, 0, 3, b.Addr())); !slices.Equal(got, []string{"committed", "committed", "plain"}) {
		t.Errorf("readers of committed records see %q", got)
	}
}

func TestADataDirectoryOutlivesTheBroker(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{DataDir: dir, Topics: []Topic{{Name: orders, Partitions: 1}}}
	b, a := start(t, cfg)
	must[[]int64](t)(a.Produce(t.Context(), Record{Topic: orders, Value: []byte("kept")}))
	id := must[[16]byte](t)(a.TopicID(t.Context(), orders))
	cfg.Addr = b.Addr()
	check(t, b.Close())

	b, a = start(t, cfg)
	if b.Addr() != cfg.Addr {
		t.Errorf("it is at %s now, want %s", b.Addr(), cfg.Addr)
	}
	if again := must[[16]byte](t)(a.TopicID(t.Context(), orders)); again != id {
		t.Error("the topic has another id")
	}
	if got := values(consume(t, orders, 0, 1, b.Addr())); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("it holds %q", got)
	}
}

func TestABrokerLeavesTheNetworkAndComesBack(t *testing.T) {
	b, a := start(t, Config{Brokers: 2, Topics: []Topic{{Name: orders, Partitions: 1}}})
	must[[]int64](t)(a.Produce(t.Context(), Record{Topic: orders, Value: []byte("before")}))
	conn, err := net.Dial("tcp", b.Addrs()[1])
	check(t, err)
	defer conn.Close()

	b.Down(1)
	check(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a connection to a broker that is down gives %v", err)
	}
	if again, err := net.Dial("tcp", b.Addrs()[1]); err == nil {
		again.Close()
		t.Error("a broker that is down takes connections")
	}
	if again, err := net.Dial("tcp", b.Addrs()[0]); err != nil {
		t.Errorf("the other one takes none: %v", err)
	} else {
		again.Close()
	}
	check(t, b.Up(1))
	b.Down()
	check(t, b.Up())
	must[[]int64](t)(a.Produce(t.Context(), Record{Topic: orders, Value: []byte("after")}))
	if got := values(consume(t, orders, 0, 2, b.Addrs()...)); !slices.Equal(got, []string{"before", "after"}) {
		t.Errorf("it holds %q", got)
	}
}

func TestAddressesThatClientsCouldNotUseAreRefused(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0:9092": "no host", ":9092": "no host", "127.0.0.1": "missing port", "127.0.0.1:kafka": "isn't a port",
	} {
		b, err := Start(Config{Addr: addr})
		if err == nil {
			b.Close()
			t.Errorf("%s was taken", addr)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q doesn't say %q", addr, err, want)
		}
	}
}
