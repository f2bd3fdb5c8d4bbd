package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
)

// fetcher reads, from one broker, all that the Reader wants of it: one request after the other over one connection.
type fetcher struct {
	reader *Reader
	broker int32
	cancel context.CancelFunc
	added  chan struct{} // has one when incoming has some

	mu       sync.Mutex // guards what follows
	incoming []*part
	reads    int       // how many parts it has, as of the last request
	since    time.Time // when reads became 0

	// What follows is run's.

	parts    []*part
	conn     *sarama.Broker
	answered time.Time // when the last answer came
	turn     int       // counts requests, to choose among those that are fetched alone
	records  recordReader
}

const (
	fetchBytes     = 8 << 20               // of an answer
	partitionBytes = 1 << 20               // of a partition in it
	stall          = 50 * time.Millisecond // between an answer and the next request
	patientAnswers = 3                     // without room for a partition, or with a puzzling refusal, before more is done about it
)

func newFetcher(r *Reader, broker int32, cancel context.CancelFunc) *fetcher {
	return &fetcher{
		reader: r, broker: broker, cancel: cancel, added: make(chan struct{}, 1),
		since: time.Now(),
	}
}

// add gives the fetcher another part, from its next request on.
func (f *fetcher) add(p *part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.incoming = append(f.incoming, p)
	select {
	case f.added <- struct{}{}:
	default:
	}
}

// idleSince returns how long the fetcher has had nothing to read.
func (f *fetcher) idleSince(now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reads+len(f.incoming) > 0 {
		return 0
	}
	return now.Sub(f.since)
}

// take takes in the parts that were added, leaves out those that are dead, and reports whether there are any.
func (f *fetcher) take() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parts = slices.DeleteFunc(append(f.parts, f.incoming...), func(p *part) bool { return p.dead.Load() })
	f.incoming = nil
	if len(f.parts) == 0 && f.reads > 0 {
		f.since = time.Now()
	}
	f.reads = len(f.parts)
	return f.reads > 0
}

// run reads until ctx ends. When the connection breaks, all parts go back to the Reader, which looks for their leaders
// and may well give them to this fetcher again.
func (f *fetcher) run(ctx context.Context) {
	defer f.disconnect()
	for ctx.Err() == nil {
		if !f.take() {
			select {
			case <-f.added:
			case <-ctx.Done():
			}
			continue
		}
		if err := f.round(ctx); err != nil && ctx.Err() == nil {
			f.disconnect()
			f.lose(slices.Clone(f.parts), err)
		}
	}
}

// round makes sure of the connection and of what the topics are, and fetches once. Its error is of the connection.
func (f *fetcher) round(ctx context.Context) error {
	if err := f.connect(ctx); err != nil {
		return err
	}
	if time.Since(f.answered) > stall+f.pause() { // much may have happened that the broker had no request to tell by
		for _, p := range f.parts {
			p.checked = false
		}
	}
	if err := f.check(ctx); err != nil || len(f.parts) == 0 {
		return err
	}
	var together, alone []*part
	for _, p := range f.parts {
		if p.alone {
			alone = append(alone, p)
		} else {
			together = append(together, p)
		}
	}
	wait := f.reader.client.cfg.MaxWait
	if len(alone) > 0 {
		f.turn++
		err := f.fetch(ctx, []*part{alone[f.turn%len(alone)]}, fetchLimits{0, fetchBytes, partitionBytes})
		if err != nil {
			return err
		}
		wait = 0
	}
	if len(together) == 0 {
		return f.pace(ctx)
	}
	begun := time.Now()
	if err := f.fetch(ctx, together, fetchLimits{wait, fetchBytes, partitionBytes}); err != nil {
		return err
	}
	if wait == 0 || time.Since(begun) < wait*9/10 { // something came, or somebody waits alone
		return f.pace(ctx)
	}
	return nil
}

// pause is the wait before the next request, so that more comes in one answer: the longer the more a request costs.
func (f *fetcher) pause() time.Duration {
	const each = 2 * time.Microsecond
	if d := f.reader.client.cfg.Pace; d > 0 {
		return d + time.Duration(len(f.parts))*each
	}
	return 0
}

func (f *fetcher) pace(ctx context.Context) error {
	if d := f.pause(); d > 0 {
		return sleep(ctx, d)
	}
	return nil
}

func (f *fetcher) connect(ctx context.Context) (err error) {
	if f.conn != nil {
		return nil
	}
	if f.conn, err = f.reader.client.dial(ctx, f.broker); err != nil {
		f.conn = nil
		return err
	}
	f.answered = time.Now()
	f.reader.metrics.connections.Inc()
	return nil
}

func (f *fetcher) disconnect() {
	if f.conn == nil {
		return
	}
	f.conn.Close()
	f.conn = nil
	f.reader.metrics.connections.Dec()
}

// check asks the broker what the topics are whose parts aren't checked, and loses parts of which it says otherwise.
func (f *fetcher) check(ctx context.Context) error {
	var names []string
	for _, p := range f.parts {
		if !p.checked {
			names = append(names, p.reading.topic)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	known, err := f.reader.client.identify(ctx, f.conn, slices.Compact(names))
	if err != nil {
		return err
	}
	f.answered = time.Now()
	var others []*part
	for _, p := range f.parts {
		if p.checked {
			continue
		}
		md, ok := known[p.reading.topic]
		if p.checked = ok && md.err == sarama.ErrNoError && sameID(md.id, p.id); !p.checked {
			others = append(others, p)
		}
	}
	f.lose(others, errors.New("its leader has no such topic, or another one"))
	return nil
}

// lose gives parts back to the Reader.
func (f *fetcher) lose(parts []*part, err error) {
	if len(parts) == 0 {
		return
	}
	lost := make(map[*part]bool, len(parts))
	for _, p := range parts {
		lost[p] = true
	}
	f.parts = slices.DeleteFunc(f.parts, func(p *part) bool { return lost[p] })
	f.reader.lost(parts, err)
}

// fetch makes one request for all of parts. When its answer can't be read, each half is asked for by itself, so that
// a damaged batch stops only its own partition. The error is of the connection.
func (f *fetcher) fetch(ctx context.Context, parts []*part, limits fetchLimits) error {
	places := placesOf(parts)
	f.reader.metrics.requests.Inc()
	response, err := f.reader.client.fetch(ctx, f.conn, places, limits)
	switch {
	case err == nil:
		f.answered = time.Now()
		return f.handle(ctx, parts, response)
	case !unreadable(err):
		return err
	case len(parts) == 1:
		return f.unreadable(ctx, parts[0], limits, err)
	}
	limits.wait = 0
	middle := len(parts) / 2
	if err := f.fetch(ctx, parts[:middle], limits); err != nil {
		return err
	}
	return f.fetch(ctx, parts[middle:], limits)
}

// placesOf returns where to fetch the parts from, and notes it in them. Of several readings of one topic only those
// that are behind the others have their turn.
func placesOf(parts []*part) []place {
	type topicPartition struct {
		topic     string
		partition int32
	}
	lowest := map[topicPartition]int64{}
	for _, p := range parts {
		if p.reading.twin.Load() {
			key := topicPartition{p.reading.topic, p.partition}
			if offset, ok := lowest[key]; !ok || p.next < offset {
				lowest[key] = p.next
			}
		}
	}
	places := make([]place, 0, len(parts))
	for _, p := range parts {
		p.asked = p.next
		if offset, ok := lowest[topicPartition{p.reading.topic, p.partition}]; ok && offset < p.next {
			p.asked = -1
			continue
		}
		places = append(places, place{p.reading.topic, p.partition, p.next, p.epoch})
	}
	return places
}

// unreadable deals with a partition whose answer can't be read: batch by batch, up to the damaged one. From then on it
// is asked for alone.
func (f *fetcher) unreadable(ctx context.Context, p *part, limits fetchLimits, err error) error {
	if limits.partition > 1 {
		return f.fetch(ctx, []*part{p}, fetchLimits{0, 1, 1})
	}
	p.alone = true
	f.lose([]*part{p}, fmt.Errorf("offset %d: %w", p.next, err))
	return nil
}

// handle emits what an answer has, once a reading.
func (f *fetcher) handle(ctx context.Context, parts []*part, response *sarama.FetchResponse) error {
	if response.ThrottleTime > 0 && len(response.Blocks) == 0 {
		return nil // a quota (KIP-219): sarama waits as long as the broker says before it asks again
	}
	var order []*reading
	got := map[*reading][]delivery{}
	for _, p := range parts {
		if p.asked < 0 || !p.checked {
			continue
		}
		block := response.GetBlock(p.reading.topic, p.partition)
		batch, ok, err := f.readBlock(ctx, p, block)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if got[p.reading] == nil {
			order = append(order, p.reading)
		}
		got[p.reading] = append(got[p.reading], delivery{p, batch})
	}
	for _, rd := range order {
		rd.deliver(got[rd])
	}
	for _, p := range parts {
		p.tellLag()
	}
	return nil
}

// readBlock returns what a block has for a part, if it has anything. The error is of the connection.
func (f *fetcher) readBlock(ctx context.Context, p *part, block *sarama.FetchResponseBlock) (batch stream.PartBatch, ok bool, err error) {
	batch.Partition, batch.Next = p.partition, p.next
	switch {
	case block == nil: // no room for it
		f.starve(p)
		return batch, false, nil
	case block.Err == sarama.ErrOffsetOutOfRange:
		gap, err := f.outOfRange(ctx, p)
		if err != nil || gap == nil {
			return batch, false, err
		}
		batch.Gap, batch.Next = gap, gap.To
		return batch, true, nil
	case block.Err != sarama.ErrNoError:
		f.lose([]*part{p}, block.Err)
		return batch, false, nil
	case block.HighWaterMarkOffset < p.end || block.LogStartOffset < p.start:
		p.end, p.start, p.checked = -1, 0, false // another log, or another leader: which topic's?
		return batch, false, nil
	}
	p.refused = 0
	p.end, p.start = block.HighWaterMarkOffset, block.LogStartOffset
	page := f.records.read(block, p.reading.topic, p.partition, span{from: p.next, to: forever, budget: forever})
	if page.next == p.next {
		if f.readableEnd(block) > p.next {
			f.starve(p)
		} else {
			p.failures, p.starved, p.alone = 0, 0, false
		}
		return batch, false, nil
	}
	p.failures, p.starved, p.alone = 0, 0, false
	batch.Messages, batch.Next = page.messages, page.next
	return batch, true, nil
}

// readableEnd returns where reading a partition ends for now.
func (f *fetcher) readableEnd(block *sarama.FetchResponseBlock) int64 {
	if f.reader.client.isolation() == sarama.ReadCommitted {
		return block.LastStableOffset
	}
	return block.HighWaterMarkOffset
}

// starve notes that an answer had nothing of a part that has more: others took the room, or its next batch is larger
// than a partition's share, which a broker exceeds only for the first one in a request. So it is asked for alone.
func (f *fetcher) starve(p *part) {
	p.starved++
	switch {
	case p.starved < patientAnswers:
	case !p.alone:
		p.alone, p.starved = true, 0
	default:
		f.lose([]*part{p}, fmt.Errorf("the broker gives nothing at offset %d, though there is more", p.next))
	}
}

// outOfRange returns the gap at a part's offset, which the broker has refused; nil if there is none, or none that is
// sure. The error is of the connection.
func (f *fetcher) outOfRange(ctx context.Context, p *part) (*stream.Gap, error) {
	p.checked = false
	if err := f.check(ctx); err != nil || !p.checked {
		return nil, err
	}
	begin, readable, end, err := f.reader.client.bounds(ctx, f.conn, p.reading.topic, p.partition)
	if code, ok := errors.AsType[sarama.KError](err); ok {
		f.lose([]*part{p}, code)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	gap := gapAt(p.reading.topic, p.partition, p.next, begin, readable, end)
	if gap == nil {
		if p.refused++; p.refused >= patientAnswers {
			f.lose([]*part{p}, sarama.ErrOffsetOutOfRange)
		}
	}
	return gap, nil
}

// tellLag sets the metric of the part's lag, if it changed.
func (p *part) tellLag() {
	if lag := float64(max(p.end-p.next, 0)); p.end >= 0 && lag != p.told && !p.dead.Load() {
		p.lag.Set(lag)
		p.told = lag
	}
}
