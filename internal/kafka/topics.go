package kafka

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// topicsPatience is how long a look-up tries to reach Kafka before it gives up.
const topicsPatience = 5 * time.Second

// Topics finds topics. It implements [stream.Topics].
type Topics struct{ client *Client }

// Topics returns what finds topics.
func (c *Client) Topics() *Topics { return &Topics{c} }

// List returns all topics by name, without internal ones. Partitions that can't be asked now have offset -1. An error of
// kind Unavailable comes within five seconds.
func (t *Topics) List(ctx context.Context) ([]stream.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, topicsPatience)
	defer cancel()
	md, err := t.metadata(ctx)
	if err != nil {
		return nil, err
	}
	var (
		work   sync.WaitGroup
		places = make(chan struct{}, 8) // look-ups at once
		mu     sync.Mutex               // guards what follows
		topics []stream.Topic
	)
	for name, one := range md.topics {
		if one.internal || stream.InternalTopic(name) || one.err != 0 {
			continue
		}
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			begin := t.client.knownOffsets(ctx, name, one, stream.Earliest)
			end := t.client.knownOffsets(ctx, name, one, stream.Latest)
			mu.Lock()
			defer mu.Unlock()
			topics = append(topics, stream.Topic{Name: name, Incarnation: one.id, Begin: begin, End: end})
		})
	}
	work.Wait()
	slices.SortFunc(topics, func(a, b stream.Topic) int { return strings.Compare(a.Name, b.Name) })
	return topics, nil
}

// Lookup returns one topic. That there is none is answered at once; an error of kind Unavailable comes within five
// seconds.
func (t *Topics) Lookup(ctx context.Context, name string) (stream.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, topicsPatience)
	defer cancel()
	found := stream.Topic{}
	err := retry(ctx, isRecreated, func() error { // while it is looked up
		md, err := t.client.lookupTopic(ctx, name)
		if err == nil {
			found, err = t.ends(ctx, name, md)
		}
		return err
	})
	return found, err
}

// lookupTopic asks for a topic's metadata until Kafka answers. What isn't served is kind NotFound.
func (c *Client) lookupTopic(ctx context.Context, name string) (topicMetadata, error) {
	if !stream.ValidTopic(name) || stream.InternalTopic(name) {
		return topicMetadata{}, stream.Errorf(stream.NotFound, "there is no topic %s", name)
	}
	var found topicMetadata
	err := retry(ctx, mayPass, func() error {
		md, err := c.metadata(ctx, name)
		if err != nil {
			return err
		}
		found = md.topics[name]
		return topicError(name, found.err)
	})
	if err == nil && found.internal {
		err = stream.Errorf(stream.NotFound, "there is no topic %s", name)
	}
	return found, err
}

// metadata asks for all topics until Kafka answers.
func (t *Topics) metadata(ctx context.Context) (md *metadata, err error) {
	err = retry(ctx, mayPass, func() error {
		md, err = t.client.metadata(ctx)
		return err
	})
	return md, err
}

// ends looks up where a topic's partitions begin and end.
func (t *Topics) ends(ctx context.Context, name string, md topicMetadata) (stream.Topic, error) {
	begin, err := t.client.offsets(ctx, name, md, stream.Earliest)
	if err != nil {
		return stream.Topic{}, err
	}
	end, err := t.client.offsets(ctx, name, md, stream.Latest)
	if err != nil {
		return stream.Topic{}, err
	}
	return stream.Topic{Name: name, Incarnation: md.id, Begin: begin, End: end}, nil
}
