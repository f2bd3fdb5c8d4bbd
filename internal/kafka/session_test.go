package kafka

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/goodgo/streamgw/internal/stream/streamtest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
)

// A thousand topics with a subscriber each: one connection to each broker, as for one topic, and a parked goroutine a
// topic. An event of each arrives.
func TestReaderOfAThousandTopics(t *testing.T) {
	const topics, brokers = 1000, 2
	var all []devbroker.Topic
	for i := range topics {
		all = append(all, devbroker.Topic{Name: fmt.Sprint("topic.", i), Partitions: 1})
	}
	broker := embedded(t, devbroker.Config{Brokers: brokers, Topics: all})
	cluster := newContractCluster(t, broker.Addrs(), func() {})
	registry := prometheus.NewRegistry()
	reader := runReader(t, newClient(t, Config{Brokers: broker.Addrs(), Metrics: registry}))

	first := streamtest.Follow(t, reader, all[0].Name)
	publish := func(topics ...devbroker.Topic) {
		var records []stream.Record
		for _, topic := range topics {
			records = append(records, streamtest.Records(topic.Name, 0, 0, 1)...)
		}
		_, err := cluster.Produce(t.Context(), "none", records...)
		check(t, err)
	}
	publish(all[0])
	first.AwaitMessages(1)
	goroutines := runtime.NumGoroutine()

	followers := make([]*streamtest.Follower, topics)
	followers[0] = first
	var work sync.WaitGroup
	places := make(chan struct{}, 16)
	for i := 1; i < topics; i++ {
		places <- struct{}{}
		work.Go(func() {
			followers[i] = streamtest.Follow(t, reader, all[i].Name)
			<-places
		})
	}
	work.Wait()
	publish(all[1:]...)
	for _, f := range followers {
		f.AwaitMessages(1)
	}
	if n := runtime.NumGoroutine() - goroutines; n > topics+50 {
		t.Errorf("%d more goroutines for %d more topics, want one for each, which is Read's own", n, topics-1)
	}
	awaitFetchConnections(t, registry, brokers)
}

// awaitFetchConnections waits for guests to leave, which takes a long poll, and fails the test if there are never so many
// connections to fetch over, or if there are ever more than twice as many.
func awaitFetchConnections(t *testing.T, registry *prometheus.Registry, want int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		n := gatherOne(t, registry, "streamgw_fetch_connections")
		if n == float64(want) {
			return
		}
		if n > float64(2*want) || time.Now().After(deadline) {
			t.Fatalf("%v connections to fetch over, want %d", n, want)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// What is added doesn't wait for the long poll that stands: the first event of each of 20 topics comes at once.
func TestReaderOfAnAddedTopicDoesNotWait(t *testing.T) {
	broker := embedded(t, devbroker.Config{})
	cluster := newContractCluster(t, broker.Addrs(), func() {})
	registry := prometheus.NewRegistry()
	client := newClient(t, Config{Brokers: broker.Addrs(), MaxWait: 5 * time.Second, Metrics: registry})
	reader := runReader(t, client)
	begun := time.Now()
	for i := range 20 {
		topic := fmt.Sprint("topic.", i)
		check(t, cluster.CreateTopic(t.Context(), topic, 2, nil))
		f := streamtest.Follow(t, reader, topic)
		_, err := cluster.Produce(t.Context(), "none", streamtest.Records(topic, 1, 0, 3)...)
		check(t, err)
		f.AwaitMessages(3)
	}
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("20 topics took %v, with a long poll of 5 s", took)
	}
	if n := gatherOne(t, registry, "streamgw_fetch_connections"); n > 2 {
		t.Errorf("%v connections to fetch over, want two at most", n)
	}
}

// Several topics of several partitions have news all the time, so that a session's answers have them in any order.
func TestSessionOfBusyTopics(t *testing.T) {
	c, _ := onCluster(t, 0)
	reader := NewReader(c.client(t))
	reader.sessionParts = 1
	run(t, reader)
	b := &readerBench{T: t, cluster: newContractCluster(t, c.brokers, func() {}), reader: reader}
	var topics []string
	for range 4 {
		topics = append(topics, b.topic(4))
	}
	type published struct {
		follower *streamtest.Follower
		stop     func() []stream.Message
	}
	var all []published
	for _, topic := range topics {
		all = append(all, published{b.follow(topic), b.publish(topic, 4)})
	}
	for _, p := range all {
		p.follower.AwaitMessages(500)
	}
	for _, p := range all {
		b.wantAll(p.follower, p.stop())
	}
}

// Topics are added, which guests read at first, while leaders move and brokers leave and return.
func TestReaderOfTopicsThatComeInTrouble(t *testing.T) {
	eachWay(t, devbroker.Config{Brokers: 3}, func(b *readerBench) {
		topics := make([]string, 12)
		for i := range topics {
			topics[i] = b.topic(4)
		}
		type published struct {
			follower *streamtest.Follower
			stop     func() []stream.Message
		}
		var all []published
		for i, topic := range topics {
			all = append(all, published{b.follow(topic), b.publish(topic, 2)})
			leaves, stays := i/3%3, (i/3+1)%3
			check(b.T, b.broker.MoveLeader(topic, 0, stays)) // or nobody could write
			if i%3 == 2 {
				b.broker.Down(leaves)
				all[i].follower.AwaitMessages(1)
				check(b.T, b.broker.Up(leaves))
			}
		}
		for _, p := range all {
			p.follower.AwaitMessages(20)
		}
		for _, p := range all {
			b.wantAll(p.follower, p.stop())
		}
	})
}

// The broker has place for one session, and two readers want one.
func TestReadersLoseTheirSessionsToEachOther(t *testing.T) {
	b := newReaderBenchWith(t, devbroker.Config{Options: []kfake.Opt{kfake.BrokerConfigs(map[string]string{"max.incremental.fetch.session.cache.slots": "1"})}}, 1)
	other := NewReader(b.client)
	other.sessionParts = 1
	run(t, other)
	topic := b.topic(3)
	f, g := b.follow(topic), streamtest.Follow(t, other, topic)
	stop := b.publish(topic, 3)
	f.AwaitMessages(100)
	g.AwaitMessages(100)
	want := stop()
	b.wantAll(f, want)
	b.wantAll(g, want)
}

// Topics come and go while others are read: what isn't fetched any more disturbs nobody, though its news still come.
func TestSessionWithGhosts(t *testing.T) {
	b := newReaderBenchWith(t, devbroker.Config{}, 1)
	stays := b.topic(3)
	f := b.follow(stays)
	stop := b.publish(stays, 3)
	for i := range 10 {
		topic := b.topic(2)
		g := b.follow(topic)
		want := b.produce(streamtest.Records(topic, 1, 0, 3)...)
		streamtest.Same(t, "of a topic that came", g.AwaitMessages(3), want)
		g.Stop()
		if i%2 == 0 { // a ghost with news
			b.produce(streamtest.Records(topic, 1, 3, 4)...)
			g = b.follow(topic) // and it is fetched again
			want = b.produce(streamtest.Records(topic, 1, 4, 6)...)
			streamtest.Same(t, "of a topic that came again", g.AwaitMessages(2), want)
			g.Stop()
		}
		f.AwaitMessages(len(f.Seen().Messages) + 5)
	}
	b.wantAll(f, stop())
}

// sarama keeps one of the places that a topic has in an answer: what may have stood in another is asked for again.
func TestSessionAnswerMayHide(t *testing.T) {
	s := &session{parts: map[string]map[int32]*part{}}
	parts := map[string]*part{}
	for _, topic := range []string{"a", "b"} {
		rd := &reading{topic: topic}
		for p := range int32(3) {
			one := &part{reading: rd, partition: p, remembered: remembered{by: s}}
			s.add(one)
			parts[fmt.Sprint(topic, p)] = one
		}
	}
	ghost := &part{reading: &reading{topic: "ghost"}, remembered: remembered{by: s}}
	s.add(ghost)
	s.drop(ghost)
	type blocks = map[int32]*sarama.FetchResponseBlock
	for name, tt := range map[string]struct {
		answer       map[string]blocks
		parts, hides []string
		over         bool
	}{
		"nothing":    {nil, nil, nil, false},
		"one topic":  {map[string]blocks{"a": {1: {}, 2: {}}}, []string{"a1", "a2"}, nil, false},
		"two topics": {map[string]blocks{"a": {0: {}}, "b": {0: {}, 1: {}, 2: {}}}, []string{"a0", "b0", "b1", "b2"}, []string{"a1", "a2"}, false},
		"a ghost":    {map[string]blocks{"ghost": {0: {}}}, nil, nil, true},
	} {
		s.over = false
		told, hidden := s.answered(&sarama.FetchResponse{Blocks: tt.answer})
		if got := namesOf(told); !slices.Equal(got, tt.parts) {
			t.Errorf("%s: it tells of %v, want %v", name, got, tt.parts)
		}
		if got := namesOf(hidden); !slices.Equal(got, tt.hides) {
			t.Errorf("%s: it may hide %v, want %v", name, got, tt.hides)
		}
		if s.over != tt.over {
			t.Errorf("%s: over is %v", name, s.over)
		}
	}
}

func namesOf(parts []*part) (names []string) {
	for _, p := range parts {
		names = append(names, fmt.Sprint(p.reading.topic, p.partition))
	}
	slices.Sort(names)
	return names
}

// A session that remembers more ghosts than parts ends.
func TestSessionEndsWithManyGhosts(t *testing.T) {
	s := &session{parts: map[string]map[int32]*part{}}
	for i := range sessionGhosts + 1 {
		if s.over {
			t.Fatalf("over with %d ghosts", i)
		}
		p := &part{reading: &reading{topic: fmt.Sprint(i)}, remembered: remembered{by: s}}
		s.add(p)
		s.drop(p)
	}
	if !s.over || len(s.parts) != 0 {
		t.Errorf("over: %v, parts: %d", s.over, len(s.parts))
	}
}
