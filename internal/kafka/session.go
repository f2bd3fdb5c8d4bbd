package kafka

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

// session is what a broker remembers of a fetcher's requests (KIP-227): a request then names only the partitions that
// have changed since the one before, and an answer those with news. It makes a fetch cheap that has thousands of quiet
// ones. Requests without a session may come between: they change nothing in it.
//
// sarama can't have a broker forget a partition. One that is no longer fetched stays in the session as a ghost until it
// has news: then another session takes the place of this one.
type session struct {
	id     int32 // 0: the broker hasn't given one yet
	epoch  int32 // of the next request
	over   bool  // the next request begins another session
	parts  map[string]map[int32]*part
	size   int // of parts
	ghosts int // that the broker remembers at most
}

// remembered is what the broker of a session was told of a part.
type remembered struct {
	by     *session // nil: by none
	offset int64
	epoch  int32
}

const (
	sessionParts  = 48  // fewer are all named in each request
	sessionGhosts = 256 // more end a session, unless it is larger than that
)

// add notes that a part is fetched in the session.
func (s *session) add(p *part) {
	partitions, ok := s.parts[p.reading.topic]
	if !ok {
		partitions = map[int32]*part{}
		s.parts[p.reading.topic] = partitions
	}
	if _, ok := partitions[p.partition]; !ok {
		s.size++
	}
	partitions[p.partition] = p
}

// drop notes that a part isn't fetched in the session any more.
func (s *session) drop(p *part) {
	if s == nil || p.remembered.by != s {
		return
	}
	p.remembered = remembered{}
	partitions := s.parts[p.reading.topic]
	if partitions[p.partition] != p {
		return // another one has its place
	}
	delete(partitions, p.partition)
	if len(partitions) == 0 {
		delete(s.parts, p.reading.topic)
	}
	s.size--
	if s.ghosts++; s.ghosts > max(sessionGhosts, s.size) {
		s.over = true
	}
}

// advance takes in that the broker has answered a request.
func (s *session) advance(id int32) {
	s.id = id
	if s.epoch == math.MaxInt32 {
		s.epoch = 0
	}
	s.epoch++
}

// answered returns the parts that an answer is about, and those of which it can't be known: when an answer has a topic
// in two places, because another's partition stands between, sarama keeps the last of them only.
func (s *session) answered(response *sarama.FetchResponse) (parts, hidden []*part) {
	for topic, blocks := range response.Blocks {
		partitions := s.parts[topic]
		for partition := range blocks {
			if p := partitions[partition]; p != nil {
				parts = append(parts, p)
			} else {
				s.over = true // a ghost, which would be told of again and again
			}
		}
		for partition, p := range partitions {
			if _, ok := blocks[partition]; !ok && len(response.Blocks) > 1 {
				hidden = append(hidden, p)
			}
		}
	}
	return parts, hidden
}

// fits reports whether parts are to be fetched in a session: there are many, each once.
func (f *fetcher) fits(parts []*part) bool {
	if len(parts) < f.reader.sessionParts {
		return false
	}
	for _, p := range parts {
		if p.reading.twin.Load() {
			return false
		}
	}
	return true
}

// fetchInSession makes one request for what has changed among parts since the session's last one. The error is of the
// connection.
func (f *fetcher) fetchInSession(ctx context.Context, parts []*part, limits fetchLimits) error {
	request := f.sessionRequest(parts, limits)
	f.reader.metrics.requests.Inc()
	response, err := f.ask(ctx, request)
	switch {
	case errors.Is(err, sarama.ErrFetchSessionIDNotFound), errors.Is(err, sarama.ErrInvalidFetchSessionEpoch):
		f.session = nil // forgotten, in favour of younger ones
		return nil
	case unreadable(err):
		f.session = nil
		return f.fetch(ctx, parts, limits) // which finds out who is at fault
	case err != nil:
		return err
	}
	f.answered = time.Now()
	first := request.SessionEpoch == 0
	if first && response.SessionID == 0 {
		f.session = nil // the broker has no place for one
	} else {
		f.session.advance(response.SessionID)
	}
	if first {
		return f.handle(ctx, parts, response)
	}
	parts, f.hidden = f.session.answered(response)
	return f.handle(ctx, parts, response)
}

// sessionRequest returns the next request of the session, or the first one of another if it is over or there is none.
func (f *fetcher) sessionRequest(parts []*part, limits fetchLimits) *sarama.FetchRequest {
	request := f.reader.client.fetchRequest(limits)
	s := f.session
	if s != nil {
		request.SessionID = s.id // to be gone on with, or ended
	}
	if s == nil || s.over {
		s = &session{parts: map[string]map[int32]*part{}}
		f.session = s
	}
	request.SessionEpoch = s.epoch
	for _, p := range parts {
		p.asked = p.next
		if now := (remembered{s, p.next, p.epoch}); p.remembered != now {
			p.remembered = now
			s.add(p)
			request.AddBlock(p.reading.topic, p.partition, p.next, limits.partition, p.epoch)
		}
	}
	return request
}

// fetchHidden asks for the parts of which the last answer can't have told, without a session.
func (f *fetcher) fetchHidden(ctx context.Context) error {
	parts := slices.DeleteFunc(f.hidden, func(p *part) bool { return f.session == nil || p.remembered.by != f.session })
	f.hidden = nil
	if len(parts) == 0 {
		return nil
	}
	return f.fetch(ctx, parts, fetchLimits{bytes: fetchBytes, partition: partitionBytes})
}
