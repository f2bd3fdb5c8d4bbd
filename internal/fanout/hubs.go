package fanout

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// Hubs holds the hub of every topic in use.
type Hubs struct {
	cfg     Config
	source  stream.Source
	history stream.History
	now     func() time.Time
	begun   time.Time
	memory  *memory
	archive *archive
	metrics *metrics
	scratch scratch
	owners  owners

	limits limits
	begin  chan struct{} // of capacity 1: there are fresh hubs

	shrinking sync.Mutex // held by the one that makes windows smaller

	mu    sync.Mutex // guards what follows; a hub's own lock may be taken while it is held, not the other way round
	hubs  map[string]*Hub
	fresh []*Hub // those that Run is to run
	ended bool   // Run has ended
}

// limits bounds what is done at a time, so that nobody waits long for anybody.
type limits struct {
	poll int64 // bytes that one Poll yields, about
	walk int   // entries that a cursor looks at while it holds its hub's lock
	refs int   // matches that a channel remembers; who is farther behind looks through the window

	// block is when a block is full, in bytes of its frames. Who stands inside one is given the rest of it alone, message
	// by message.
	block int

	meet int // cursors that come to a spot of history before its frames are made for all
}

// New returns hubs that read with source and history. Run starts them.
func New(cfg Config, source stream.Source, history stream.History) *Hubs {
	cfg.Memory = cmp.Or(cfg.Memory, 1<<30)
	cfg.HistoryReads = cmp.Or(cfg.HistoryReads, 16)
	cfg.HistoryBytes = cmp.Or(cfg.HistoryBytes, 256<<10)
	cfg.Linger = cmp.Or(cfg.Linger, time.Minute)
	cfg.StartTimeout = cmp.Or(cfg.StartTimeout, 5*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	window := cfg.Window
	cfg.Window = func(topic string) Window {
		var w Window
		if window != nil {
			w = window(topic)
		}
		return Window{Bytes: cmp.Or(w.Bytes, 64<<20), Age: cmp.Or(w.Age, 10*time.Minute)}
	}
	if cfg.Gather == nil {
		cfg.Gather = func(string) time.Duration { return 10 * time.Millisecond }
	}
	h := &Hubs{
		cfg: cfg, source: source, history: history, now: time.Now,
		memory: newMemory(cfg.Memory),
		limits: limits{poll: 64 << 10, walk: 4096, refs: 1024, block: 32 << 10, meet: 2},
		begin:  make(chan struct{}, 1), hubs: map[string]*Hub{},
	}
	h.begun = h.now()
	h.owners.most = cfg.ReplaysPerOwner
	h.archive = newArchive(h)
	h.metrics = newMetrics(cfg.Metrics, h)
	return h
}

// Run works until ctx ends: it reads topics while they have subscribers, and history for those who need it. Then every
// subscription fails with kind Unavailable.
func (h *Hubs) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer h.end()
	for range h.cfg.HistoryReads {
		wg.Go(func() { h.serveHistory(ctx) })
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.begin:
			for _, hub := range h.takeFresh() {
				hubCtx, cancel := context.WithCancel(ctx)
				hub.mu.Lock()
				hub.cancel = cancel
				hub.mu.Unlock()
				wg.Go(func() {
					defer cancel()
					hub.run(hubCtx)
					h.forget(hub)
				})
			}
		case <-tick.C:
			h.tidy()
		}
	}
}

// clock is an instant as a time since New, which takes a third of the memory.
func (h *Hubs) clock(at time.Time) time.Duration { return at.Sub(h.begun) }

// doubtEvery is how often who waits for a hub that is behind has Kafka asked whether it waits in vain.
const doubtEvery = 10 * time.Second

// tidy gives up what is too old or unused, stops hubs that had no subscriber for some time, and has those doubt who wait.
func (h *Hubs) tidy() {
	h.archive.giveUp(historyIdle, func() bool { return false })
	var waiting []*cursor
	for _, hub := range h.list() {
		hub.mu.Lock()
		now := h.now()
		hub.evictByBoundLocked(now)
		idle := hub.users == 0 && now.Sub(hub.idle) >= h.cfg.Linger
		if now.Sub(hub.doubted) >= doubtEvery {
			hub.doubted = now
			waiting = slices.AppendSeq(waiting, maps.Keys(hub.unsynced))
		}
		hub.mu.Unlock()
		if idle {
			h.retire(hub)
		}
	}
	for _, c := range waiting {
		c.doubt()
	}
}

// retire stops a hub unless somebody came meanwhile. Users are only taken on with h.mu held.
func (h *Hubs) retire(hub *Hub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hub.mu.Lock()
	defer hub.mu.Unlock()
	if hub.users == 0 && h.hubs[hub.topic] == hub {
		delete(h.hubs, hub.topic)
		hub.cancel()
	}
}

// forget takes a hub off the list, so that the next subscriber begins anew.
func (h *Hubs) forget(hub *Hub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hubs[hub.topic] == hub {
		delete(h.hubs, hub.topic)
	}
}

func (h *Hubs) list() []*Hub {
	h.mu.Lock()
	defer h.mu.Unlock()
	hubs := make([]*Hub, 0, len(h.hubs))
	for _, hub := range h.hubs {
		hubs = append(hubs, hub)
	}
	return hubs
}

// use returns a topic's hub with one more user. A new one is left to Run.
func (h *Hubs) use(topic string) *Hub {
	h.mu.Lock()
	defer h.mu.Unlock()
	hub := h.hubs[topic]
	if hub == nil {
		hub = newHub(h, topic)
		if h.ended {
			hub.fail(errEnded)
			return hub
		}
		h.hubs[topic] = hub
		h.fresh = append(h.fresh, hub)
		select {
		case h.begin <- struct{}{}:
		default:
		}
	}
	hub.mu.Lock()
	defer hub.mu.Unlock()
	hub.users++
	return hub
}

var errEnded = stream.Errorf(stream.Unavailable, "the gateway is stopping")

// takeFresh returns the hubs that are to be run.
func (h *Hubs) takeFresh() []*Hub {
	h.mu.Lock()
	defer h.mu.Unlock()
	fresh := h.fresh
	h.fresh = nil
	return fresh
}

// end refuses hubs from now on, also those that had no time to begin.
func (h *Hubs) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for _, hub := range h.fresh {
		delete(h.hubs, hub.topic)
		hub.fail(errEnded)
	}
}

// Subscribe returns a subscription once the readers of all its topics stand at a known offset of every partition:
// nothing published after it returns is missed. Errors are [stream.Error]: NotFound, BadPosition (none of the
// topics is in it), Unavailable (Kafka didn't answer within Config.StartTimeout).
func (h *Hubs) Subscribe(ctx context.Context, req Request) (*Subscription, error) {
	if p := req.From.Position; p != nil && !slices.ContainsFunc(req.Topics, func(t string) bool { _, ok := p.Topic(t); return ok }) {
		return nil, stream.Errorf(stream.BadPosition, "the position is of other topics: it knows none of %s", strings.Join(req.Topics, ", "))
	}
	ctx, cancel := context.WithTimeout(ctx, h.cfg.StartTimeout)
	defer cancel()
	var hubs []*Hub
	defer func() { // the subscription, if there is one, has uses of its own by now
		for _, hub := range hubs {
			hub.mu.Lock()
			hub.releaseLocked()
			hub.mu.Unlock()
		}
	}()
	for _, topic := range req.Topics {
		hubs = append(hubs, h.use(topic))
	}
	places := make([]place, len(hubs))
	for i, hub := range hubs {
		var err error
		if err = hub.wait(ctx); err == nil {
			var bound *Bound
			if req.Bounds != nil {
				bound = &req.Bounds[i]
			}
			places[i], err = h.place(ctx, hub, &req, bound)
		}
		if err != nil {
			return nil, h.explain(ctx, hub, err)
		}
	}
	return h.newSubscription(&req, hubs, places)
}

// place is where a cursor begins in one topic, and what it gets of it.
type place struct {
	rows  stream.Filter
	start *stream.TopicPosition // nil: the hub's end
	floor *stream.TopicPosition // nothing that lies before it is got; nil: there is none
}

// place returns a request's place in one topic. A bound of nil is none: most have none, and intersecting takes more stack
// than a new connection's goroutine has, which costs as much as all else here.
func (h *Hubs) place(ctx context.Context, hub *Hub, req *Request, bound *Bound) (p place, err error) {
	if p.rows = req.Filter.Canonical(); bound != nil {
		p.rows = stream.And(p.rows, bound.Filter)
	}
	if p.start, err = h.resolve(ctx, hub, req.From); err != nil || p.start == nil || bound == nil || bound.Since.IsZero() {
		return p, err
	}
	floor, err := h.history.Offsets(ctx, hub.topic, stream.AtTime(bound.Since))
	if err != nil {
		return p, err
	}
	p.floor = &floor
	if req.From.Position == nil && p.start.Incarnation == floor.Incarnation {
		for i, least := range floor.Next { // who doesn't say where misses nothing
			if i < len(p.start.Next) {
				p.start.Next[i] = max(p.start.Next[i], least)
			}
		}
	}
	return p, hub.follow(ctx, floor.Incarnation)
}

// explain gives an error of Subscribe the kind that a client can act on.
func (h *Hubs) explain(ctx context.Context, hub *Hub, err error) error {
	if ctx.Err() == context.DeadlineExceeded {
		return &stream.Error{Kind: stream.Unavailable, Detail: "topic " + hub.topic + " can't be read now", Err: err}
	}
	return err
}

// wait returns when the hub's reader stands, or can't.
func (h *Hub) wait(ctx context.Context) error {
	select {
	case <-h.ready:
		h.mu.RLock()
		defer h.mu.RUnlock()
		return h.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// resolve turns a request's beginning into a position in one topic; nil is the hub's end.
func (h *Hubs) resolve(ctx context.Context, hub *Hub, from From) (*stream.TopicPosition, error) {
	if from.Position != nil {
		t, ok := from.Position.Topic(hub.topic)
		if !ok {
			return nil, nil
		}
		return &t, h.checkIncarnation(ctx, hub, t.Incarnation)
	}
	hub.mu.RLock()
	gone := hub.gone
	hub.mu.RUnlock()
	if from.At == stream.Latest && !gone {
		return nil, nil
	}
	t, err := h.history.Offsets(ctx, hub.topic, from.At)
	if err != nil {
		return nil, err
	}
	return &t, hub.follow(ctx, t.Incarnation)
}

// checkIncarnation makes sure, where a position is of another incarnation than the hub's, that the hub's is the one
// that exists: it may be the hub that hasn't heard of the re-creation yet.
func (h *Hubs) checkIncarnation(ctx context.Context, hub *Hub, id stream.Incarnation) error {
	hub.mu.RLock()
	same := hub.id == id
	hub.mu.RUnlock()
	if same || id == (stream.Incarnation{}) {
		return nil
	}
	now, err := h.history.Offsets(ctx, hub.topic, stream.Earliest)
	if err != nil {
		return err
	}
	return hub.follow(ctx, now.Incarnation)
}

// follow returns when the hub's reader has come to an incarnation that is known to exist.
func (h *Hub) follow(ctx context.Context, id stream.Incarnation) error {
	for {
		h.mu.RLock()
		there, err, changed := h.id == id, h.err, h.changed
		h.mu.RUnlock()
		if there || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Reserve counts n bytes that a transport holds for a client (a pending write) against Config.Memory. Windows shrink
// to make room, and history that was read is given up, to be read again by who needs it; false says that there is none, and then the
// client is to be closed as overloaded.
func (h *Hubs) Reserve(n int64) bool {
	if h.memory.take(n) {
		return true
	}
	h.shrink(n)
	h.archive.giveUp(0, func() bool { return h.memory.over(n) <= 0 })
	return h.memory.take(n)
}

// Release gives back what Reserve took.
func (h *Hubs) Release(n int64) { h.memory.add(-n) }

// shrink gives up history that nobody uses, and then makes windows smaller, the oldest messages first, until n more bytes
// fit or there is nothing to give.
func (h *Hubs) shrink(n int64) {
	if h.memory.over(n) <= 0 {
		return
	}
	h.shrinking.Lock()
	defer h.shrinking.Unlock()
	h.archive.giveUp(historySpare, func() bool { return h.memory.over(n) <= 0 })
	for h.memory.over(n) > 0 {
		hub := h.oldest()
		if hub == nil {
			return
		}
		hub.mu.Lock()
		for i := 0; i < 64 && len(hub.window.entries) > 0 && h.memory.over(n) > 0; i++ {
			hub.evictLocked()
		}
		hub.mu.Unlock()
	}
}

// oldest returns the hub that holds the oldest message of all, or nil when none holds any.
func (h *Hubs) oldest() *Hub {
	var oldest *Hub
	var at int64
	for _, hub := range h.list() {
		if t := hub.oldest.Load(); t != 0 && (oldest == nil || t < at) {
			oldest, at = hub, t
		}
	}
	return oldest
}

// HubStats is what one hub holds now.
type HubStats struct {
	Topic       string `json:"topic"`
	Subscribers int    `json:"subscribers"`
	Channels    int    `json:"channels"`
	Messages    int    `json:"messages"` // in the window
	Bytes       int64  `json:"bytes"`    // of messages and frames in the window
}

// Stats returns the hubs in use, by topic.
func (h *Hubs) Stats() []HubStats {
	var stats []HubStats
	for _, hub := range h.list() {
		hub.mu.RLock()
		stats = append(stats, HubStats{
			Topic: hub.topic, Subscribers: hub.users, Channels: len(hub.channels.all),
			Messages: len(hub.window.entries), Bytes: hub.bytes.Load(),
		})
		hub.mu.RUnlock()
	}
	slices.SortFunc(stats, func(a, b HubStats) int { return strings.Compare(a.Topic, b.Topic) })
	return stats
}
