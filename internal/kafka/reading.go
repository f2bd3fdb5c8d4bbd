package kafka

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// reading is one call of [Reader.Read].
type reading struct {
	topic    string
	emit     func(stream.Batch)
	consumed prometheus.Counter
	twin     atomic.Bool // there is, or was, another reading of the topic
	number   int         // another one for each reading of a Reader

	mu    sync.Mutex // held while emit runs; guards what follows
	ended bool
	gone  bool // the last batch said so
	id    stream.Incarnation
	past  []stream.Incarnation // earlier ids: a broker that still names one lags
	parts []*part              // by partition; another one takes a part's place when it changes hands

	restarting bool      // guarded by the Reader's lock: a goroutine looks up where the new topic begins
	known      bool      // guarded by the Reader's lock: its parts are what metadata said last
	missing    int       // guarded by the Reader's lock: look-ups in a row that found no topic
	again      int       // guarded by the Reader's lock: look-ups in a row that found another topic than the one it reads
	failures   int       // guarded by the Reader's lock: in a row, of the topic as a whole
	retry      time.Time // guarded by the Reader's lock: not before this
}

// part is where a reading stands in one partition, while one fetcher, or nobody, has it. It is never given from one to
// another, but by a guest to its host: a new part takes its place, and what the old one is still told is dropped.
type part struct {
	reading   *reading
	partition int32
	id        stream.Incarnation // of the topic that next is an offset of
	epoch     int32              // of the leader
	next      int64              // guarded by the reading's lock, but for reads by its fetcher
	dead      atomic.Bool        // set when another part took its place, or the reading ended

	// What follows is its fetcher's, and while it has none the supervisor's.

	fetcher  *fetcher // guarded by the Reader's lock: who has it; nil: nobody
	failures int      // in a row
	retry    time.Time
	asked    int64 // the offset in the request under way; -1: it has no part in it
	checked  bool  // the broker has said, on this connection and since its last error, that the topic is id
	end      int64 // the last high watermark; -1: none yet
	start    int64 // the last log start
	refused  int   // out of range in a row, though within the bounds
	starved  int   // answers in a row that had no room for it
	alone    bool  // it is to be fetched in a request of its own
	lag      prometheus.Gauge
	told     float64 // what lag was set to last

	remembered remembered
}

// heir returns a part that takes p's place. Both its reading's lock and the Reader's are held.
func (p *part) heir() *part {
	h := &part{reading: p.reading, partition: p.partition, id: p.id, epoch: p.epoch, next: p.next, end: -1, lag: p.lag, told: -1}
	if p.fetcher == nil {
		h.failures, h.retry, h.alone = p.failures, p.retry, p.alone
	}
	return h
}

// delivery is what was read for one part.
type delivery struct {
	part  *part
	batch stream.PartBatch
}

// deliver emits what was read, but for parts that are no longer the reading's, and moves the parts on.
func (r *reading) deliver(deliveries []delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	batch := stream.Batch{Parts: make([]stream.PartBatch, 0, len(deliveries))}
	for _, d := range deliveries {
		if d.part.dead.Load() {
			continue
		}
		d.part.next = d.batch.Next
		r.consumed.Add(float64(len(d.batch.Messages)))
		batch.Parts = append(batch.Parts, d.batch)
	}
	if len(batch.Parts) > 0 {
		r.gone = false
		r.emit(batch)
	}
}

// begin emits a Start and reads from next on. What was read before, if anything, was of another topic.
func (r *reading) begin(id stream.Incarnation, begin, next []int64, lag func(partition int32) prometheus.Gauge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	if r.parts != nil {
		r.past = append(r.past, r.id)
		r.buryLocked()
	}
	r.id, r.parts = id, make([]*part, 0, len(next))
	for i, offset := range next {
		r.addLocked(offset, lag(int32(i)))
	}
	r.gone = false
	r.emit(stream.Batch{Start: &stream.Start{Incarnation: id, Begin: slices.Clone(begin), Next: slices.Clone(next)}})
}

// addLocked adds the next partition, to be read from an offset.
func (r *reading) addLocked(next int64, lag prometheus.Gauge) {
	r.parts = append(r.parts, &part{
		reading: r, partition: int32(len(r.parts)), id: r.id, epoch: -1, next: next, end: -1, lag: lag, told: -1,
	})
}

// buryLocked gives up all parts.
func (r *reading) buryLocked() {
	for _, p := range r.parts {
		p.dead.Store(true)
	}
}

// tellGone emits that the topic doesn't exist any more, or that it does after all, if that is news.
func (r *reading) tellGone(gone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone != gone && !r.ended {
		r.gone = gone
		r.emit(stream.Batch{Gone: gone})
	}
}

// stop makes it that emit isn't called again.
func (r *reading) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.buryLocked()
}
