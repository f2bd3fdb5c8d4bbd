package kafka

import (
	"slices"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var _ stream.Topics = (*Topics)(nil)

func TestATopicIsFound(t *testing.T) {
	k, topic := onCluster(t, 2)
	must[[]int64](t)(k.Produce(t.Context(), devbroker.Record{Topic: topic, Partition: 1}, devbroker.Record{Topic: topic, Partition: 1}))
	check(t, k.DeleteRecords(t.Context(), topic, 1, 1))
	id := must[[16]byte](t)(k.TopicID(t.Context(), topic))
	topics := k.client(t).Topics()

	found := must[stream.Topic](t)(topics.Lookup(t.Context(), topic))
	if found.Name != topic || !slices.Equal(found.Incarnation[:], id[:4]) || !slices.Equal(found.Begin, []int64{0, 1}) || !slices.Equal(found.End, []int64{0, 2}) {
		t.Errorf("found %+v", found)
	}
	list := must[[]stream.Topic](t)(topics.List(t.Context()))
	if !slices.ContainsFunc(list, func(one stream.Topic) bool {
		return one.Name == topic && one.Incarnation == found.Incarnation && slices.Equal(one.Begin, found.Begin) && slices.Equal(one.End, found.End)
	}) {
		t.Errorf("%s isn't listed as it was found: %+v", topic, list)
	}
	if !slices.IsSortedFunc(list, func(a, b stream.Topic) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) }) {
		t.Error("the list isn't sorted by name")
	}
}

func TestAskingForATopicNeverCreatesIt(t *testing.T) {
	k, missing := onCluster(t, 0)
	c := k.client(t)
	topics := c.Topics()
	publisher := newPublisher(t, c, PublisherConfig{})
	for name, ask := range map[string]func() error{
		"looking it up": func() error { _, err := topics.Lookup(t.Context(), missing); return err },
		"publishing to it": func() error {
			_, err := publisher.Publish(t.Context(), []stream.Record{{Topic: missing, Value: []byte("v")}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			wantKind(t, ask(), stream.NotFound)
			within(t, start, 2*time.Second)
			must[[]stream.Topic](t)(topics.List(t.Context()))
			if all := must[[]string](t)(k.Admin.Topics(t.Context())); slices.Contains(all, missing) {
				t.Errorf("%s created it", name)
			}
		})
	}
}

func TestADeletedTopicStaysDeletedWhileItIsPublishedTo(t *testing.T) {
	k, topic := onCluster(t, 1)
	publisher := newPublisher(t, k.client(t), PublisherConfig{})
	write := func() error {
		_, err := publisher.Publish(t.Context(), []stream.Record{{Topic: topic, Value: []byte("v")}})
		return err
	}
	check(t, write())
	check(t, k.DeleteTopic(t.Context(), topic))
	for range 3 {
		wantKind(t, write(), stream.NotFound)
	}
	if all := must[[]string](t)(k.Admin.Topics(t.Context())); slices.Contains(all, topic) {
		t.Error("publishing created it again")
	}
}

func TestInternalTopicsAreHidden(t *testing.T) {
	k, _ := onCluster(t, 0)
	if names := must[[]string](t)(k.Admin.Topics(t.Context())); !slices.Contains(names, "__internal") {
		check(t, k.CreateTopic(t.Context(), devbroker.Topic{Name: "__internal", Partitions: 1}))
	}
	topics := k.client(t).Topics()
	_, err := topics.Lookup(t.Context(), "__internal")
	wantKind(t, err, stream.NotFound)
	for _, one := range must[[]stream.Topic](t)(topics.List(t.Context())) {
		if stream.InternalTopic(one.Name) {
			t.Errorf("%s is listed", one.Name)
		}
	}
}

func TestATopicThatTheBrokersCallInternalIsHidden(t *testing.T) {
	b := embedded(t, devbroker.Config{Topics: []devbroker.Topic{{Name: "state", Configs: map[string]string{"kfake.is_internal": "true"}}}})
	topics := newClient(t, Config{Brokers: b.Addrs()}).Topics()
	_, err := topics.Lookup(t.Context(), "state")
	wantKind(t, err, stream.NotFound)
	if list := must[[]stream.Topic](t)(topics.List(t.Context())); len(list) != 0 {
		t.Errorf("listed are %+v", list)
	}
}

func TestNamesThatNoTopicCanHaveAreNotFound(t *testing.T) {
	topics := newClient(t, Config{Brokers: []string{refusing(t)}}).Topics() // nobody is asked
	for _, name := range []string{"", ".", "a b", "ä", "a/b", "a\x00b"} {
		start := time.Now()
		_, err := topics.Lookup(t.Context(), name)
		wantKind(t, err, stream.NotFound)
		within(t, start, time.Second)
	}
}

func TestWhenAllBrokersAreAwayTopicsAreUnavailableInTime(t *testing.T) {
	for name, away := range map[string]func(*testing.T) string{"silent": silent, "refusing": refusing} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topics := newClient(t, Config{Brokers: []string{away(t)}}).Topics()
			start := time.Now()
			_, err := topics.Lookup(t.Context(), "orders")
			wantKind(t, err, stream.Unavailable)
			within(t, start, topicsPatience+time.Second)
		})
	}
}

func TestALookupOutlastsAShortAbsenceOfAllBrokers(t *testing.T) {
	b := embedded(t, devbroker.Config{Topics: []devbroker.Topic{{Name: "orders"}}})
	topics := newClient(t, Config{Brokers: b.Addrs()}).Topics()
	b.Down()
	found := make(chan error, 1)
	go func() {
		_, err := topics.Lookup(t.Context(), "orders")
		found <- err
	}()
	check(t, b.Up())
	check(t, <-found)
}

func TestAPartitionWithoutALeaderDoesNotHideItsTopic(t *testing.T) {
	b := embedded(t, devbroker.Config{Topics: []devbroker.Topic{{Name: "orders", Partitions: 2}, {Name: "users", Partitions: 1}}})
	fault := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "orders", Partitions: []int32{1}, Err: kerr.LeaderNotAvailable, Count: -1})
	defer fault.Remove()
	list := must[[]stream.Topic](t)(newClient(t, Config{Brokers: b.Addrs()}).Topics().List(t.Context()))
	if len(list) != 2 || !slices.Equal(list[0].End, []int64{0, -1}) || !slices.Equal(list[1].End, []int64{0}) {
		t.Errorf("listed are %+v", list)
	}
}
