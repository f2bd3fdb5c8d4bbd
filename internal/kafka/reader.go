package kafka

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// Reader is the live reader that all topics in use share. From each broker that leads a partition of any of them it
// fetches over one connection, all these partitions in one request, so that neither connections nor requests grow with
// the number of topics; when they are many, in a session, so that quiet ones hardly cost. What is added while a request
// stands at the broker is fetched over a second connection until that is answered. It implements [stream.Source].
//
// A partition is fetched from a broker only when that broker has said, on the same connection and since the last error,
// that the topic is the one that is read: messages of a topic that was created again are never taken for the old one's.
type Reader struct {
	client  *Client
	log     *slog.Logger
	metrics *readerMetrics

	sessionParts int // so many partitions of a broker, and more, are fetched in a session

	wake chan struct{} // has one when Run should look at readings before its time
	done chan struct{} // closed when Run has ended

	// mu guards what follows and fields of readings and parts. It may be held when a reading's lock is taken, and
	// that when a fetcher's is; never the other way round.
	mu       sync.Mutex
	run      func(func()) // starts a goroutine that Run waits for; nil while Run doesn't
	ctx      context.Context
	ended    bool
	away     bool // the last look at the metadata failed
	readings map[*reading]struct{}
	fetchers map[int32]*fetcher
	count    int // of readings, ever
}

const (
	refreshEvery  = 3 * time.Second         // between looks at the metadata of all topics in use
	startPatience = 4500 * time.Millisecond // for a topic to be readable at first
	firstRetry    = 100 * time.Millisecond
	lastRetry     = 2 * time.Second
	fetcherIdle   = 30 * time.Second // after it, a connection that has nothing to read is closed
)

// NewReader returns a Reader of the client's cluster. It reads nothing until Run.
func NewReader(c *Client) *Reader {
	return &Reader{
		client:       c,
		log:          c.cfg.Log,
		metrics:      newReaderMetrics(c.cfg.Metrics),
		sessionParts: sessionParts,
		wake:         make(chan struct{}, 1),
		done:         make(chan struct{}),
		readings:     map[*reading]struct{}{},
		fetchers:     map[int32]*fetcher{},
	}
}

// Read implements [stream.Source]. It needs Run: when that ends, every Read does, with an error of kind Unavailable.
func (r *Reader) Read(ctx context.Context, topic string, emit func(stream.Batch)) error {
	md, start, err := r.stand(ctx, topic)
	if err != nil {
		return err
	}
	rd := &reading{topic: topic, emit: emit, consumed: r.metrics.enter(topic)}
	defer r.metrics.leave(topic)
	defer rd.stop()
	rd.begin(start.Incarnation, start.Begin, start.Next, r.metrics.lagOf(topic))
	if err := r.add(rd, md); err != nil {
		return err
	}
	defer r.remove(rd)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.done:
		return errReaderEnded()
	}
}

func errReaderEnded() error {
	return stream.Errorf(stream.Unavailable, "the reader of Kafka has ended")
}

// stand looks up what the topic is and where it begins and ends. It gives up after some seconds.
func (r *Reader) stand(ctx context.Context, topic string) (md topicMetadata, start stream.Start, err error) {
	if !stream.ValidTopic(topic) || stream.InternalTopic(topic) {
		return md, start, noTopic(topic)
	}
	limited, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	err = retry(limited, mayPassOrRecreated, func() error {
		if md, err = r.client.readableTopic(limited, topic); err != nil {
			return err
		}
		if err = r.client.confirm(limited, topic, md); err != nil {
			return err
		}
		start.Incarnation = md.id
		if start.Begin, err = r.client.offsets(limited, topic, md, stream.Earliest); err != nil {
			return err
		}
		start.Next, err = r.client.offsets(limited, topic, md, stream.Latest)
		return err
	})
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return md, start, err
}

// readableTopic asks for the metadata of a topic that may be served.
func (c *Client) readableTopic(ctx context.Context, topic string) (topicMetadata, error) {
	md, err := c.metadata(ctx, topic)
	if err != nil {
		return topicMetadata{}, err
	}
	t := md.topics[topic]
	if t.internal {
		return t, noTopic(topic)
	}
	return t, topicError(topic, t.err)
}

func noTopic(topic string) error {
	return stream.Errorf(stream.NotFound, "there is no topic %s", topic)
}

// mayPassOrRecreated reports whether an error is one that time, or another look at the topic, may heal.
func mayPassOrRecreated(err error) bool {
	_, recreated := errors.AsType[*stream.RecreatedError](err)
	return recreated || mayPass(err)
}

// add has a reading read on from where it stands.
func (r *Reader) add(rd *reading, md topicMetadata) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return errReaderEnded()
	}
	for other := range r.readings {
		if other.topic == rd.topic {
			other.twin.Store(true)
			rd.twin.Store(true)
		}
	}
	r.count++
	rd.number = r.count
	r.readings[rd] = struct{}{}
	if r.run != nil {
		r.applyLocked(rd, md, time.Now())
	}
	if _, wants := rd.wantsLocked(); wants {
		r.wakeUp()
	}
	return nil
}

func (r *Reader) remove(rd *reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.readings, rd)
}

// Run reads until ctx ends. It owns every goroutine of the Reader and waits for them.
func (r *Reader) Run(ctx context.Context) error {
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	r.run, r.ctx = work.Go, ctx
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.run, r.ended = nil, true
		r.mu.Unlock()
		cancel()
		work.Wait()
		close(r.done)
	}()
	refreshed := time.Now()
	for {
		timer := time.NewTimer(time.Until(r.nextLook(refreshed.Add(refreshEvery))))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
		now := time.Now()
		all := now.Sub(refreshed) >= refreshEvery
		if all {
			refreshed = now
			r.closeIdle(now)
		}
		if due := r.due(now, all); len(due) > 0 {
			r.refresh(ctx, due)
		}
	}
}

// wakeUp has Run look at the readings soon.
func (r *Reader) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// nextLook returns when the metadata of a reading is wanted next, latest at an instant.
func (r *Reader) nextLook(latest time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	for rd := range r.readings {
		if at, wants := rd.wantsLocked(); wants && at.Before(latest) {
			latest = at
		}
	}
	return latest
}

// due returns the readings whose metadata is wanted now.
func (r *Reader) due(now time.Time, all bool) []*reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	var due []*reading
	for rd := range r.readings {
		if at, wants := rd.wantsLocked(); all && !rd.restarting || wants && !at.After(now) {
			due = append(due, rd)
		}
	}
	return due
}

// wantsLocked reports whether the reading has a part that nobody reads, and from when on it may be looked for.
// The Reader's lock is held.
func (rd *reading) wantsLocked() (at time.Time, wants bool) {
	if rd.restarting {
		return at, false
	}
	rd.mu.Lock()
	defer rd.mu.Unlock()
	for _, p := range rd.parts {
		if p.fetcher == nil && (!wants || p.retry.Before(at)) {
			at, wants = p.retry, true
		}
	}
	if !rd.known {
		wants = true
	}
	if at.Before(rd.retry) {
		at = rd.retry
	}
	return at, wants
}

// refresh asks for the metadata of some readings' topics, in one request, and has them follow it.
func (r *Reader) refresh(ctx context.Context, due []*reading) {
	names := make([]string, 0, len(due))
	for _, rd := range due {
		names = append(names, rd.topic)
	}
	slices.Sort(names)
	md, err := r.client.metadata(ctx, slices.Compact(names)...)
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if away := err != nil; away != r.away {
		r.away = away
		r.log.Warn("Kafka's metadata", "answers", !away, "topics", len(due), "error", err)
	}
	now := time.Now()
	for _, rd := range due {
		if _, reads := r.readings[rd]; !reads {
			continue
		}
		if err != nil {
			r.backOffLocked(rd, now)
			continue
		}
		r.applyLocked(rd, md.topics[rd.topic], now)
	}
}

// backOffLocked has a reading's topic be looked up later.
func (r *Reader) backOffLocked(rd *reading, now time.Time) {
	rd.failures++
	rd.retry = now.Add(retryDelay(rd.failures + 1))
}

// retryDelay returns how long to wait after so many failures in a row: not at all after the first, then longer each
// time, by chance a little more or less.
func retryDelay(failures int) time.Duration {
	if failures <= 1 {
		return 0
	}
	d := min(firstRetry<<min(failures-2, 8), lastRetry)
	return d*3/4 + rand.N(d/2)
}

// closeIdle ends the fetchers that have had nothing to read for a while.
func (r *Reader) closeIdle(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, f := range r.fetchers {
		if f.idleSince(now) > fetcherIdle {
			f.cancel()
			delete(r.fetchers, id)
		}
	}
}
