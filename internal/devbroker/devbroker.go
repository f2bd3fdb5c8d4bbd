// Package devbroker is an embedded broker that speaks Kafka's own protocol, for `streamgw dev` and for tests, and an
// [Admin] that does to any cluster what tests need done: topics, records, transactions, written with other software
// than what reads them in this project.
//
// It is no Kafka: one process plays all the brokers, a partition has one replica, and what isn't kept in a data
// directory is gone with it. The contract tests hold it and a real Kafka to the same promises.
package devbroker

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
)

// Config is what Start needs. Its zero value is one broker in memory, without topics, on a free port of 127.0.0.1.
type Config struct {
	// Addr is the host and port to listen on, which clients are told too. Port 0 is a free one. Further brokers
	// listen on the ports that follow. Default 127.0.0.1:0.
	Addr string

	// Brokers is how many there are. Default 1.
	Brokers int

	// DataDir keeps topics and records over a restart. It is made if needed. Default: they are kept in memory.
	DataDir string

	// Topics are created unless they exist.
	Topics []Topic

	// AutoCreate lets a look-up that allows it create the topic that it names, as most clusters are set.
	AutoCreate bool

	// Options are further ones of the library, for tests: TLS, SASL, versions.
	Options []kfake.Opt
}

// Topic is one to be created.
type Topic struct {
	Name       string
	Partitions int               // default 3
	Configs    map[string]string // such as cleanup.policy: compact
}

const defaultPartitions = 3

// Broker is a running cluster.
type Broker struct {
	cluster *kfake.Cluster
	gates   []*gate
	close   func()
}

// Start starts a cluster. It runs until Close.
func Start(cfg Config) (*Broker, error) {
	host, first, err := splitAddr(cfg.Addr)
	if err != nil {
		return nil, err
	}
	ports := make([]int, max(1, cfg.Brokers))
	for i := range ports {
		if first > 0 {
			ports[i] = first + i
		}
	}
	b := &Broker{}
	options := []kfake.Opt{
		kfake.Ports(ports...),
		kfake.DefaultNumPartitions(defaultPartitions),
		kfake.ClusterID("devbroker"),
		kfake.ListenFn(func(network, addr string) (net.Listener, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			g, err := openGate(network, net.JoinHostPort(host, port))
			if err == nil {
				b.gates = append(b.gates, g)
			}
			return g, err
		}),
	}
	if cfg.DataDir != "" {
		options = append(options, kfake.DataDir(cfg.DataDir))
	}
	if cfg.AutoCreate {
		options = append(options, kfake.AllowAutoTopicCreation())
	}
	if b.cluster, err = kfake.NewCluster(append(options, cfg.Options...)...); err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	b.close = sync.OnceFunc(func() {
		b.cluster.Close()
		for _, g := range b.gates {
			g.Close()
			g.cut() // the library leaves them to their clients
		}
	})
	for _, t := range cfg.Topics {
		partitions := max(t.Partitions, 0)
		if partitions == 0 {
			partitions = defaultPartitions
		}
		if err := b.cluster.CreateTopic(t.Name, int32(partitions), t.Configs); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			b.Close()
			return nil, fmt.Errorf("create topic %s: %w", t.Name, err)
		}
	}
	return b, nil
}

func splitAddr(addr string) (host string, port int, err error) {
	if addr == "" {
		return "127.0.0.1", 0, nil
	}
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("address of the embedded broker: %w", err)
	}
	if host == "" || net.ParseIP(host).IsUnspecified() {
		return "", 0, fmt.Errorf("address of the embedded broker: %q has no host that clients could be told", addr)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address of the embedded broker: %q isn't a port", text)
	}
	return host, int(n), nil
}

// Addr returns the address of the first broker.
func (b *Broker) Addr() string { return b.gates[0].Addr().String() }

// Addrs returns the addresses of all brokers; a broker's id is its index.
func (b *Broker) Addrs() []string {
	var addrs []string
	for _, g := range b.gates {
		addrs = append(addrs, g.Addr().String())
	}
	return addrs
}

// Close stops the cluster and ends its connections. What a data directory keeps is written by then.
func (b *Broker) Close() error {
	b.close()
	return nil
}

// Admin returns an admin of this cluster. Its caller closes it.
func (b *Broker) Admin() (*Admin, error) { return NewAdmin(b.Addrs()...) }

// Cluster returns the library's own handle, for what tests do to a cluster beside this: faults, controls, followers,
// compaction, retention. It must not be used after Close.
func (b *Broker) Cluster() *kfake.Cluster { return b.cluster }

// Down takes brokers off the network, or all when none is named: their connections end and new ones are refused. Their
// partitions stay theirs.
func (b *Broker) Down(ids ...int) {
	for _, g := range b.gatesOf(ids) {
		g.down()
	}
}

// Up brings brokers back that Down took, or all when none is named.
func (b *Broker) Up(ids ...int) error {
	var errs []error
	for _, g := range b.gatesOf(ids) {
		errs = append(errs, g.up())
	}
	return errors.Join(errs...)
}

func (b *Broker) gatesOf(ids []int) []*gate {
	if len(ids) == 0 {
		return slices.Clone(b.gates)
	}
	var gates []*gate
	for _, id := range ids {
		gates = append(gates, b.gates[id])
	}
	return gates
}

// Leader returns the id of the broker that leads a partition, -1 if there is no such partition.
func (b *Broker) Leader(topic string, partition int) int {
	return int(b.cluster.LeaderFor(topic, int32(partition)))
}

// MoveLeader makes a broker the leader of a partition.
func (b *Broker) MoveLeader(topic string, partition, id int) error {
	return b.cluster.MoveTopicPartition(topic, int32(partition), int32(id))
}
