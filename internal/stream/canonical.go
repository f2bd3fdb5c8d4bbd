package stream

import (
	"cmp"
	"slices"
	"strings"
)

// mostTerms bounds what And multiplies out.
const mostTerms = 256

// And returns the canonical filter of what both want.
func And(f, g Filter) Filter {
	switch {
	case f.nothing || g.nothing:
		return Nothing
	case len(f.Any) == 0 || len(g.Any) == 0:
		both, ok := intersect(f, g)
		if !ok {
			return Nothing
		}
		both.Any = slices.Concat(f.Any, g.Any)
		return both.Canonical()
	}
	return union(product(f.terms(), g.terms()))
}

// Or returns the canonical filter of what either of them wants: Nothing, if there are none.
func Or(filters ...Filter) Filter {
	if len(filters) == 0 {
		return Nothing
	}
	return Filter{Any: filters}.Canonical()
}

// Canonical returns f simplified, with its lists sorted and without repeats, so that the same filter is mostly written
// one way only. Where it has an Any, keys and types stand in each of that, and a predicate of all of them in Where.
func (f Filter) Canonical() Filter {
	if !f.nothing && len(f.Any) == 0 {
		return Filter{Keys: sorted(f.Keys), Types: sorted(f.Types), Where: sortedPredicates(f.Where)}
	}
	return union(f.terms())
}

// Covers reports whether f wants all that g wants, as far as it can be told from what they say. Both are canonical.
func (f Filter) Covers(g Filter) bool {
	ours := f.parts()
	for _, t := range g.parts() {
		if !slices.ContainsFunc(ours, func(o Filter) bool { return o.covers(t) }) {
			return false
		}
	}
	return true
}

// parts is terms for a canonical filter, which has them as they are.
func (f Filter) parts() (parts []Filter) {
	switch {
	case f.nothing:
		return nil
	case len(f.Any) == 0:
		return []Filter{f}
	}
	for _, g := range f.Any {
		if len(f.Where) > 0 {
			g.Where = sortedPredicates(slices.Concat(f.Where, g.Where))
		}
		parts = append(parts, g)
	}
	return parts
}

// terms returns filters without Any that together want what f wants. They are canonical.
func (f Filter) terms() (terms []Filter) {
	if f.nothing {
		return nil
	}
	plain := Filter{Keys: f.Keys, Types: f.Types, Where: f.Where}.Canonical()
	if len(f.Any) == 0 {
		return []Filter{plain}
	}
	for _, g := range f.Any {
		for _, t := range g.terms() {
			if both, ok := intersect(plain, t); ok {
				terms = append(terms, both)
			}
		}
	}
	return terms
}

// product returns terms of what two unions both want. Where these are too many, one union becomes a predicate of the other's.
func product(f, g []Filter) (terms []Filter) {
	if len(f)*len(g) > mostTerms && len(f) > 1 && len(g) > 1 {
		g = []Filter{{Where: []Predicate{union(g)}}}
	}
	for _, t := range f {
		for _, u := range g {
			if both, ok := intersect(t, u); ok {
				terms = append(terms, both)
			}
		}
	}
	return terms
}

// intersect returns what both want, Any left aside. ok is false if that is nothing.
func intersect(f, g Filter) (both Filter, ok bool) {
	keys, ok := common(f.Keys, g.Keys)
	if !ok {
		return Filter{}, false
	}
	types, ok := common(f.Types, g.Types)
	if !ok {
		return Filter{}, false
	}
	return Filter{Keys: keys, Types: types, Where: sortedPredicates(slices.Concat(f.Where, g.Where))}, true
}

// common returns what is in both lists, of which an empty one stands for everything. ok is false if nothing is.
func common(a, b []string) (both []string, ok bool) {
	switch a, b = sorted(a), sorted(b); {
	case len(a) == 0:
		return b, true
	case len(b) == 0:
		return a, true
	}
	for _, s := range a {
		if _, found := slices.BinarySearch(b, s); found {
			both = append(both, s)
		}
	}
	return both, len(both) > 0
}

// union returns the canonical filter of what one of some terms wants.
func union(terms []Filter) Filter {
	switch terms = simplify(terms); len(terms) {
	case 0:
		return Nothing
	case 1:
		return terms[0]
	}
	shared := terms[0].Where
	for _, t := range terms[1:] {
		shared = slices.DeleteFunc(slices.Clone(shared), func(p Predicate) bool { return !t.hasPredicate(p) })
	}
	f := Filter{Where: shared}
	for _, t := range terms {
		t.Where = slices.DeleteFunc(slices.Clone(t.Where), f.hasPredicate)
		f.Any = append(f.Any, t)
	}
	slices.SortFunc(f.Any, compare)
	return f
}

// simplify merges terms that differ in their keys only, or in their types only, and drops those that others cover.
func simplify(terms []Filter) []Filter {
	for {
		before := len(terms)
		terms = merge(terms, func(f *Filter) *[]string { return &f.Keys })
		terms = merge(terms, func(f *Filter) *[]string { return &f.Types })
		var kept []Filter
		for i, t := range terms {
			if !slices.ContainsFunc(terms[:i], func(o Filter) bool { return o.covers(t) }) &&
				!slices.ContainsFunc(terms[i+1:], func(o Filter) bool { return o.covers(t) }) {
				kept = append(kept, t)
			}
		}
		terms = kept
		if len(terms) == before {
			return terms
		}
	}
}

// merge makes one term of those that are alike but for one list, and returns them in order.
func merge(terms []Filter, list func(*Filter) *[]string) (merged []Filter) {
	places := map[string]int{}
	for _, t := range terms {
		values := *list(&t)
		rest := t
		*list(&rest) = nil
		name := rest.String()
		i, known := places[name]
		if !known {
			places[name] = len(merged)
			merged = append(merged, t)
			continue
		}
		into := list(&merged[i])
		if len(values) == 0 || len(*into) == 0 {
			*into = nil
		} else {
			*into = slices.Concat(*into, values)
		}
	}
	for i := range merged {
		into := list(&merged[i])
		*into = sorted(*into)
	}
	slices.SortFunc(merged, compare)
	return merged
}

// covers is Covers for canonical terms.
func (f Filter) covers(g Filter) bool {
	return holds(f.Keys, g.Keys) && holds(f.Types, g.Types) &&
		!slices.ContainsFunc(f.Where, func(p Predicate) bool { return !g.hasPredicate(p) })
}

// holds reports whether all of b is in a. Both are sorted, and an empty one stands for everything.
func holds(a, b []string) bool {
	if len(a) == 0 {
		return true
	}
	for _, s := range b {
		if _, found := slices.BinarySearch(a, s); !found {
			return false
		}
	}
	return len(b) > 0
}

func (f Filter) hasPredicate(p Predicate) bool {
	return slices.ContainsFunc(f.Where, func(q Predicate) bool { return q.String() == p.String() })
}

func compare(f, g Filter) int { return strings.Compare(f.String(), g.String()) }

func sorted(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func sortedPredicates(list []Predicate) []Predicate {
	if len(list) == 0 {
		return nil
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(p, q Predicate) int { return cmp.Compare(p.String(), q.String()) })
	return slices.CompactFunc(list, func(p, q Predicate) bool { return p.String() == q.String() })
}
