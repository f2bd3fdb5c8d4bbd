package expr_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/expr"
	"github.com/goodgo/streamgw/internal/stream"
)

func newCompiler(t testing.TB) *expr.Compiler {
	t.Helper()
	c, err := expr.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatCantBeCompiled(t *testing.T) {
	c := newCompiler(t)
	for text, want := range map[string]string{
		"":                                      "is empty",
		" ":                                     "is empty",
		"event.a ==":                            "line 1, column",
		"\n\nnothing == 1":                      "line 3, column 1",
		"1":                                     "not true or false",
		`"a"`:                                   "not true or false",
		"offset":                                "not true or false",
		"offset == 'a'":                         "no matching overload",
		strings.Repeat("(", 100) + "true":       "recursion",
		strings.Repeat("true||", 1000) + "true": "size",
	} {
		if _, err := c.OverMessages(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"key == 'a'", "event.a == 1", "claims.a", "1 + 1"} {
		if f, err := c.OverClaims(text); err == nil && text != "claims.a" {
			t.Errorf("%q compiles over claims", text)
		} else if err == nil && f(map[string]any{"a": "true"}) {
			t.Errorf("%q is true of what isn't true or false", text)
		}
	}
}

func TestOverClaims(t *testing.T) {
	c := newCompiler(t)
	claims := map[string]any{"role": "ops", "n": int64(1)<<60 + 1, "f": 1.5, "groups": []any{"a", "b"}, "realm": map[string]any{"roles": []any{"x"}}, "email": "a@example.com", "verified": true}
	for text, want := range map[string]bool{
		`claims.role == "ops"`:                                     true,
		`claims.role == "dev"`:                                     false,
		`claims.nothing == "ops"`:                                  false,
		`!(claims.nothing == "ops")`:                               false, // it can't be decided
		`has(claims.nothing)`:                                      false,
		`!has(claims.nothing)`:                                     true,
		`claims.nothing == 1 || claims.role == "ops"`:              true,
		`"a" in claims.groups && "x" in claims.realm.roles`:        true,
		`claims.groups.exists(g, g.startsWith("b"))`:               true,
		`claims.n == 1152921504606846977`:                          true,
		`claims.n == 1152921504606846976`:                          false,
		`claims.f > 1`:                                             true,
		`claims.email.endsWith("@example.com") && claims.verified`: true,
		`claims.email.split("@")[1] == "example.com"`:              true,
		`claims["role"].matches("^o.*")`:                           true,
		`claims.verified`:                                          true,
		`claims.role`:                                              false,
		`claims.size() > 3`:                                        true,
	} {
		f, err := c.OverClaims(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := f(claims); got != want {
			t.Errorf("%s is %v", text, got)
		}
	}
	if f, err := c.OverClaims("has(claims.a)"); err != nil || f(nil) {
		t.Error("no claims", err)
	}
}

func message() *stream.Message {
	return &stream.Message{
		Topic: "orders", Partition: 3, Offset: 42, Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Key: []byte("k1"),
		Value:   []byte(`{"eventType":"order.placed.v1","n":5,"f":2.5,"big":9007199254740993,"huge":18446744073709551615,"nil":null,"list":[1,2],"data":{"owner":"ann","a b":true}}`),
		Headers: []stream.Header{{Name: "source", Value: []byte("shop")}},
	}
}

func compile(t testing.TB, c *expr.Compiler, text string, claims map[string]any) stream.Filter {
	t.Helper()
	of, err := c.OverMessages(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	f, err := of(claims)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return f
}

func TestOverMessages(t *testing.T) {
	c := newCompiler(t)
	claims := map[string]any{"sub": "ann", "tenants": []any{"k0", "k1"}, "quote": `"`}
	for text, want := range map[string]bool{
		`event.data.owner == claims.sub`:                      true,
		`event.data.owner == "bob"`:                           false,
		`event.n == 5 && event.n < 5.5 && event.f == 2.5`:     true,
		`event.big == 9007199254740993`:                       true,
		`event.big == 9007199254740992`:                       false,
		`event.huge == 18446744073709551615u`:                 true,
		`event.nothing == 1`:                                  false,
		`!(event.nothing == 1)`:                               false,
		`event.nothing != 1`:                                  false,
		`event.nil == null`:                                   true,
		`has(event.data) && !has(event.other)`:                true,
		`event.data["a b"]`:                                   true,
		`event.list.exists(i, i == 2)`:                        true,
		`headers["source"] == "shop"`:                         true,
		`headers["other"] == "shop"`:                          false,
		`topic == "orders" && partition == 3 && offset == 42`: true,
		`timestamp > timestamp("2026-01-01T00:00:00Z")`:       true,
		`type == "order.placed.v1"`:                           true,
		`type.startsWith("order.")`:                           true,
		`key.startsWith("k")`:                                 true,
		`key in claims.tenants`:                               true,
		`key == claims.sub || event.data.owner == claims.sub`: true,
		`key == claims.sub && event.data.owner == claims.sub`: false,
		`event.nothing == 1 || key == "k1"`:                   true,
		`claims.sub == "ann"`:                                 true,
		`claims.nothing == "ann" || true`:                     true,
		`key == claims.nothing`:                               false,
		`key == claims.quote`:                                 false,
		`key == null`:                                         false,
		`true`:                                                true,
		`false`:                                               false,
		`key == "k1" ? event.n == 5 : false`:                  true,
	} {
		if got := compile(t, c, text, claims).Match(message()); got != want {
			t.Errorf("%s is %v", text, got)
		}
	}
}

func TestMessagesThatAnExpressionCantDecideAbout(t *testing.T) {
	c := newCompiler(t)
	for name, value := range map[string][]byte{"tombstone": nil, "empty": {}, "text": []byte("hello"), "half": []byte(`{"n":5`), "two": []byte(`{"n":5} {}`), "bytes": {0xff}} {
		m := message()
		m.Value = value
		for _, text := range []string{`event.n == 5`, `event.n != 5`, `!(event.n == 5)`, `event != null`, `!has(event.n)`} {
			if compile(t, c, text, nil).Match(m) {
				t.Errorf("%s: %s is true", name, text)
			}
		}
	}
	m := message()
	m.Key = nil
	for text, want := range map[string]bool{`key == null`: true, `key == ""`: false, `key != "a"`: true, `key.startsWith("")`: false} {
		if got := compile(t, c, text, nil).Match(m); got != want {
			t.Errorf("without a key: %s is %v", text, got)
		}
	}
}

func TestKeysAndTypesAreIndexed(t *testing.T) {
	c := newCompiler(t)
	claims := map[string]any{"sub": "ann", "ids": []any{"b", "a", int64(7)}, "map": map[string]any{"x": int64(1)}}
	for text, tt := range map[string]struct {
		keys, types []string
		indexed     bool
		where       bool
	}{
		`key == "a"`:                                {[]string{"a"}, nil, true, false},
		`claims.sub == key`:                         {[]string{"ann"}, nil, true, false},
		`key == "user-" + claims.sub`:               {[]string{"user-ann"}, nil, true, false},
		`key in claims.ids`:                         {[]string{"a", "b"}, nil, true, false},
		`key in ["a", claims.sub]`:                  {[]string{"a", "ann"}, nil, true, false},
		`key in claims.map`:                         {[]string{"x"}, nil, true, false},
		`type in ["t", "u"]`:                        {nil, []string{"t", "u"}, true, false},
		`key == claims.sub && event.n > 1`:          {[]string{"ann"}, nil, true, true},
		`event.n > 1 && key == claims.sub`:          {[]string{"ann"}, nil, true, true},
		`key == "a" || type == "t"`:                 {[]string{"a"}, []string{"t"}, true, false},
		`(key == "a" || key == "b") && event.n > 1`: {[]string{"a", "b"}, nil, true, true},
		`key == "a" || event.n > 1`:                 {nil, nil, false, true},
		`event.n > 1`:                               {nil, nil, false, true},
		`!(key == "a")`:                             {nil, nil, false, true},
		`key == event.data.owner`:                   {nil, nil, false, true},
	} {
		f := compile(t, c, text, claims)
		keys, types, indexed := f.Index()
		if !slices.Equal(keys, tt.keys) || !slices.Equal(types, tt.types) || indexed != tt.indexed {
			t.Errorf("%s stands under %q, %q, %v", text, keys, types, indexed)
		}
		if got := strings.Contains(f.String(), "event") || strings.Contains(f.String(), "!"); got != tt.where {
			t.Errorf("%s: %s", text, f)
		}
	}
	if f := compile(t, c, `key == claims.nothing && event.n > 1`, claims); !f.None() {
		t.Errorf("a claim that isn't there: %s", f)
	}
	if f := compile(t, c, `claims.sub == "ann" || event.n > 1`, claims); !f.All() {
		t.Errorf("what claims alone decide: %s", f)
	}
}

// TestThoseWhoSeeTheSameShare: who differs in a claim that the expression names never shares, who differs in others does.
func TestThoseWhoSeeTheSameShare(t *testing.T) {
	c := newCompiler(t)
	const text = `event.data.owner == claims.sub && event.n > 1`
	name := func(text string, claims map[string]any) string { return compile(t, c, text, claims).String() }
	ann := map[string]any{"sub": "ann", "jti": "1"}
	if a, b := name(text, ann), name(text, map[string]any{"sub": "ann", "jti": "2"}); a != b {
		t.Errorf("%s and %s", a, b)
	}
	for _, other := range []map[string]any{{"sub": "bob"}, {}, {"sub": []any{"ann"}}, {"sub": `ann"}`}, {"sub": int64(1)}} {
		if a, b := name(text, ann), name(text, other); a == b {
			t.Errorf("%v and %v are both %s", ann, other, a)
		}
	}
	for _, text := range []string{`event.m == claims`, `event.n in claims.map(c, claims[c])`, `event.n == claims["s" + "ub"]`} {
		if a, b := name(text, ann), name(text, map[string]any{"sub": "ann", "jti": "2"}); a == b {
			t.Errorf("%s: all claims are looked at, and %s is of both", text, a)
		}
	}
}

func TestCostIsBounded(t *testing.T) {
	c := newCompiler(t)
	m := message()
	m.Value = []byte("[" + strings.TrimSuffix(strings.Repeat("1,", 20000), ",") + "]")
	for _, text := range []string{
		`event.all(a, event.all(b, event.all(c, a == b && b == c)))`,
		`event.map(a, event.map(b, a)).size() > 0`,
		`event.exists(a, event.exists(b, a != b))`,
	} {
		if compile(t, c, text, nil).Match(m) {
			t.Errorf("%s has an answer", text)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	c := newCompiler(t)
	f := compile(t, c, `event.data.owner == claims.sub && event.list.exists(i, i == 2)`, map[string]any{"sub": "ann"})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				m := message()
				if i%2 == 0 {
					m.Value = []byte(strings.Replace(string(m.Value), "ann", "bob", 1))
				}
				if f.Match(m) != (i%2 == 1) {
					t.Error("the answer is of another message")
				}
			}
		})
	}
	wg.Wait()
}

// formula makes a formula of some bytes, with terms that can be decided and such that can't.
func formula(b []byte) (text string, rest []byte) {
	terms := []string{
		`key == "a"`, `key == claims.sub`, `"b" == key`, `key in claims.ids`, `type == "t"`, `type in ["t", "u"]`, `event.n == 1`, `event.n > 0`,
		`event.no == 1`, `claims.no == 1`, `claims.sub == "a"`, `true`, `false`, `key == claims.no`, `key in ["a", "b"]`, `event.n / 0 == 1`, `key != "a"`,
	}
	if len(b) == 0 {
		return "true", nil
	}
	op, rest := b[0], b[1:]
	switch op % 8 {
	case 0, 1, 2:
		var l, r string
		l, rest = formula(rest)
		r, rest = formula(rest)
		return fmt.Sprintf("(%s %s %s)", l, []string{"&&", "||", "&&"}[op%8], r), rest
	case 3:
		var l string
		l, rest = formula(rest)
		return "!(" + l + ")", rest
	default:
		return terms[int(op/8)%len(terms)], rest
	}
}

// TestAFilterSaysWhatItsExpressionSays holds the parts that an expression is taken into against the whole. The whole is
// evaluated as a predicate, which a term that names the event makes of it.
func TestAFilterSaysWhatItsExpressionSays(t *testing.T) {
	c := newCompiler(t)
	claims := map[string]any{"sub": "a", "ids": []any{"b", int64(1)}}
	random := rand.NewChaCha8([32]byte{1})
	b := make([]byte, 24)
	for range 400 {
		_, _ = random.Read(b)
		text, _ := formula(b)
		parts := compile(t, c, text, claims)
		whole := compile(t, c, "(event.one == 1 ? ("+text+") : false)", claims)
		for _, key := range []string{"a", "b", "c", ""} {
			for _, eventType := range []string{"t", "x"} {
				for n := range 2 {
					m := &stream.Message{Value: fmt.Appendf(nil, `{"one":1,"n":%d}`, n), Headers: []stream.Header{{Name: "event-type", Value: []byte(eventType)}}}
					if key != "" {
						m.Key = []byte(key)
					}
					if got, want := parts.Match(m), whole.Match(m); got != want {
						t.Errorf("%s is %v of key %q, type %s, n %d; as a whole it is %v", text, got, key, eventType, n, want)
					}
				}
			}
		}
	}
}

func BenchmarkPredicate(b *testing.B) {
	f := compile(b, newCompiler(b), `event.data.owner == claims.sub && event.n > 1`, map[string]any{"sub": "ann"})
	b.ReportAllocs()
	for b.Loop() {
		if !f.Match(message()) {
			b.Fatal("no match")
		}
	}
}

// TestOneCallIsBounded: what one call costs is known only once it was made.
func TestOneCallIsBounded(t *testing.T) {
	c := newCompiler(t)
	for text, want := range map[string]string{
		`event.s.replace("", event.s) == ""`:                "replace isn't available",
		`event.list.join() == ""`:                           "join isn't available",
		`"%s%s".format([event.s, event.s]) == ""`:           "format isn't available",
		`event.s.matches(event.pattern)`:                    "written out",
		`event.s.matches("a" + claims.x)`:                   "written out",
		`event.s.matches("(((a{0,99}){0,9}){0,9}){0,9}")`:   "matches: ",
		`event.list.all(x, x.matches("[a-z]{1,900}[0-9]"))`: "too large",
		`event.s.matches("(")`:                              "matches: ",
	} {
		if _, err := c.OverMessages(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{`claims.a.replace("a", "b") == "b"`, `claims.a.matches(claims.b)`} {
		if _, err := c.OverClaims(text); err == nil {
			t.Errorf("%s compiles", text)
		}
	}
	m := message()
	deep := `{"a":{"b":[` + strings.TrimSuffix(strings.Repeat("1,", 3000), ",") + `]}}`
	m.Value = []byte(`{"s":"x","deep":` + deep + `,"many":[7,` + deep + `,` + deep + `],"list":[1,2,3,4]}`)
	for text, want := range map[string]bool{
		`event.list.all(x, event == event)`:              false, // of what is compared each time
		`event.list.exists(x, [event.deep] != [claims])`: true,  // the smaller one counts
		`event.deep == event.deep`:                       true,
		`event.deep in [1, event.deep]`:                  true,
		`"s" in event`:                                   true, // a look-up
		`7 in event.many`:                                true,
		`!("none" in event)`:                             true,
		`event.deep in event.many`:                       false, // of what is compared
	} {
		if got := compile(t, c, text, map[string]any{"a": "b"}).Match(m); got != want {
			t.Errorf("%s is %v", text, got)
		}
	}
}

// TestAnEventIsReadOnce, also a large one, whichever expressions ask and however often each does.
func TestAnEventIsReadOnce(t *testing.T) {
	c := newCompiler(t)
	m := message()
	m.Value = []byte(`{"pad":"` + strings.Repeat("x", 1<<20) + `","s":9,"list":[1,2,3,4,5,6,7,8,9]}`)
	m.Headers = append(m.Headers, stream.Header{Name: "event-type", Value: []byte("t")})
	var filters []stream.Filter
	for n := range 10 {
		filters = append(filters, compile(t, c, `event.list.exists(i, i == event.s && event.s == event.s && i != claims.n)`, map[string]any{"n": int64(n)}))
	}
	allocated := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			fresh := *m // another message each time
			for _, f := range filters[:9] {
				if !f.Match(&fresh) {
					b.Fatal("no match")
				}
			}
		}
	}).AllocedBytesPerOp()
	if most := int64(8 * len(m.Value)); allocated > most { // the reader has a buffer that grows
		t.Errorf("%d bytes for a message of %d that is asked about 9 times", allocated, len(m.Value))
	}
}

func TestFormulasThatMultiply(t *testing.T) {
	c := newCompiler(t)
	anyOf := func(group, n int, first string) string {
		var terms []string
		for i := range n {
			terms = append(terms, fmt.Sprintf("event.a%d_%d == 1", group, i))
		}
		if first != "" {
			terms[0] = first
		}
		return "(" + strings.Join(terms, " || ") + ")"
	}
	plain := anyOf(1, 15, "") + " && " + anyOf(2, 15, "") + " && " + anyOf(3, 15, "")
	if f := compile(t, c, plain, nil); len(f.Any) > 0 || len(f.Where) != 3 {
		t.Errorf("what says nothing of keys is multiplied out: %d terms, %d predicates", len(f.Any), len(f.Where))
	}
	var groups []string
	for i := range 9 {
		groups = append(groups, anyOf(i, 6, []string{`key == "a"`, `type == "t"`}[i%2]))
	}
	of, err := c.OverMessages(strings.Join(groups, " && "))
	if err != nil {
		t.Fatal(err)
	}
	took := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if f, err := of(nil); err != nil || f.None() {
				b.Fatal(f, err)
			}
		}
	})
	if took.AllocedBytesPerOp() > 16<<20 {
		t.Errorf("nine groups allocate %d bytes", took.AllocedBytesPerOp())
	}
}

// TestNamesSayAll: two predicates of one name are one to a hub.
func TestNamesSayAll(t *testing.T) {
	c := newCompiler(t)
	whole := map[string]any{"n": int64(1)}
	part := map[string]any{"n": float64(1)}
	const half = `event.n / 2 == claims.n / 2`
	if a, b := compile(t, c, half, whole).String(), compile(t, c, half, part).String(); a == b {
		t.Errorf("1 and 1.0 are both %s", a)
	}
	a, b := compile(t, c, `(-event.a).b == 1`, nil), compile(t, c, `-event.a.b == 1`, nil)
	if a.String() == b.String() {
		t.Errorf("both are %s", a)
	}
	m := message()
	m.Value = []byte(`{"a":{"b":-1}}`)
	if a.Match(m) || !b.Match(m) {
		t.Error("parentheses are lost")
	}
	if f := compile(t, c, `key == type("x")`, nil); len(f.Keys) > 0 {
		t.Errorf("a type is a key: %s", f)
	}
}
