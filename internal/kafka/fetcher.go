package kafka

import (
	"cmp"
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
	reader  *Reader
	broker  int32
	maxWait time.Duration // how long the broker may hold a request that has nothing
	cancel  context.CancelFunc
	added   chan struct{} // has one when incoming has some

	mu       sync.Mutex // guards what follows
	incoming []*part
	reads    int       // how many parts it has, as of the last request
	since    time.Time // when reads became 0
	polls    bool      // a long poll stands, whose end nobody should wait for
	guest    *guest    // reads what was added meanwhile; nil: none

	// What follows is run's.

	parts      []*part
	conn       *sarama.Broker
	unwatch    func() bool // conn isn't hung up any more when run's context ends
	session    *session    // nil: none
	hidden     []*part     // of which the session's last answer can't have told
	throttled  bool        // by the last answer
	answered   time.Time   // when the last answer came
	together   []*part     // of parts, as of the last request
	alone      []*part     // the others
	turn       int         // counts requests, to choose among those that are fetched alone
	pacer      pacer
	hold       time.Duration // how long the broker is to hold the next request, for more; 0: until it has something
	brought    int           // messages that came since the last pause
	records    recordReader
	deliveries []delivery // of the answer that is read
}

const (
	fetchBytes     = 8 << 20               // of an answer
	partitionBytes = 1 << 20               // of a partition in it
	stall          = 50 * time.Millisecond // between an answer and the next request
	patientAnswers = 3                     // without room for a partition, or with a puzzling refusal, before more is done about it
)

func newFetcher(r *Reader, broker int32, maxWait time.Duration, cancel context.CancelFunc) *fetcher {
	return &fetcher{
		reader: r, broker: broker, maxWait: maxWait, cancel: cancel, added: make(chan struct{}, 1),
		since: time.Now(),
	}
}

// addLocked gives the fetcher another part, from its next request on, or has a guest read it until then. The Reader's
// lock is held.
func (f *fetcher) addLocked(p *part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.polls {
		if f.guest == nil {
			f.guest = f.reader.newGuestLocked(f.broker)
		}
		f.guest.addLocked(p)
		return
	}
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
	f.parts = slices.DeleteFunc(append(f.parts, f.incoming...), func(p *part) bool {
		dead := p.dead.Load()
		if dead {
			f.session.drop(p)
		}
		return dead
	})
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
	defer f.sendAway()
	for ctx.Err() == nil {
		f.sendAway()
		if !f.take() {
			f.together, f.alone, f.hidden = nil, nil, nil // nothing of what was read is held
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
	if time.Since(f.answered) > stall+f.longestPause() { // much may have happened that the broker had no request to tell by
		for _, p := range f.parts {
			p.checked = false
		}
	}
	if err := f.check(ctx); err != nil {
		return err
	}
	if err := f.fetchHidden(ctx); err != nil || len(f.parts) == 0 {
		return err
	}
	clear(f.together)
	clear(f.alone)
	f.together, f.alone = f.together[:0], f.alone[:0]
	for _, p := range f.parts {
		if p.alone {
			f.session.drop(p)
			f.alone = append(f.alone, p)
		} else {
			f.together = append(f.together, p)
		}
	}
	return f.fetchAll(ctx)
}

// fetchAll fetches once what is fetched together, and one of those that are fetched alone, and pauses if either may have
// brought something: here, or at the broker by the next request.
func (f *fetcher) fetchAll(ctx context.Context) error {
	limits := fetchLimits{wait: f.maxWait, bytes: fetchBytes, partition: partitionBytes}
	held := f.hold > 0
	if held {
		limits.wait, limits.enough = f.hold, partitionBytes
	}
	f.brought, f.hold = 0, 0
	if len(f.alone) > 0 {
		limits.wait = 0
		f.turn++
		if err := f.fetch(ctx, []*part{f.alone[f.turn%len(f.alone)]}, fetchLimits{bytes: fetchBytes, partition: partitionBytes}); err != nil {
			return err
		}
	}
	begun := time.Now()
	if limits.wait > guestWait && !f.beginPoll() {
		limits.wait = 0
	}
	err := f.fetchTogether(ctx, f.together, limits)
	f.endPoll()
	if err != nil {
		return err
	}
	now := time.Now()
	switch {
	case f.brought == 0 && held:
		f.pacer.vain()
		return nil
	case f.brought == 0 && limits.wait > 0 && now.Sub(begun) >= limits.wait*9/10: // nobody waits alone
		return nil
	}
	pause, steady := f.pacer.pause(now, f.longestPause(), f.brought)
	if steady && len(f.alone) == 0 && pause <= guestWait { // who waits at the broker for longer is in the way of what is added
		f.hold = pause
		return nil
	}
	return f.pacer.wait(ctx, pause)
}

// fetchTogether asks for all of parts: many in a session, where quiet ones cost little.
func (f *fetcher) fetchTogether(ctx context.Context, parts []*part, limits fetchLimits) error {
	switch {
	case len(parts) == 0:
		return nil
	case f.fits(parts):
		return f.fetchInSession(ctx, parts, limits)
	}
	return f.fetch(ctx, parts, limits)
}

// longestPause is the longest wait before the next request: the longer the more a request costs.
func (f *fetcher) longestPause() time.Duration {
	const each = 2 * time.Microsecond
	if d := f.reader.client.cfg.Pace; d > 0 {
		return d + time.Duration(len(f.parts))*each
	}
	return 0
}

func (f *fetcher) connect(ctx context.Context) error {
	if f.conn != nil {
		return nil
	}
	conn, err := f.reader.client.dial(ctx, f.broker)
	if err != nil {
		return err
	}
	f.unwatch = context.AfterFunc(ctx, func() { f.reader.client.hangUp(conn) })
	f.conn, f.answered = conn, time.Now()
	f.reader.metrics.connections.Inc()
	return nil
}

func (f *fetcher) disconnect() {
	if f.conn == nil {
		return
	}
	f.unwatch()
	f.conn.Close()
	f.conn, f.session, f.hidden, f.throttled, f.hold = nil, nil, nil, false, 0
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
		f.session.drop(p)
	}
	f.parts = slices.DeleteFunc(f.parts, func(p *part) bool { return lost[p] })
	f.reader.lost(parts, err)
}

// fetch makes one request for all of parts. When its answer can't be read, each half is asked for by itself, so that
// a damaged batch stops only its own partition. The error is of the connection.
func (f *fetcher) fetch(ctx context.Context, parts []*part, limits fetchLimits) error {
	request := f.reader.client.fetchRequest(limits)
	for _, p := range placesOf(parts) {
		request.AddBlock(p.topic, p.partition, p.offset, limits.partition, p.epoch)
	}
	f.reader.metrics.requests.Inc()
	response, err := f.ask(ctx, request)
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

// ask makes a request over the fetcher's connection, which is hung up when run's context ends.
func (f *fetcher) ask(ctx context.Context, request *sarama.FetchRequest) (response *sarama.FetchResponse, err error) {
	if f.throttled { // sarama waits before it asks, and no hanging up ends that
		response, err = f.reader.client.fetchAside(ctx, f.conn, request)
	} else {
		response, err = f.conn.Fetch(request)
		response, err = fetched(f.conn, response, err)
	}
	f.throttled = err == nil && response.ThrottleTime > 0
	return response, err
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
		return f.fetch(ctx, []*part{p}, fetchLimits{bytes: 1, partition: 1})
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
	for _, p := range parts {
		if p.asked < 0 || !p.checked {
			continue
		}
		block := response.GetBlock(p.reading.topic, p.partition)
		batch, ok, err := f.readBlock(ctx, p, block)
		if err != nil {
			f.deliveries = f.deliveries[:0]
			return err
		}
		if ok {
			f.deliveries = append(f.deliveries, delivery{p, batch})
		}
	}
	f.deliver()
	for _, p := range parts {
		p.tellLag()
	}
	return nil
}

// deliver emits what was read, once a reading.
func (f *fetcher) deliver() {
	all := f.deliveries
	slices.SortStableFunc(all, func(a, b delivery) int { return cmp.Compare(a.part.reading.number, b.part.reading.number) })
	for len(all) > 0 {
		rd, n := all[0].part.reading, 1
		for n < len(all) && all[n].part.reading == rd {
			n++
		}
		rd.deliver(all[:n])
		all = all[n:]
	}
	clear(f.deliveries)
	f.deliveries = f.deliveries[:0]
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
	f.brought += len(page.messages)
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
