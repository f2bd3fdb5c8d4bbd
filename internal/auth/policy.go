package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// Rules say what somebody may read and publish. They stand in a policy, or in a token's own claim `streamgw`, and are the
// same there. The zero value allows nothing.
type Rules struct {
	Subscribe []ReadRule  `json:"subscribe,omitzero"`
	Publish   []WriteRule `json:"publish,omitzero"`
}

// ReadRule lets some topics be read, or some rows of them. Who has several for a topic may read what either of them lets,
// as far back as all of them let.
type ReadRule struct {
	// Topic is a topic's name or a pattern, as in the configuration: orders.* for one segment, orders.** for any depth.
	Topic string `json:"topic"`

	// Keys and Types are the record keys and event types that may be read. Nil: all; an empty list: none. In both {sub} stands
	// for the claim of that name, {address.city} for a member of one; {{ and }} are braces. Where the claim is a list, the rule
	// is for each of its values. A claim that isn't there, or isn't text or a whole number, stands for nothing.
	Keys  Texts `json:"keys,omitzero"`
	Types Texts `json:"types,omitzero"`

	// Filter is an expression (CEL) over event, key, type, headers, topic, partition, offset, timestamp and claims. A message
	// for which it fails, or isn't true, may not be read.
	Filter string `json:"filter,omitzero"`

	// History is how far back may be read. Nil: as far as Kafka has it; 0: nothing from before the subscription.
	History *Age `json:"history,omitzero"`
}

// Check returns what is wrong with the topic and the templates, naming the member. It doesn't look at the filter.
func (r ReadRule) Check() error {
	r.Filter = ""
	_, err := new(compiler).readRule(r)
	return err
}

// WriteRule lets events be published to some topics.
type WriteRule struct {
	Topic string `json:"topic"` // as in ReadRule

	// Source and Key, unless empty, are what the event's source and the record's key must be, and are where it gives none.
	// Claims stand in both as in ReadRule.Keys.
	Source string `json:"source"`
	Key    string `json:"key"`
}

// Policy gives rules to tokens that need not know of this gateway.
type Policy struct {
	// When is an expression (CEL) over claims. The rules are for tokens of which it is true; one that fails is false. Empty: for
	// every token that is good.
	When string

	Rules
}

// Texts is a list in a rule, of which an empty one isn't the same as none.
type Texts []string

// Age is a duration that tokens have as text, such as "24h".
type Age time.Duration

// UnmarshalJSON implements [json.Unmarshaler].
func (a *Age) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("history is negative")
	}
	*a = Age(d)
	return err
}

// claimed reads the rules that a token has of its own. What isn't known in them may restrict, so it is an error.
func claimed(claim any) (r Rules, err error) {
	if err := checkRules(claim); err != nil {
		return r, err
	}
	raw, err := json.Marshal(claim)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(raw, &r)
}

// ruleMembers are what the rules of each list may have, letter for letter: encoding/json would take others too.
var ruleMembers = map[string][]string{
	"subscribe": {"topic", "keys", "types", "filter", "history"},
	"publish":   {"topic", "source", "key"},
}

// checkRules takes rules that say what they mean. A member that isn't known may be meant to restrict, and one that is null
// or an empty text, which an issuer may have filled in with what it hasn't, would restrict nothing.
func checkRules(claim any) error {
	lists, ok := claim.(map[string]any)
	if !ok || hasNull(claim) {
		return errNotRules
	}
	for name, v := range lists {
		members := ruleMembers[name]
		entries, ok := v.([]any)
		if members == nil || !ok {
			return errNotRules
		}
		for _, entry := range entries {
			rule, ok := entry.(map[string]any)
			if !ok {
				return errNotRules
			}
			for member, v := range rule {
				if !slices.Contains(members, member) || v == "" {
					return errNotRules
				}
			}
		}
	}
	return nil
}

var errNotRules = errors.New("aren't rules")

// hasNull reports whether there is a null in a claim: it could mean all as well as none.
func hasNull(claim any) bool {
	switch v := claim.(type) {
	case nil:
		return true
	case []any:
		return slices.ContainsFunc(v, hasNull)
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), hasNull)
	}
	return false
}

// rules are Rules that were read.
type rules struct {
	reads  []readRule
	writes []writeRule
}

type readRule struct {
	topic           stream.TopicPattern
	keys, types     []template
	filter          func(claims map[string]any) (stream.Filter, error)
	history         *Age
	anyKey, anyType bool
}

type writeRule struct {
	topic       stream.TopicPattern
	source, key template // nil: any
}

// compiler reads rules. It is safe for concurrent use.
type compiler struct {
	expressions stream.Expressions // nil: there may be none

	mu    sync.Mutex // guards what follows
	known map[string]func(map[string]any) (stream.Filter, error)
}

// maxKnown bounds the expressions of tokens that are kept.
const maxKnown = 1000

// overMessages compiles an expression once, as long as there aren't too many.
func (c *compiler) overMessages(text string) (func(map[string]any) (stream.Filter, error), error) {
	if c.expressions == nil {
		return nil, errors.New("expressions aren't available")
	}
	c.mu.Lock()
	f, known := c.known[text]
	c.mu.Unlock()
	if known {
		return f, nil
	}
	f, err := c.expressions.OverMessages(text)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxKnown {
		c.known = map[string]func(map[string]any) (stream.Filter, error){}
	}
	c.known[text] = f
	return f, nil
}

// compile reads rules. Its errors name the place.
func (c *compiler) compile(in Rules) (out rules, err error) {
	for i, r := range in.Subscribe {
		rule, err := c.readRule(r)
		if err != nil {
			return out, fmt.Errorf("subscribe[%d].%w", i, err)
		}
		out.reads = append(out.reads, rule)
	}
	for i, w := range in.Publish {
		rule := writeRule{topic: stream.TopicPattern(w.Topic)}
		if err := rule.topic.Check(); err != nil {
			return out, fmt.Errorf("publish[%d].topic: %w", i, err)
		}
		if rule.source, err = fixed(w.Source); err != nil {
			return out, fmt.Errorf("publish[%d].source: %w", i, err)
		}
		if rule.key, err = fixed(w.Key); err != nil {
			return out, fmt.Errorf("publish[%d].key: %w", i, err)
		}
		out.writes = append(out.writes, rule)
	}
	return out, nil
}

// fixed reads what a rule fixes; nil, where it doesn't.
func fixed(s string) (template, error) {
	if s == "" {
		return nil, nil
	}
	return parseTemplate(s)
}

func (c *compiler) readRule(in ReadRule) (r readRule, err error) {
	r = readRule{topic: stream.TopicPattern(in.Topic), history: in.History, anyKey: in.Keys == nil, anyType: in.Types == nil}
	if err := r.topic.Check(); err != nil {
		return r, fmt.Errorf("topic: %w", err)
	}
	if r.keys, err = parseTemplates(in.Keys); err != nil {
		return r, fmt.Errorf("keys: %w", err)
	}
	if r.types, err = parseTemplates(in.Types); err != nil {
		return r, fmt.Errorf("types: %w", err)
	}
	if in.Filter != "" {
		if r.filter, err = c.overMessages(in.Filter); err != nil {
			return r, fmt.Errorf("filter: %w", err)
		}
	}
	if in.History != nil && *in.History < 0 {
		return r, errors.New("history: is negative")
	}
	return r, nil
}

// rows returns the messages that the rule lets somebody with these claims read.
func (r *readRule) rows(claims map[string]any) (stream.Filter, error) {
	keys, err := valuesOf(r.keys, claims)
	if err != nil {
		return stream.Nothing, err
	}
	types, err := valuesOf(r.types, claims)
	if err != nil {
		return stream.Nothing, err
	}
	if !r.anyKey && len(keys) == 0 || !r.anyType && len(types) == 0 {
		return stream.Nothing, nil
	}
	f := stream.Filter{Keys: keys, Types: types}
	if r.filter == nil {
		return f.Canonical(), nil
	}
	g, err := r.filter(claims)
	if err != nil {
		return stream.Nothing, err
	}
	return stream.And(f, g), nil
}
