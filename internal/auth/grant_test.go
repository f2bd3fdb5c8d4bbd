package auth

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// mayReadKey reports whether a grant lets a record of some key and event type be read.
func mayReadKey(g *Grant, topic, key, eventType string) bool {
	rows, _, _ := g.Rows(topic)
	return rows.Match(&stream.Message{Topic: topic, Key: []byte(key), Headers: []stream.Header{{Name: "event-type", Value: []byte(eventType)}}})
}

func TestReadRules(t *testing.T) {
	d := newDoor(t, nil)
	claims := []any{"sub", "ann", "tenants", []any{"t1", "t2", 7}, "team", map[string]any{"id": "blue"}, "https://example.com/org", "acme", "empty", "", "admin", true}
	for name, tt := range map[string]struct {
		rule     map[string]any
		may, not []string // topic key type
	}{
		"a topic":                 {map[string]any{"topic": "orders"}, []string{"orders k t"}, []string{"orders2 k t", "a.orders k t"}},
		"a pattern":               {map[string]any{"topic": "orders.**"}, []string{"orders.a k t", "orders.a.b k t"}, []string{"orders k t"}},
		"no internal topic":       {map[string]any{"topic": "**"}, []string{"a k t"}, []string{"__consumer_offsets k t"}},
		"keys":                    {map[string]any{"topic": "a", "keys": []string{"x", "y"}}, []string{"a x t", "a y u"}, []string{"a z t"}},
		"an empty list is none":   {map[string]any{"topic": "a", "keys": []string{}}, nil, []string{"a x t", "a  t"}},
		"types":                   {map[string]any{"topic": "a", "types": []string{"t"}}, []string{"a x t"}, []string{"a x u"}},
		"keys and types":          {map[string]any{"topic": "a", "keys": []string{"x"}, "types": []string{"t"}}, []string{"a x t"}, []string{"a x u", "a y t"}},
		"the subject":             {map[string]any{"topic": "a", "keys": []string{"{sub}"}}, []string{"a ann t"}, []string{"a bob t", "a {sub} t"}},
		"a part of the key":       {map[string]any{"topic": "a", "keys": []string{"user-{sub}-{team.id}"}}, []string{"a user-ann-blue t"}, []string{"a user-ann- t"}},
		"braces":                  {map[string]any{"topic": "a", "keys": []string{"{{{sub}}}"}}, []string{"a {ann} t"}, []string{"a ann t"}},
		"a list":                  {map[string]any{"topic": "a", "keys": []string{"{tenants}/1"}}, []string{"a t1/1 t", "a t2/1 t", "a 7/1 t"}, []string{"a t3/1 t", "a /1 t"}},
		"a claim with dots":       {map[string]any{"topic": "a", "keys": []string{"{https://example.com/org}"}}, []string{"a acme t"}, []string{"a x t"}},
		"no such claim":           {map[string]any{"topic": "a", "keys": []string{"{nothing}"}}, nil, []string{"a {nothing} t", "a  t", "a ann t"}},
		"an empty claim":          {map[string]any{"topic": "a", "keys": []string{"{empty}"}}, nil, []string{"a  t", "a ann t"}},
		"a claim that isn't text": {map[string]any{"topic": "a", "keys": []string{"{admin}", "{team}"}}, nil, []string{"a true t"}},
		"one of two claims":       {map[string]any{"topic": "a", "keys": []string{"{nothing}", "{sub}"}}, []string{"a ann t"}, []string{"a x t"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := d.mustAdmit(t, d.token(t, append(claims, "streamgw", subscribe(tt.rule))...))
			check := func(list []string, want bool) {
				for _, s := range list {
					row := strings.Split(s, " ")
					if got := mayReadKey(g, row[0], row[1], row[2]); got != want {
						t.Errorf("%q may be read: %v", s, got)
					}
					if want && !g.MayRead(row[0]) {
						t.Errorf("topic %s may not be read", row[0])
					}
				}
			}
			check(tt.may, true)
			check(tt.not, false)
		})
	}
}

func TestATokenWithoutRulesMayDoNothing(t *testing.T) {
	d := newDoor(t, nil)
	g := d.mustAdmit(t, d.token(t))
	if g.MayRead("a") {
		t.Error("a topic may be read")
	}
	if _, _, ok := g.MayPublish("a", "", ""); ok {
		t.Error("a topic may be written")
	}
}

func TestSeveralRulesForATopic(t *testing.T) {
	d := newDoor(t, func(c *Config) {
		c.Policies = []Policy{{Rules: Rules{Subscribe: []ReadRule{{Topic: "news.**"}}}}}
	})
	g := d.mustAdmit(t, d.token(t, "streamgw", subscribe(
		map[string]any{"topic": "a", "keys": []string{"x"}, "history": "1h"},
		map[string]any{"topic": "*", "keys": []string{"y"}, "history": "2h"},
		map[string]any{"topic": "news.*", "history": "1m"},
	)))
	if !mayReadKey(g, "a", "x", "") || !mayReadKey(g, "a", "y", "") || mayReadKey(g, "a", "z", "") || mayReadKey(g, "b", "x", "") {
		t.Error("rows aren't those of either rule")
	}
	if _, history, bounded := g.Rows("a"); !bounded || history != time.Hour {
		t.Errorf("history of two rules is %s, %v; want the shorter", history, bounded)
	}
	if rows, _, bounded := g.Rows("news.world"); !rows.All() || bounded {
		t.Errorf("a rule within a wider one bounds it: %s, %v", rows, bounded)
	}
}

func TestHistoryOfNothing(t *testing.T) {
	d := newDoor(t, nil)
	g := d.mustAdmit(t, d.token(t, "streamgw", subscribe(map[string]any{"topic": "a", "history": "0s"})))
	if _, history, bounded := g.Rows("a"); !bounded || history != 0 {
		t.Errorf("history is %s, %v", history, bounded)
	}
}

func TestPublishRules(t *testing.T) {
	d := newDoor(t, nil)
	g := d.mustAdmit(t, d.token(t, "sub", "ann", "ids", []any{"1", "2"}, "streamgw", map[string]any{"publish": []any{
		map[string]any{"topic": "chat", "source": "phone-{sub}", "key": "{sub}"},
		map[string]any{"topic": "any.**"},
		map[string]any{"topic": "ids", "key": "{ids}"},
		map[string]any{"topic": "none", "key": "{nothing}"},
	}}))
	for name, tt := range map[string]struct {
		topic, source, key  string
		wantOK              bool
		wantSource, wantKey string
	}{
		"what is fixed is filled in": {"chat", "", "", true, "phone-ann", "ann"},
		"the same given":             {"chat", "phone-ann", "ann", true, "phone-ann", "ann"},
		"another key":                {"chat", "", "bob", false, "", ""},
		"another source":             {"chat", "phone-bob", "", false, "", ""},
		"nothing is fixed":           {"any.thing", "s", "k", true, "s", "k"},
		"nothing is given":           {"any.thing", "", "", true, "", ""},
		"one of a list":              {"ids", "", "2", true, "", "2"},
		"none of a list":             {"ids", "", "3", false, "", ""},
		"which of a list":            {"ids", "", "", false, "", ""},
		"a claim that isn't there":   {"none", "", "", false, "", ""},
		"an empty key for it":        {"none", "", "x", false, "", ""},
		"another topic":              {"other", "", "", false, "", ""},
	} {
		if s, k, ok := g.MayPublish(tt.topic, tt.source, tt.key); ok != tt.wantOK || s != tt.wantSource || k != tt.wantKey {
			t.Errorf("%s: %q, %q, %v", name, s, k, ok)
		}
	}
}

func TestBraces(t *testing.T) {
	for text, why := range map[string]string{"{": "isn't closed", "a}": "closes nothing", "{}": "names no claim", "{a{b}}": "isn't closed"} {
		if _, err := parseTemplate(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", text, err, why)
		}
	}
}

func TestListsDontMultiply(t *testing.T) {
	d := newDoor(t, nil)
	list := make([]any, 40)
	for i := range list {
		list[i] = fmt.Sprint(i)
	}
	_, err := d.AdmitToken(t.Context(), d.token(t, "l", list, "streamgw", subscribe(map[string]any{"topic": "a", "keys": []string{"{l}{l}"}})))
	if e, ok := err.(*stream.Error); !ok || e.Kind != stream.Forbidden {
		t.Errorf("%v, want one of kind Forbidden", err)
	}
}

// TestGrantsAgainstANaiveModel makes rules at random and asks for rows one by one.
func TestGrantsAgainstANaiveModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	d := newDoor(t, nil)
	topics, values := []string{"a", "a.b", "a.b.c", "z"}, []string{"1", "2", "3", "4"}
	patterns := []string{"a", "*", "**", "a.*", "a.**", "z"}
	some := func() Texts {
		if random.IntN(3) == 0 {
			return nil
		}
		list := Texts{}
		for _, v := range values {
			if random.IntN(3) == 0 {
				list = append(list, v)
			}
		}
		return list
	}
	has := func(list Texts, v string) bool { return list == nil || slices.Contains(list, v) }
	for range 2000 {
		var rules []ReadRule
		for range random.IntN(5) {
			rules = append(rules, ReadRule{Topic: patterns[random.IntN(len(patterns))], Keys: some(), Types: some()})
		}
		compiled, err := d.compiler.compile(Rules{Subscribe: rules})
		if err != nil {
			t.Fatal(err)
		}
		g := new(Grant)
		if err := compiled.grantTo(nil, g); err != nil {
			t.Fatal(err)
		}
		for _, topic := range topics {
			for _, key := range values {
				for _, eventType := range values {
					want := slices.ContainsFunc(rules, func(r ReadRule) bool {
						return stream.TopicPattern(r.Topic).Match(topic) && has(r.Keys, key) && has(r.Types, eventType)
					})
					if got := mayReadKey(g, topic, key, eventType); got != want {
						t.Fatalf("%s key %s type %s may be read: %v, by %+v", topic, key, eventType, got, rules)
					}
				}
			}
		}
	}
}

// TestAGrantIsBounded: a small token can stand for very much, and each request is held against all of it.
func TestAGrantIsBounded(t *testing.T) {
	d := newDoor(t, nil)
	var a, b []string
	for i := range 31 {
		a, b = append(a, fmt.Sprint("a", i)), append(b, fmt.Sprint("b", i))
	}
	rules := func(n int) map[string]any {
		var all []map[string]any
		for i := range n {
			all = append(all, map[string]any{"topic": "t", "keys": []string{fmt.Sprint(i, "{a}{b}")}})
		}
		return subscribe(all...)
	}
	if _, err := d.AdmitToken(t.Context(), d.token(t, "a", a, "b", b, "streamgw", rules(200))); err == nil || !strings.Contains(err.Error(), "too many values") {
		t.Errorf("200 rules of 961 keys each: %v", err)
	}
	g := d.mustAdmit(t, d.token(t, "a", a, "b", b, "streamgw", rules(10)))
	if rows, _, _ := g.Rows("t"); len(rows.Keys) != 9610 {
		t.Errorf("10 rules let %d keys be read", len(rows.Keys))
	}
}

// TestPoliciesThatCanNeverHold are told at the start.
func TestPoliciesThatCanNeverHold(t *testing.T) {
	var many Texts
	for i := range 900 {
		many = append(many, fmt.Sprint(i))
	}
	var policies []Policy
	for range 12 {
		policies = append(policies, Policy{Rules: Rules{Subscribe: []ReadRule{{Topic: "a", Keys: many}}}})
	}
	d := newDoor(t, func(c *Config) { c.Policies = policies[:10] })
	cfg := d.cfg
	cfg.Policies = policies
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "auth.policies[10]: it and those before it") {
		t.Errorf("twelve rules of 900 keys: %v", err)
	}
}

func BenchmarkRows(b *testing.B) {
	g := &Grant{}
	for i := range 100 {
		f := stream.Filter{}
		for k := range 90 {
			f.Keys = append(f.Keys, fmt.Sprintf("%d-%03d", i, k))
		}
		g.reads = append(g.reads, reading{topic: "t", rows: f.Canonical()})
	}
	for b.Loop() {
		g.Rows("t")
	}
}
