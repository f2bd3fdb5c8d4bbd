package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// source makes the events of a run.
type source interface {
	// steadily makes rate events a second for so long.
	steadily(ctx context.Context, rate float64, long time.Duration) error
	published() []uint32 // of each stream
	total() int64
	maxLate() time.Duration
}

// load publishes events at a steady rate. Each lane has its share: it hands over what is due, together, waits for the
// acknowledgement and goes on, so that what comes due meanwhile goes with the next.
type load struct {
	cfg     Config
	run     uint32
	to      Publisher
	streams int // lanes, or keys
	numbers []atomic.Uint32
	handed  atomic.Int64 // events that were handed over
	latest  atomic.Int64 // the longest that an event was handed over after it was due, in nanoseconds
	values  []byte       // the template
	halt    atomic.Bool  // no more events are made
}

func newLoad(cfg Config, run uint32) (*load, error) {
	if cfg.Publisher == nil {
		return nil, errors.New("--brokers or --publish-url: say where events are published")
	}
	template, err := valueTemplate(cfg.Size, cfg.Seed)
	if err != nil {
		return nil, err
	}
	l := &load{cfg: cfg, run: run, to: cfg.Publisher, streams: cfg.Publisher.Lanes(), values: template}
	if l.streams < 1 {
		return nil, fmt.Errorf("--topic: %s has no partition to publish to", cfg.Topic)
	}
	if cfg.Keyed {
		l.streams = cfg.Conns
	}
	l.numbers = make([]atomic.Uint32, l.streams)
	return l, nil
}

// published returns how many events there are of each stream.
func (l *load) published() []uint32 {
	all := make([]uint32, len(l.numbers))
	for i := range l.numbers {
		all[i] = l.numbers[i].Load()
	}
	return all
}

func (l *load) total() int64           { return l.handed.Load() }
func (l *load) maxLate() time.Duration { return time.Duration(l.latest.Load()) }

// key returns the key of a stream's events.
func (cfg Config) key(stream int) string { return cfg.KeyPrefix + strconv.Itoa(stream) }

// steadily publishes rate events a second (0: as fast as they are acknowledged) for so long.
func (l *load) steadily(ctx context.Context, rate float64, long time.Duration) error {
	until := time.Now().Add(long)
	return l.lanes(ctx, func(ctx context.Context, lane int) error {
		p := l.pace(lane, rate)
		for !l.halt.Load() {
			n, wait := p.due(time.Now(), until)
			switch {
			case wait > 0:
				if err := sleep(ctx, wait); err != nil {
					return err
				}
			case n == 0:
				return nil
			default:
				if err := l.hand(ctx, p, n); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// atOnce publishes so many events, as fast as they are acknowledged.
func (l *load) atOnce(ctx context.Context, events int) error {
	return l.lanes(ctx, func(ctx context.Context, lane int) error {
		p := l.pace(lane, 0)
		share := events / l.to.Lanes()
		if lane < events%l.to.Lanes() {
			share++
		}
		for share > 0 && len(p.streams) > 0 {
			n := min(share, l.cfg.Batch)
			if err := l.hand(ctx, p, n); err != nil {
				return err
			}
			share -= n
		}
		return nil
	})
}

// lanes has each lane do its work, and returns once all have; the first that fails ends the others.
func (l *load) lanes(ctx context.Context, work func(ctx context.Context, lane int) error) error {
	going, end := context.WithCancelCause(ctx)
	defer end(nil)
	var wait sync.WaitGroup
	for lane := range l.to.Lanes() {
		wait.Go(func() {
			if err := work(going, lane); err != nil {
				end(fmt.Errorf("publish: %w", err))
			}
		})
	}
	wait.Wait()
	return context.Cause(going)
}

// pacer says what of a lane is due. Lanes take turns, and so do the streams of a lane.
type pacer struct {
	lane    int
	streams []int // those of this lane
	turn    int
	start   time.Time
	every   time.Duration // 0: always
	linger  time.Duration // how long an event waits for others
	random  *rand.Rand    // nil: events come evenly; else as from many that know nothing of each other (Poisson)
	next    time.Duration // from start until the next event
	batch   int
	events  []Event
	values  [][]byte
	keys    map[int][]byte
	late    time.Duration // of the oldest event that was due last
}

func (l *load) pace(lane int, rate float64) *pacer {
	p := &pacer{lane: lane, start: time.Now(), linger: l.cfg.Linger, batch: l.cfg.Batch, keys: map[int][]byte{}}
	for s := lane; s < l.streams; s += l.to.Lanes() {
		p.streams = append(p.streams, s)
	}
	if rate > 0 && len(p.streams) > 0 {
		whole := float64(time.Second) / rate * float64(l.streams)
		p.every = max(1, time.Duration(whole/float64(len(p.streams))))
		p.next = time.Duration(float64(lane) * float64(time.Second) / rate)
		if l.cfg.Arrivals == RandomArrivals {
			p.random = rand.New(rand.NewPCG(l.cfg.Seed, uint64(lane)))
			p.next = p.gap()
		}
	}
	return p
}

// gap returns the time between an event and the next.
func (p *pacer) gap() time.Duration {
	if p.random == nil {
		return p.every
	}
	return time.Duration(p.random.ExpFloat64() * float64(p.every))
}

// due returns how many events are to be handed over now, or how long there is nothing to do; neither: it is over.
func (p *pacer) due(now, until time.Time) (events int, wait time.Duration) {
	if len(p.streams) == 0 || now.After(until) && p.every == 0 {
		return 0, 0
	}
	if p.every == 0 {
		return p.batch, 0
	}
	next := p.start.Add(p.next)
	if !next.Before(until) {
		return 0, 0
	}
	if wait := next.Add(p.linger).Sub(now); wait > 0 {
		return 0, wait
	}
	p.late = now.Sub(next) - p.linger
	last := now
	if last.After(until) {
		last = until.Add(-1)
	}
	for events < p.batch && !p.start.Add(p.next).After(last) {
		p.next += p.gap()
		events++
	}
	return events, 0
}

// hand gives events to the publisher, stamped with the time: where they lingered, that when the first of them came.
func (l *load) hand(ctx context.Context, p *pacer, n int) error {
	for len(p.values) < n {
		p.values = append(p.values, append([]byte(nil), l.values...))
	}
	p.events = p.events[:0]
	now := nanoseconds(time.Now())
	if p.linger > 0 {
		now -= int64(p.late + p.linger)
	}
	for i := range n {
		stream := p.streams[p.turn]
		p.turn = (p.turn + 1) % len(p.streams)
		number := l.numbers[stream].Add(1) - 1
		Mark{Run: l.run, Stream: uint32(stream), Number: number, At: now}.put(p.values[i][len(valueHead):])
		p.events = append(p.events, Event{Key: p.key(l.cfg, stream), Value: p.values[i]})
	}
	l.handed.Add(int64(n))
	for {
		if was := l.latest.Load(); int64(p.late) <= was || l.latest.CompareAndSwap(was, int64(p.late)) {
			break
		}
	}
	return l.to.Publish(ctx, p.lane, p.events)
}

func (p *pacer) key(cfg Config, stream int) []byte {
	if !cfg.Keyed {
		return nil
	}
	key, ok := p.keys[stream]
	if !ok {
		key = []byte(cfg.key(stream))
		p.keys[stream] = key
	}
	return key
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
