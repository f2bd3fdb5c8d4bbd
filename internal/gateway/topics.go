package gateway

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// topicInfo is what GET /v1/topics tells of a topic.
type topicInfo struct {
	Name        string          `json:"name"`
	Partitions  []partitionInfo `json:"partitions"`
	Window      windowInfo      `json:"window"`
	Subscribers int             `json:"subscribers"` // of this replica
}

// partitionInfo is a run of offsets: those from Begin up to, not including, End.
type partitionInfo struct {
	Partition int   `json:"partition"`
	Begin     int64 `json:"begin"`
	End       int64 `json:"end"`
}

// windowInfo is what this replica holds of a topic in memory.
type windowInfo struct {
	Messages int   `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

// serveTopics answers GET /v1/topics: the topics that the request may read.
func (g *Gateway) serveTopics(w http.ResponseWriter, r *http.Request) {
	if err := g.ask(r); err != nil {
		g.refuse(w, r, err)
		return
	}
	grant, err := g.access.Admit(r)
	if err == nil {
		err = noParameters(r)
	}
	var topics []stream.Topic
	if err == nil {
		topics, err = g.topics.list(r.Context())
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	held := map[string]fanout.HubStats{}
	for _, s := range g.hubs.Stats() {
		held[s.Topic] = s
	}
	infos := []topicInfo{}
	for _, t := range topics {
		if !stream.InternalTopic(t.Name) && g.cfg.Served(t.Name) && grant.MayRead(t.Name) {
			infos = append(infos, newTopicInfo(t, held[t.Name]))
		}
	}
	writeJSON(w, http.StatusOK, map[string][]topicInfo{"topics": infos})
}

func noParameters(r *http.Request) error {
	query, err := parseQuery(r.URL.RawQuery)
	for name := range query {
		if !slices.Contains(credentials, name) {
			return unknownParameter(name)
		}
	}
	return err
}

func newTopicInfo(t stream.Topic, held fanout.HubStats) topicInfo {
	info := topicInfo{
		Name: t.Name, Partitions: make([]partitionInfo, len(t.End)), Subscribers: held.Subscribers,
		Window: windowInfo{Messages: held.Messages, Bytes: held.Bytes},
	}
	for i := range t.End {
		info.Partitions[i] = partitionInfo{Partition: i, Begin: t.Begin[i], End: t.End[i]}
	}
	return info
}

const (
	topicsFresh   = time.Second     // how long a list of topics is good for
	topicsTimeout = 5 * time.Second // how long Kafka may take for one
)

// topicList asks Kafka for the topics at most once in topicsFresh, however many clients ask.
type topicList struct {
	topics stream.Topics
	turn   chan struct{} // of capacity 1: who holds it asks, and guards what follows
	last   []stream.Topic
	at     time.Time
}

func newTopicList(topics stream.Topics) *topicList {
	return &topicList{topics: topics, turn: make(chan struct{}, 1)}
}

func (l *topicList) list(ctx context.Context) ([]stream.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, topicsTimeout)
	defer cancel()
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, kafkaAway(ctx.Err())
	}
	if time.Since(l.at) < topicsFresh {
		return l.last, nil
	}
	topics, err := l.topics.List(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = kafkaAway(err)
		}
		return nil, err
	}
	l.last, l.at = topics, time.Now()
	return topics, nil
}

func kafkaAway(err error) error {
	return &stream.Error{Kind: stream.Unavailable, Detail: "Kafka doesn't answer", Err: err}
}
