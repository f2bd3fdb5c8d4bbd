package expr

import (
	"encoding/json"
	"fmt"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/traits"

	"github.com/goodgo/streamgw/internal/stream"
)

const opIndex = operators.Index

// term makes a filter of some claims.
type term func(claims map[string]any) (stream.Filter, error)

// OverMessages implements [stream.Expressions]. A conjunction is an And of filters and a disjunction an Or: where each
// operand that can't be decided is false, that is what CEL says of the whole, which takes an error for neither.
func (c *Compiler) OverMessages(text string) (func(claims map[string]any) (stream.Filter, error), error) {
	ast, _, err := compile(c.messages, text)
	if err != nil {
		return nil, err
	}
	t, err := c.term(ast.NativeRep().Expr(), ast.NativeRep().SourceInfo())
	if err != nil {
		return nil, err
	}
	return func(claims map[string]any) (stream.Filter, error) {
		f, err := t(noNil(claims))
		return f.Canonical(), err
	}, nil
}

func (c *Compiler) term(e celast.Expr, info *celast.SourceInfo) (term, error) {
	if e.Kind() == celast.CallKind {
		call := e.AsCall()
		switch call.FunctionName() {
		case operators.LogicalAnd, operators.LogicalOr:
			return c.both(call, info)
		case operators.Equals, operators.In:
			if t, err := c.named(call, info); t != nil || err != nil {
				return t, err
			}
		}
	}
	u := usesOf(e)
	text, program, err := c.part(e, info)
	switch {
	case err != nil:
		return nil, err
	case !u.message:
		return func(claims map[string]any) (stream.Filter, error) {
			if holds(program, map[string]any{varClaims: claims}) {
				return stream.Filter{}, nil
			}
			return stream.Nothing, nil
		}, nil
	}
	return func(claims map[string]any) (stream.Filter, error) {
		name, seen, err := u.name(text, claims)
		p := &predicate{name: name, program: program, claims: seen, events: &c.events}
		return stream.Filter{Where: []stream.Predicate{p}}, err
	}, nil
}

// part returns an operand as an expression of its own.
func (c *Compiler) part(e celast.Expr, info *celast.SourceInfo) (text string, program cel.Program, err error) {
	if text, err = cel.ExprToString(e, info); err != nil {
		return "", nil, err
	}
	ast, issues := c.messages.Compile(text)
	if issues.Err() != nil {
		return "", nil, issues.Err()
	}
	program, err = plan(c.messages, ast)
	return text, program, err
}

func (c *Compiler) both(call celast.CallExpr, info *celast.SourceInfo) (term, error) {
	var terms []term
	for _, operand := range call.Args() {
		t, err := c.term(operand, info)
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
	}
	or := call.FunctionName() == operators.LogicalOr
	return func(claims map[string]any) (stream.Filter, error) {
		all := stream.Filter{}
		if or {
			all = stream.Nothing
		}
		for _, t := range terms {
			f, err := t(claims)
			if err != nil {
				return stream.Nothing, err
			}
			if or {
				all = stream.Or(all, f)
			} else {
				all = stream.And(all, f)
			}
		}
		return all, nil
	}, nil
}

// named returns the term of key == X, X == key and key in X, and the same with type, where X needs no message; nil for
// anything else.
func (c *Compiler) named(call celast.CallExpr, info *celast.SourceInfo) (term, error) {
	variable, x := call.Args()[0], call.Args()[1]
	if call.FunctionName() == operators.Equals && x.Kind() == celast.IdentKind {
		variable, x = x, variable
	}
	if variable.Kind() != celast.IdentKind || usesOf(x).message || x.Kind() == celast.LiteralKind && x.AsLiteral().Type() != types.StringType {
		return nil, nil
	}
	name := variable.AsIdent()
	if name != varKey && name != varType {
		return nil, nil
	}
	_, program, err := c.part(x, info)
	if err != nil {
		return nil, err
	}
	return func(claims map[string]any) (stream.Filter, error) {
		texts := textsOf(program, claims, call.FunctionName() == operators.In)
		switch {
		case len(texts) == 0:
			return stream.Nothing, nil
		case name == varKey:
			return stream.Filter{Keys: texts}, nil
		default:
			return stream.Filter{Types: texts}, nil
		}
	}, nil
}

// textsOf returns the text that a program says, or the texts that are in its list, or are names in its map. What is no text
// equals no key.
func textsOf(p cel.Program, claims map[string]any, in bool) (texts []string) {
	v, _, err := p.Eval(map[string]any{varClaims: claims})
	if err != nil {
		return nil
	}
	if s, ok := v.Value().(string); ok && !in {
		return []string{s}
	}
	list, ok := v.(traits.Iterable)
	if !ok || !in {
		return nil
	}
	for it := list.Iterator(); it.HasNext() == boolTrue; {
		if s, ok := it.Next().Value().(string); ok {
			texts = append(texts, s)
		}
	}
	return texts
}

// name returns a text that is the same for those claims only that the expression can't tell apart, and these claims.
func (u *uses) name(text string, claims map[string]any) (name string, seen map[string]any, err error) {
	seen = claims
	if !u.allClaims {
		seen = map[string]any{}
		for c := range u.claims {
			if v, ok := claims[c]; ok {
				seen[c] = v
			}
		}
	}
	if !u.allClaims && len(u.claims) == 0 {
		return text, seen, nil
	}
	b, err := json.Marshal(seen)
	if err != nil {
		return "", nil, fmt.Errorf("claims: %w", err)
	}
	return text + " with claims " + string(b), seen, nil
}
