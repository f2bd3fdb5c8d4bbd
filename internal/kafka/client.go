package kafka

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
)

// Client reaches one cluster. What reads, writes and looks up shares it; each kind of work has its own connections.
// Its methods are safe to call from many goroutines.
type Client struct {
	cfg     Config
	metrics *clientMetrics
	work    sync.WaitGroup // what was started aside; Close waits for it

	mu      sync.Mutex // guards what follows
	closed  bool
	wires   map[*wire]struct{} // every open connection
	pools   map[poolKey]*pool  // of connections that requests share
	brokers map[int32]string   // as the last metadata had them
	last    string             // the address that answered for metadata last
}

// errClosed is what everything answers once Close was called.
var errClosed = errors.New("the Kafka client is closed")

// New returns a client of the cluster that cfg names. It connects to nothing yet. An error names the setting at fault.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	setSarama()
	return &Client{
		cfg:     cfg,
		metrics: newClientMetrics(cfg.Metrics),
		wires:   map[*wire]struct{}{},
		pools:   map[poolKey]*pool{},
		brokers: map[int32]string{},
	}, nil
}

// Close ends every connection, also those that dial gave out (their owners close them all the same), and with them the
// calls that wait. Nothing can be asked afterwards.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	wires := slices.Collect(maps.Keys(c.wires))
	pools := slices.Collect(maps.Values(c.pools))
	c.mu.Unlock()
	for _, p := range pools {
		p.close()
	}
	for _, w := range wires {
		w.Close()
	}
	c.work.Wait()
	return nil
}

// start runs f aside, unless the client is closed. Close waits for it.
func (c *Client) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.work.Go(f)
	return true
}

// metadata is what a broker says of the cluster.
type metadata struct {
	brokers map[int32]string // address by id
	topics  map[string]topicMetadata
}

// topicMetadata is what a broker says of one topic.
type topicMetadata struct {
	err        sarama.KError      // ErrUnknownTopicOrPartition: there is none
	id         stream.Incarnation // zero if the broker has no topic ids
	internal   bool
	partitions []partitionMetadata // indexed by partition
}

type partitionMetadata struct {
	leader, leaderEpoch int32 // leader -1: none
	err                 sarama.KError
}

// metadata asks a broker about topics, or about all when none is named. It asks anew, never a cache, and never creates
// a topic. The broker that answered last is asked first, and the next one as soon as that fails or takes long. When
// none answers, the error is of kind Unavailable; each was then tried once.
func (c *Client) metadata(ctx context.Context, topics ...string) (*metadata, error) {
	const head = 400 * time.Millisecond // a broker's lead over the next one
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	type answer struct {
		addr string
		md   *metadata
		err  error
	}
	addrs := c.candidates()
	answers := make(chan answer, len(addrs))
	var failures []error
	for asked := 0; len(failures) < len(addrs); {
		var late <-chan time.Time
		if asked < len(addrs) {
			addr := addrs[asked]
			asked++
			if !c.start(func() {
				md, err := c.askMetadata(ctx, addr, topics)
				answers <- answer{addr, md, err}
			}) {
				return nil, unavailable(errClosed)
			}
			if asked < len(addrs) {
				late = time.After(head)
			}
		}
		select {
		case a := <-answers:
			if a.err == nil {
				c.learn(a.addr, a.md)
				return a.md, nil
			}
			failures = append(failures, a.err)
		case <-late:
		case <-ctx.Done():
			return nil, unavailable(errors.Join(append(failures, context.Cause(ctx))...))
		}
	}
	return nil, unavailable(errors.Join(failures...))
}

// candidates returns the addresses to ask for metadata, the most promising first.
func (c *Client) candidates() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var addrs []string
	if c.last != "" {
		addrs = append(addrs, c.last)
	}
	for _, id := range slices.Sorted(maps.Keys(c.brokers)) {
		addrs = append(addrs, c.brokers[id])
	}
	var unique []string
	for _, addr := range append(addrs, c.cfg.Brokers...) {
		if !slices.Contains(unique, addr) {
			unique = append(unique, addr)
		}
	}
	return unique
}

func (c *Client) learn(addr string, md *metadata) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.brokers = addr, md.brokers
}

// address returns where a broker is, as the last metadata had it.
func (c *Client) address(broker int32) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	addr, ok := c.brokers[broker]
	if !ok {
		return "", sarama.ErrBrokerNotFound
	}
	return addr, nil
}

// metadataRequest asks for topics, or for all when none is named, and creates none.
func metadataRequest(topics []string) *sarama.MetadataRequest {
	request := sarama.NewMetadataRequest(protocol, topics)
	request.AllowAutoTopicCreation = false
	return request
}

func (c *Client) askMetadata(ctx context.Context, addr string, topics []string) (*metadata, error) {
	response, err := exchange(ctx, c, lookups, addr, func(b *sarama.Broker) (*sarama.MetadataResponse, error) {
		return b.GetMetadata(metadataRequest(topics))
	})
	if err != nil {
		return nil, err
	}
	if len(response.Brokers) == 0 {
		return nil, errors.New(addr + " knows no broker yet")
	}
	md := &metadata{brokers: map[int32]string{}, topics: map[string]topicMetadata{}}
	for _, b := range response.Brokers {
		md.brokers[b.ID()] = b.Addr()
	}
	for _, t := range response.Topics {
		md.topics[t.Name] = newTopicMetadata(t)
	}
	for _, name := range topics {
		if _, ok := md.topics[name]; !ok {
			return nil, errors.New(addr + " didn't answer about " + name)
		}
	}
	return md, nil
}

func newTopicMetadata(t *sarama.TopicMetadata) topicMetadata {
	md := topicMetadata{err: t.Err, id: incarnation(t.Uuid), internal: t.IsInternal}
	for _, p := range slices.SortedFunc(slices.Values(t.Partitions), func(a, b *sarama.PartitionMetadata) int { return cmp.Compare(a.ID, b.ID) }) {
		for int(p.ID) > len(md.partitions) { // one that the broker left out
			md.partitions = append(md.partitions, partitionMetadata{leader: -1, leaderEpoch: -1, err: sarama.ErrLeaderNotAvailable})
		}
		md.partitions = append(md.partitions, partitionMetadata{leader: p.Leader, leaderEpoch: p.LeaderEpoch, err: p.Err})
	}
	return md
}

// incarnation returns the bytes of a topic id that positions carry; zero if the broker has no ids.
func incarnation(id sarama.Uuid) stream.Incarnation {
	var i stream.Incarnation
	copy(i[:], id[:])
	return i
}

// unavailable returns the error of a cluster that didn't answer.
func unavailable(cause error) error {
	return &stream.Error{Kind: stream.Unavailable, Detail: "Kafka can't be reached", Err: cause}
}

// topicError returns what a broker's error code for a topic means to a client; nil for none.
func topicError(topic string, code sarama.KError) error {
	switch code {
	case sarama.ErrNoError:
		return nil
	case sarama.ErrUnknownTopicOrPartition, sarama.ErrInvalidTopic, sarama.ErrTopicAuthorizationFailed:
		return &stream.Error{Kind: stream.NotFound, Detail: "there is no topic " + topic, Err: code}
	}
	return &stream.Error{Kind: stream.Unavailable, Detail: "Kafka can't serve the topic " + topic + " now", Err: code}
}
