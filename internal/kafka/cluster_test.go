package kafka

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
)

// cluster is what a test works on: the real Kafka of $KAFKA_BROKERS, or an embedded broker of its own. Both let look-ups
// create topics that ask for it.
type cluster struct {
	*devbroker.Admin
	brokers []string
	broker  *devbroker.Broker // nil: a real Kafka
}

// onCluster returns a cluster with a topic of so many partitions; none: the topic doesn't exist.
func onCluster(t *testing.T, partitions int, configs ...string) (cluster, string) {
	t.Helper()
	c := cluster{}
	if env := os.Getenv("KAFKA_BROKERS"); env != "" {
		c.brokers = strings.Split(env, ",")
	} else {
		c.broker = embedded(t, devbroker.Config{AutoCreate: true})
		c.brokers = c.broker.Addrs()
	}
	c.Admin = must[*devbroker.Admin](t)(devbroker.NewAdmin(c.brokers...))
	t.Cleanup(c.Admin.Close)
	topic := freshTopic(t)
	if partitions > 0 {
		one := devbroker.Topic{Name: topic, Partitions: partitions, Configs: map[string]string{}}
		for i := 0; i < len(configs); i += 2 {
			one.Configs[configs[i]] = configs[i+1]
		}
		check(t, c.CreateTopic(t.Context(), one))
	}
	return c, topic
}

// embedded starts an embedded broker, for what a real one can't be made to do.
func embedded(t *testing.T, cfg devbroker.Config) *devbroker.Broker {
	t.Helper()
	b := must[*devbroker.Broker](t)(devbroker.Start(cfg))
	t.Cleanup(func() { b.Close() })
	return b
}

var topics atomic.Int64

// freshTopic returns a name that no other test and no earlier run has used.
func freshTopic(t *testing.T) string {
	name := strings.Map(func(r rune) rune {
		if stream.ValidTopic("t" + string(r)) {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	return name[:min(len(name), 150)] + "." + strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.FormatInt(topics.Add(1), 10)
}

// client returns a client of the cluster.
func (c cluster) client(t *testing.T) *Client { return newClient(t, Config{Brokers: c.brokers}) }

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c := must[*Client](t)(New(cfg))
	t.Cleanup(func() { c.Close() })
	return c
}

// must returns a value, or ends the test.
func must[T any](t testing.TB) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
