package auth

import (
	"slices"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// Identity is whose token a grant comes from.
type Identity struct {
	Issuer, Subject, TokenID string
	IssuedAt                 time.Time // at the earliest, since the issuer's clock may be off; zero: the token doesn't say
	Ends                     time.Time // when what the token grants ends: see Access.Admit
}

// Grant is what one request may do. The zero value, and nil, allow nothing. It doesn't change.
type Grant struct {
	everything bool
	who        *Identity
	token      *Token    // nil in mode None, and of a grant that is kept
	only       []string  // topics that a ticket is for; nil: all
	ticket     bool      // a ticket brought it
	fresh      bool      // which hadn't run out
	reads      []reading // each of some rows
	writes     []writing
	size       int // of both
}

// maxSize bounds a grant: one for each key and type, and ruleSize for each rule. What is asked for is held against all of it.
const (
	maxSize  = 10_000
	ruleSize = 10
)

// reading is a ReadRule with somebody's claims.
type reading struct {
	topic   stream.TopicPattern
	rows    stream.Filter
	history *Age
}

// writing is a WriteRule with somebody's claims.
type writing struct {
	topic        stream.TopicPattern
	source, keys []string // nil: any
}

// grantTo adds what rules let somebody do to a grant.
func (r *rules) grantTo(claims map[string]any, to *Grant) error {
	for i := range r.reads {
		rows, err := r.reads[i].rows(claims)
		if err == nil {
			err = to.grow(valuesIn(rows))
		}
		if err != nil {
			return err
		}
		if !rows.None() {
			to.reads = append(to.reads, reading{r.reads[i].topic, rows, r.reads[i].history})
		}
	}
	for _, w := range r.writes {
		granted := writing{topic: w.topic}
		for _, fixed := range []struct {
			to   *[]string
			from template
		}{{&granted.source, w.source}, {&granted.keys, w.key}} {
			if fixed.from == nil {
				continue
			}
			values, err := fixed.from.values(claims)
			if err == nil {
				err = to.grow(len(values))
			}
			if err != nil {
				return err
			}
			if *fixed.to = values; values == nil {
				*fixed.to = []string{}
			}
		}
		to.writes = append(to.writes, granted)
	}
	return nil
}

// grow counts the values of one more rule.
func (g *Grant) grow(values int) error {
	if g.size += values + ruleSize; g.size > maxSize {
		return errTooManyValues
	}
	return nil
}

// valuesIn counts the keys and types of a filter.
func valuesIn(f stream.Filter) int {
	n := len(f.Keys) + len(f.Types)
	for _, g := range f.Any {
		n += valuesIn(g)
	}
	return n
}

// Identity returns whose token the grant comes from; nil in mode None.
func (g *Grant) Identity() *Identity {
	if g == nil {
		return nil
	}
	return g.who
}

// Kept returns the grant for who keeps it for long. It does without the token's claims, and no ticket is given for it.
func (g *Grant) Kept() *Grant {
	if g == nil || g.token == nil {
		return g
	}
	kept := *g
	kept.token = nil
	return &kept
}

// Everything reports whether all rows of each topic may be read that isn't internal, by everybody.
func (g *Grant) Everything() bool { return g != nil && g.everything }

// MayRead reports whether some rows of a topic may be read. Internal topics never may.
func (g *Grant) MayRead(topic string) bool {
	return g.reaches(topic) && (g.everything || slices.ContainsFunc(g.reads, func(r reading) bool { return r.topic.Match(topic) }))
}

// reaches reports whether the grant can be about a topic at all.
func (g *Grant) reaches(topic string) bool {
	return g != nil && !stream.InternalTopic(topic) && (g.only == nil || slices.Contains(g.only, topic))
}

// Rows returns which messages of a topic may be read, as a canonical filter, and how far back if that is bounded.
func (g *Grant) Rows(topic string) (rows stream.Filter, history time.Duration, bounded bool) {
	if !g.reaches(topic) {
		return stream.Nothing, 0, false
	}
	if g.everything {
		return stream.Filter{}, 0, false
	}
	var apply []reading
	for _, r := range g.reads {
		if r.topic.Match(topic) && !slices.ContainsFunc(apply, r.within) {
			apply = append(slices.DeleteFunc(apply, func(other reading) bool { return other.within(r) }), r)
		}
	}
	var parts []stream.Filter
	for _, r := range apply {
		parts = append(parts, r.rows)
		if r.history != nil && (!bounded || time.Duration(*r.history) < history) {
			history, bounded = time.Duration(*r.history), true
		}
	}
	return stream.Or(parts...), history, bounded
}

// ReadRight is a rule of a grant, for people who look into it.
type ReadRight struct {
	Topic   stream.TopicPattern
	Rows    stream.Filter
	History *Age
}

// Rights returns the rules that the grant reads by.
func (g *Grant) Rights() (rights []ReadRight) {
	for _, r := range g.reads {
		rights = append(rights, ReadRight{r.topic, r.rows, r.history})
	}
	return rights
}

// within reports whether another rule lets read all that r does, as far back.
func (r reading) within(other reading) bool {
	deeper := other.history == nil || r.history != nil && *r.history <= *other.history
	return deeper && other.rows.Covers(r.rows)
}

// MayPublish reports whether an event of some source and record key may be published to a topic; "" is for one that the
// client didn't give, and then what a rule fixes comes back in its place. Internal topics never may.
func (g *Grant) MayPublish(topic, source, key string) (fixedSource, fixedKey string, ok bool) {
	if stream.InternalTopic(topic) || g.ticket {
		return "", "", false
	}
	if g.everything {
		return source, key, true
	}
	for _, w := range g.writes {
		s, fits := fix(source, w.source)
		k, also := fix(key, w.keys)
		if w.topic.Match(topic) && fits && also {
			return s, k, true
		}
	}
	return "", "", false
}

// fix returns given if it is allowed, and the one that is allowed where nothing is given.
func fix(given string, allowed []string) (string, bool) {
	switch {
	case allowed == nil || slices.Contains(allowed, given) && given != "":
		return given, true
	case given == "" && len(allowed) == 1:
		return allowed[0], true
	default:
		return "", false
	}
}
