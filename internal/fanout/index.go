package fanout

import (
	"slices"

	"github.com/goodgo/streamgw/internal/stream"
)

// channels is the index from a message to the channels that want it: one look-up by key, one by type, and those that name
// neither.
type channels struct {
	all        map[string]*channel // by the filter's text
	every      *channel            // of the filter that wants all
	byKey      map[string][]*channel
	byType     map[string][]*channel
	scans      []*channel                 // held against every message
	turn       uint64                     // counts the messages that were matched
	predicates map[string]*predicate      // by their text
	shared     map[*channel]stream.Filter // of channels whose filters have some, with those instead of their own
}

func newChannels() channels {
	return channels{map[string]*channel{}, nil, map[string][]*channel{}, map[string][]*channel{}, nil, 0, map[string]*predicate{}, map[*channel]stream.Filter{}}
}

// join returns the channel of a canonical filter, and makes it where it is the first of its kind, unless there are filters
// or scans enough; 0 is no bound. It notes matches from end on.
func (cs *channels) join(f *stream.Filter, end uint64, filters, scans int) (*channel, error) {
	ch := cs.every
	if ch == nil || !f.All() {
		ch = cs.all[f.String()]
	}
	if ch == nil {
		var err error
		if ch, err = cs.open(*f, end, filters, scans); err != nil {
			return nil, err
		}
	}
	ch.users++
	return ch, nil
}

// open makes the channel of a filter that has none.
func (cs *channels) open(f stream.Filter, end uint64, filters, scans int) (*channel, error) {
	distinct := len(cs.all)
	if cs.every != nil {
		distinct--
	}
	keys, types, indexed := f.Index()
	switch {
	case f.All():
	case filters > 0 && distinct >= filters:
		return nil, ErrFilters
	case !indexed && scans > 0 && len(cs.scans) >= scans:
		return nil, ErrScans
	}
	ch := &channel{filter: f, since: end, wokenAt: never, cost: lookCost}
	ch.tookAt.Store(int64(never))
	cs.all[f.String()] = ch
	if shared, some := cs.share(f); some {
		ch.cost, cs.shared[ch] = askCost, shared
	}
	for _, k := range keys {
		cs.byKey[k] = append(cs.byKey[k], ch)
	}
	for _, t := range types {
		cs.byType[t] = append(cs.byType[t], ch)
	}
	switch {
	case f.All():
		cs.every = ch
	case !indexed:
		cs.scans = append(cs.scans, ch)
	}
	return ch, nil
}

// leave forgets a channel with its last user.
func (cs *channels) leave(ch *channel) {
	if ch.users--; ch.users > 0 {
		return
	}
	delete(cs.all, ch.filter.String())
	keys, types, _ := ch.filter.Index()
	for _, k := range keys {
		unlist(cs.byKey, k, ch)
	}
	for _, t := range types {
		unlist(cs.byType, t, ch)
	}
	cs.scans = slices.DeleteFunc(cs.scans, func(other *channel) bool { return other == ch })
	if cs.every == ch {
		cs.every = nil
	}
	cs.unshare(cs.shared[ch])
	delete(cs.shared, ch)
}

func unlist(m map[string][]*channel, s string, ch *channel) {
	if m[s] = slices.DeleteFunc(m[s], func(other *channel) bool { return other == ch }); len(m[s]) == 0 {
		delete(m, s)
	}
}

// match calls f for each channel that wants e, whose sequence number is seq, once. f notes it there.
func (cs *channels) match(e *entry, seq uint64, f func(*channel)) {
	cs.turn++
	if cs.every != nil {
		f(cs.every)
	}
	ask := func(list []*channel) {
		for _, ch := range list {
			if !ch.noted(seq) && cs.wants(ch, e) {
				f(ch)
			}
		}
	}
	if e.msg.Key != nil {
		ask(cs.byKey[string(e.msg.Key)])
	}
	if len(cs.byType) > 0 {
		ask(cs.byType[e.eventType()])
	}
	ask(cs.scans)
}

// noted reports whether an entry was noted last.
func (ch *channel) noted(seq uint64) bool { n := len(ch.refs); return n > 0 && ch.refs[n-1] == seq }

// wants reports whether a channel's filter wants an entry that is about to be pushed.
func (cs *channels) wants(ch *channel, e *entry) bool {
	if shared, some := cs.shared[ch]; some {
		return e.matches(shared)
	}
	return e.matches(ch.filter)
}

// predicate is one that channels have in common. It is asked once about each message that is pushed.
type predicate struct {
	stream.Predicate
	of     *channels
	users  int
	asked  uint64 // the turn of the answer: a pointer to the message would keep it in memory
	answer bool
}

// Match implements [stream.Predicate] under the hub's lock.
func (p *predicate) Match(m *stream.Message) bool {
	if p.asked != p.of.turn {
		p.asked, p.answer = p.of.turn, p.Predicate.Match(m)
	}
	return p.answer
}

// share returns a filter with predicates that other channels have too, and whether it has any.
func (cs *channels) share(f stream.Filter) (shared stream.Filter, some bool) {
	shared = f
	shared.Where, shared.Any = nil, nil
	for _, p := range f.Where {
		text := p.String()
		own := cs.predicates[text]
		if own == nil {
			own = &predicate{Predicate: p, of: cs}
			cs.predicates[text] = own
		}
		own.users++
		shared.Where = append(shared.Where, own)
	}
	some = len(f.Where) > 0
	for _, g := range f.Any {
		s, also := cs.share(g)
		shared.Any, some = append(shared.Any, s), some || also
	}
	return shared, some
}

func (cs *channels) unshare(f stream.Filter) {
	for _, p := range f.Where {
		if own, ok := p.(*predicate); ok {
			if own.users--; own.users == 0 {
				delete(cs.predicates, own.String())
			}
		}
	}
	for _, g := range f.Any {
		cs.unshare(g)
	}
}
