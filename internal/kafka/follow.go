package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// goneAfter is how many look-ups in a row must miss a topic until it counts as deleted, or name an earlier one of its name
// until that is believed: one broker may lag.
const goneAfter = 3

// applyLocked has a reading follow what metadata says of its topic: its parts go to the leaders' fetchers, partitions
// that were added begin, and a topic that was created again begins anew.
func (r *Reader) applyLocked(rd *reading, md topicMetadata, now time.Time) {
	rd.known = true
	if err := topicError(rd.topic, md.err); err != nil {
		// Gone, perhaps for good: its fetchers find out by themselves. Or a broker that lags says so.
		if rd.failures == 0 {
			r.log.Info("topic can't be read now", "topic", rd.topic, "error", err)
		}
		r.backOffLocked(rd, now)
		if e, ok := errors.AsType[*stream.Error](err); ok && e.Kind == stream.NotFound {
			if rd.missing++; rd.missing >= goneAfter {
				rd.tellGone(true)
			}
		}
		return
	}
	rd.missing = 0
	rd.tellGone(false)
	rd.mu.Lock()
	defer rd.mu.Unlock()
	if rd.ended {
		return
	}
	if !sameID(rd.id, md.id) {
		if rd.again++; slices.Contains(rd.past, md.id) && rd.again < goneAfter {
			r.backOffLocked(rd, now) // the broker lags
			return
		}
		r.restartLocked(rd, md)
		return
	}
	rd.again = 0
	for i, pm := range md.partitions {
		if i == len(rd.parts) {
			r.log.Info("partition was added", "topic", rd.topic, "partition", i)
			rd.addLocked(0, r.metrics.lagOf(rd.topic)(int32(i)))
		}
		r.assignLocked(rd.parts[i], pm, now)
	}
	rd.failures, rd.retry = 0, time.Time{}
}

// assignLocked gives a part to the fetcher of its leader, unless it has it. Both its reading's lock and the Reader's
// are held.
func (r *Reader) assignLocked(p *part, pm partitionMetadata, now time.Time) {
	if p.fetcher != nil && (p.fetcher.broker == pm.leader || pm.leader < 0 || pm.leaderEpoch <= p.epoch) {
		return
	}
	if p.fetcher == nil && p.retry.After(now) {
		return
	}
	heir := p.heir()
	p.dead.Store(true)
	p.reading.parts[p.partition] = heir
	if pm.leader < 0 {
		heir.failures++
		heir.retry = now.Add(retryDelay(heir.failures + 1))
		return
	}
	heir.epoch = pm.leaderEpoch
	heir.fetcher = r.fetcherLocked(pm.leader)
	heir.fetcher.addLocked(heir)
}

// fetcherLocked returns the fetcher of a broker, and starts it if there is none.
func (r *Reader) fetcherLocked(broker int32) *fetcher {
	f, ok := r.fetchers[broker]
	if !ok {
		ctx, cancel := context.WithCancel(r.ctx)
		f = newFetcher(r, broker, r.client.cfg.MaxWait, cancel)
		r.fetchers[broker] = f
		r.run(func() { f.run(ctx) })
	}
	return f
}

// lost takes back parts that their fetcher couldn't read.
func (r *Reader) lost(parts []*part, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	now := time.Now()
	for _, p := range parts {
		p.fetcher = nil
		p.failures++
		p.retry = now.Add(retryDelay(p.failures))
		if p.failures == 3 && !p.dead.Load() { // once or twice is what a leader's move looks like
			r.log.Warn("partition can't be read", "topic", p.reading.topic, "partition", p.partition, "offset", p.next, "error", err)
		}
	}
	r.wakeUp()
}

// restartLocked has a reading begin anew, in a topic that was created under the name of the one it has read, if its
// leaders say so too.
func (r *Reader) restartLocked(rd *reading, md topicMetadata) {
	r.log.Info("topic was created again", "topic", rd.topic, "was", rd.id, "is", md.id)
	rd.restarting = true
	r.run(func() {
		var begin []int64
		err := r.client.confirm(r.ctx, rd.topic, md)
		if err == nil {
			begin, err = r.beginning(r.ctx, rd.topic, md)
		}
		if err == nil {
			rd.begin(md.id, begin, begin, r.metrics.lagOf(rd.topic))
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		rd.restarting = false
		if err != nil {
			rd.known = false
			r.backOffLocked(rd, time.Now())
		} else if _, reads := r.readings[rd]; reads && r.run != nil {
			r.applyLocked(rd, md, time.Now())
		}
		r.wakeUp()
	})
}

// beginning looks up the log start of every partition of a topic that is new. A leader that hasn't heard of the change
// yet would answer for the old topic, whose log may have started late: such an answer is asked for again.
func (r *Reader) beginning(ctx context.Context, topic string, md topicMetadata) ([]int64, error) {
	const settle = 500 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		begin, err := r.client.offsets(ctx, topic, md, stream.Earliest)
		if err != nil || slices.Max(append([]int64{0}, begin...)) == 0 {
			return begin, err
		}
		if err := sleep(ctx, settle); err != nil {
			return nil, err
		}
		again, err := r.client.offsets(ctx, topic, md, stream.Earliest)
		if err != nil || slices.Equal(begin, again) {
			return again, err
		}
	}
}

// sleep waits, or returns the reason when ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
