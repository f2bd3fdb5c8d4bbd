package stream_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
)

// bit is a predicate: whether a bit of the offset is set.
type bit int

func (b bit) Match(m *stream.Message) bool { return m.Offset>>b&1 == 1 }
func (b bit) String() string               { return fmt.Sprintf("bit %d", int(b)) }

// wants is what a filter means, said as plainly as can be.
func wants(f stream.Filter, m *stream.Message) bool {
	anyOf := len(f.Any) == 0
	for _, g := range f.Any {
		anyOf = anyOf || wants(g, m)
	}
	all := true
	for _, p := range f.Where {
		all = all && p.Match(m)
	}
	return !f.None() && anyOf && all &&
		(len(f.Keys) == 0 || m.Key != nil && slices.Contains(f.Keys, string(m.Key))) &&
		(len(f.Types) == 0 || slices.Contains(f.Types, m.EventType()))
}

func randomFilter(r *rand.Rand, depth int) (f stream.Filter) {
	if r.IntN(25) == 0 {
		return stream.Nothing
	}
	for _, s := range []string{"", "a", "b", "c"} {
		if r.IntN(5) == 0 {
			f.Keys = append(f.Keys, s, s)
		}
	}
	for _, s := range []string{"", "t", "u"} {
		if r.IntN(5) == 0 {
			f.Types = append(f.Types, s)
		}
	}
	for b := range bit(3) {
		if r.IntN(6) == 0 {
			f.Where = append(f.Where, b, b)
		}
	}
	if depth > 0 && r.IntN(2) == 0 {
		for range 1 + r.IntN(4) {
			f.Any = append(f.Any, randomFilter(r, depth-1))
		}
	}
	r.Shuffle(len(f.Keys), func(i, j int) { f.Keys[i], f.Keys[j] = f.Keys[j], f.Keys[i] })
	return f
}

// allMessages has one of every kind that random filters tell apart.
func allMessages() (messages []stream.Message) {
	for _, key := range [][]byte{nil, {}, []byte("a"), []byte("b"), []byte("c"), []byte("d")} {
		for _, eventType := range []string{"", "t", "u", "v"} {
			for offset := range int64(8) {
				m := stream.Message{Key: key, Offset: offset}
				if eventType != "" {
					m.Headers = []stream.Header{{Name: "event-type", Value: []byte(eventType)}}
				}
				messages = append(messages, m)
			}
		}
	}
	return messages
}

func TestFiltersAgainstTheirMeaning(t *testing.T) {
	messages := allMessages()
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 7))
		f, g := randomFilter(r, 2), randomFilter(r, 2)
		canonical, and, or := f.Canonical(), stream.And(f, g), stream.Or(f, g)
		bad := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d, f %s, g %s: %s", seed, f, g, fmt.Sprintf(format, args...))
		}
		for _, c := range []stream.Filter{canonical, and, or} {
			if again := c.Canonical(); again.String() != c.String() {
				bad("%s is canonical, and then %s is", c, again)
			}
			wantsAny, wantsEvery := false, true
			keys, types, indexed := c.Index()
			for i := range messages {
				m := &messages[i]
				wanted := wants(c, m)
				wantsAny, wantsEvery = wantsAny || wanted, wantsEvery && wanted
				if wanted && !(c.MatchKey(m.Key) && c.MatchType(m.EventType())) {
					bad("%s wants %v, and not its key or type", c, m)
				}
				if wanted && indexed && !(m.Key != nil && slices.Contains(keys, string(m.Key)) || slices.Contains(types, m.EventType())) {
					bad("%s wants %v, which isn't found by %q and %q", c, m, keys, types)
				}
			}
			if wantsAny == c.None() || wantsEvery != c.All() {
				bad("%s: None %v, All %v", c, c.None(), c.All())
			}
		}
		for i := range messages {
			m := &messages[i]
			wantF, wantG := wants(f, m), wants(g, m)
			if f.Match(m) != wantF || canonical.Match(m) != wantF {
				bad("%v: want %v, Match says %v and %s says %v", m, wantF, f.Match(m), canonical, canonical.Match(m))
			}
			if got := and.Match(m); got != (wantF && wantG) {
				bad("%v: And, %s, says %v", m, and, got)
			}
			if got := or.Match(m); got != (wantF || wantG) {
				bad("%v: Or, %s, says %v", m, or, got)
			}
			if f.Canonical().Covers(g.Canonical()) && wantG && !wantF {
				bad("%v is wanted by g alone, which f is said to cover", m)
			}
		}
		if c := f.Canonical(); !c.Covers(c) || !(stream.Filter{}).Covers(c) || !c.Covers(stream.Nothing) {
			bad("f isn't seen to cover itself, all to cover it, or it to cover nothing")
		}
		if a, b := stream.And(g, f), stream.Or(g, f); a.String() != and.String() || b.String() != or.String() {
			bad("the other way round it is %s and %s", a, b)
		}
	}
}

func TestIntersections(t *testing.T) {
	k := func(keys ...string) stream.Filter { return stream.Filter{Keys: keys} }
	ty := func(types ...string) stream.Filter { return stream.Filter{Types: types} }
	w := func(bits ...bit) (f stream.Filter) {
		for _, b := range bits {
			f.Where = append(f.Where, b)
		}
		return f
	}
	one := func(any ...stream.Filter) stream.Filter { return stream.Filter{Any: any} }
	for name, tt := range map[string]struct{ f, g, want stream.Filter }{
		"all and a user's key":                 {stream.Filter{}, k("me"), k("me")},
		"the user's key among others":          {k("you", "me"), k("me"), k("me")},
		"another's key":                        {k("you"), k("me"), stream.Nothing},
		"types that never meet":                {ty("t"), ty("u"), stream.Nothing},
		"nothing and all":                      {stream.Nothing, stream.Filter{}, stream.Nothing},
		"a predicate twice":                    {w(1, 2), w(2), w(1, 2)},
		"a key that one rule of two is about":  {k("me"), one(k("me"), ty("t")), k("me")},
		"a key that one rule of two may be in": {k("me"), one(k("you"), ty("t")), stream.Filter{Keys: []string{"me"}, Types: []string{"t"}}},
		"a key that no rule is about":          {k("me"), one(k("you"), k("them")), stream.Nothing},
		"rules that differ in their keys":      {stream.Filter{}, one(k("b"), k("a")), k("a", "b")},
		"a rule within another":                {stream.Filter{}, one(k("b"), stream.Filter{Keys: []string{"a", "b"}, Where: w(1).Where}, stream.Filter{Keys: []string{"b"}, Types: []string{"t"}}), one(k("b"), stream.Filter{Keys: []string{"a", "b"}, Where: w(1).Where})},
		"a rule for all":                       {w(1), one(k("b"), stream.Filter{}), w(1)},
		"two unions":                           {one(k("a"), ty("t")), one(k("a"), ty("u")), one(k("a"))},
		"no alternative that can be":           {one(stream.Nothing, stream.Nothing), stream.Filter{}, stream.Nothing},
	} {
		got := stream.And(tt.f, tt.g)
		if got.String() != tt.want.Canonical().String() {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
		if !tt.f.Canonical().Covers(got) || !tt.g.Canonical().Covers(got) || got.Covers(stream.Filter{}) {
			t.Errorf("%s: %s isn't seen to be a part of both", name, got)
		}
	}
	if got := stream.Or(); !got.None() {
		t.Errorf("either of none is %s", got)
	}
}

func TestManyAlternativesAreNotMultipliedOut(t *testing.T) {
	messages := allMessages()
	var f, g stream.Filter
	for i := range 100 {
		f.Any = append(f.Any, stream.Filter{Keys: []string{fmt.Sprint("a", i)}, Types: []string{fmt.Sprint(i)}}, stream.Filter{Keys: []string{"a"}, Types: []string{"t"}})
		g.Any = append(g.Any, stream.Filter{Keys: []string{fmt.Sprint("a", i)}, Where: []stream.Predicate{bit(i)}}, stream.Filter{Types: []string{"t", "u"}})
	}
	and := stream.And(f, g)
	for i := range messages {
		if m := &messages[i]; and.Match(m) != (f.Match(m) && g.Match(m)) {
			t.Errorf("%v: %v", m, and.Match(m))
		}
	}
	if n := strings.Count(and.String(), "("); n > 1000 {
		t.Errorf("it has %d parts", n)
	}
	if keys, _, ok := and.Index(); !ok || len(keys) > 101 {
		t.Errorf("indexed by %d keys, %v", len(keys), ok)
	}
}

// A message's type is read when it decides, and before predicates are asked, which cost more.
func TestPredicatesAreAskedLast(t *testing.T) {
	asked := 0
	eventType := func() string { asked++; return "t" }
	f := stream.Filter{Keys: []string{"a"}, Types: []string{"u"}, Where: []stream.Predicate{unasked{t}}}
	if f.Matches(&stream.Message{Key: []byte("b")}, eventType); asked > 0 {
		t.Error("a type was read of a message with another key")
	}
	if f.Matches(&stream.Message{Key: []byte("a")}, eventType); asked != 1 {
		t.Errorf("a type was read %d times", asked)
	}
}

type unasked struct{ t *testing.T }

func (u unasked) Match(*stream.Message) bool { u.t.Error("a predicate was asked"); return true }
func (u unasked) String() string             { return "unasked" }
