package auth

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// template is a text in which claims stand: {sub}, {address.city}.
type template []piece

// piece is a text as it is, or a claim.
type piece struct {
	text  string
	claim bool
}

// maxValues bounds what one template may come to, where claims are lists.
const maxValues = 1000

// parseTemplate reads a template. {{ and }} are braces.
func parseTemplate(s string) (t template, err error) {
	var text strings.Builder
	rest := s
	for rest != "" {
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			text.WriteString(rest)
			break
		}
		text.WriteString(rest[:i])
		brace := rest[i]
		if rest = rest[i+1:]; strings.HasPrefix(rest, string(brace)) {
			text.WriteByte(brace)
			rest = rest[1:]
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		switch {
		case brace == '}':
			return nil, fmt.Errorf("%q: a } closes nothing; }} is one that stands for itself", s)
		case !closed || strings.Contains(name, "{"):
			return nil, fmt.Errorf("%q: a { isn't closed; {{ is one that stands for itself", s)
		case name == "":
			return nil, fmt.Errorf("%q: {} names no claim", s)
		}
		if text.Len() > 0 {
			t = append(t, piece{text: text.String()})
			text.Reset()
		}
		t = append(t, piece{name, true})
		rest = after
	}
	if text.Len() > 0 || len(t) == 0 {
		t = append(t, piece{text: text.String()})
	}
	return t, nil
}

func parseTemplates(list []string) (ts []template, err error) {
	for _, s := range list {
		t, err := parseTemplate(s)
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}

var errTooManyValues = errors.New("its rules and claims come to too many values")

// values returns what t comes to with some claims: nothing if one isn't there, is empty, or can't stand in a text.
func (t template) values(claims map[string]any) ([]string, error) {
	values := []string{""}
	for _, p := range t {
		stands := []string{p.text}
		if p.claim {
			stands = textsOf(claimNamed(claims, p.text))
		}
		if len(values)*len(stands) > maxValues {
			return nil, errTooManyValues
		}
		var longer []string
		for _, v := range values {
			for _, s := range stands {
				longer = append(longer, v+s)
			}
		}
		values = longer
	}
	return values, nil
}

// valuesOf returns what all of some templates come to.
func valuesOf(ts []template, claims map[string]any) (all []string, err error) {
	for _, t := range ts {
		values, err := t.values(claims)
		if err != nil {
			return nil, err
		}
		if all = append(all, values...); len(all) > maxValues {
			return nil, errTooManyValues
		}
	}
	return all, nil
}

// claimNamed returns a claim of that name, dots and all, or else the member that its dots lead to.
func claimNamed(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok {
		return v
	}
	first, rest, nested := strings.Cut(name, ".")
	if inner, ok := claims[first].(map[string]any); ok && nested {
		return claimNamed(inner, rest)
	}
	return nil
}

// textsOf returns the texts that a claim stands for: itself, or those of its list.
func textsOf(claim any) []string {
	switch v := claim.(type) {
	case string:
		if v != "" {
			return []string{v}
		}
	case int64:
		return []string{strconv.FormatInt(v, 10)}
	case []any:
		var texts []string
		for _, one := range v {
			if _, list := one.([]any); !list {
				texts = append(texts, textsOf(one)...)
			}
		}
		return texts
	}
	return nil
}
