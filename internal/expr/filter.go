package expr

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/debug"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/goodgo/streamgw/internal/stream"
)

const opIndex = operators.Index

// term makes a filter of some claims.
type term func(claims map[string]any) (stream.Filter, error)

// OverMessages implements [stream.Expressions]. A conjunction is an And of filters and a disjunction an Or: where each
// operand that can't be decided is false, that is what CEL says of the whole, which takes an error for neither.
func (c *Compiler) OverMessages(text string) (func(claims map[string]any) (stream.Filter, error), error) {
	ast, err := compile(c.messages, text)
	if err != nil {
		return nil, err
	}
	t, _, err := whole{c, ast.NativeRep()}.term(ast.NativeRep().Expr())
	if err != nil {
		return nil, err
	}
	return func(claims map[string]any) (stream.Filter, error) {
		f, err := t(noNil(claims))
		return f.Canonical(), err
	}, nil
}

// whole is an expression that is taken into parts.
type whole struct {
	*Compiler
	ast *celast.AST
}

// term returns the term of a part. It is plain if the part says nothing of keys and types, and needs a message: then it is
// one predicate.
func (w whole) term(e celast.Expr) (t term, plain bool, err error) {
	if e.Kind() == celast.CallKind {
		call := e.AsCall()
		switch call.FunctionName() {
		case operators.LogicalAnd:
			return w.and(call)
		case operators.LogicalOr:
			return w.or(e)
		case operators.Equals, operators.In:
			if t, err := w.named(call); t != nil || err != nil {
				return t, false, err
			}
		}
	}
	program, err := w.program(e)
	switch u := usesOf(e); {
	case err != nil:
		return nil, false, err
	case u.message:
		t, err = w.predicate(e, program, u)
		return t, true, err
	}
	return func(claims map[string]any) (stream.Filter, error) {
		if holds(program, map[string]any{varClaims: claims}) {
			return stream.Filter{}, nil
		}
		return stream.Nothing, nil
	}, false, nil
}

// predicate returns the term of a part that has to be asked about each message.
func (w whole) predicate(e celast.Expr, program cel.Program, u uses) (term, error) {
	text, err := w.text(e)
	return func(claims map[string]any) (stream.Filter, error) {
		name, seen, err := u.name(text, claims)
		p := &predicate{name: name, program: program, claims: seen, events: &w.events}
		return stream.Filter{Where: []stream.Predicate{p}}, err
	}, err
}

// program returns a part as a program of its own.
func (w whole) program(e celast.Expr) (cel.Program, error) {
	part := celast.NewCheckedAST(celast.NewAST(e, w.ast.SourceInfo()), w.ast.TypeMap(), w.ast.ReferenceMap())
	checked, err := celast.ToProto(part)
	if err != nil {
		return nil, err
	}
	return plan(w.messages, cel.CheckedExprToAst(checked))
}

// text returns a part as it is written, for people and as its name. Where that would be read as something else, since
// parentheses are lost, it goes on with how it was read.
func (w whole) text(e celast.Expr) (string, error) {
	text, err := cel.ExprToString(e, w.ast.SourceInfo())
	if err != nil {
		return "", err
	}
	structure := debug.ToDebugString(e)
	if again, issues := w.messages.Parse(text); issues.Err() != nil || debug.ToDebugString(again.NativeRep().Expr()) != structure {
		text += " // " + structure
	}
	return text, nil
}

// and keeps the operands apart: those of them that others have too are asked once.
func (w whole) and(call celast.CallExpr) (t term, plain bool, err error) {
	var terms []term
	plain = true
	for _, operand := range call.Args() {
		t, one, err := w.term(operand)
		if err != nil {
			return nil, false, err
		}
		terms, plain = append(terms, t), plain && one
	}
	return func(claims map[string]any) (all stream.Filter, err error) {
		for _, t := range terms {
			f, err := t(claims)
			if err != nil {
				return stream.Nothing, err
			}
			all = stream.And(all, f)
		}
		return all, nil
	}, plain, nil
}

// or takes the operands that are plain together into one predicate: apart they would be multiplied out with those of other
// disjunctions, and gain nothing.
func (w whole) or(e celast.Expr) (t term, plain bool, err error) {
	var terms []term
	var rest celast.Expr
	for _, operand := range disjuncts(e) {
		t, one, err := w.term(operand)
		switch {
		case err != nil:
			return nil, false, err
		case !one:
			terms = append(terms, t)
		case rest == nil:
			rest = operand
		default:
			rest = celast.NewExprFactory().NewCall(e.ID(), operators.LogicalOr, rest, operand)
		}
	}
	if rest != nil {
		program, err := w.program(rest)
		if err != nil {
			return nil, false, err
		}
		if t, err = w.predicate(rest, program, usesOf(rest)); err != nil || len(terms) == 0 {
			return t, true, err
		}
		terms = append(terms, t)
	}
	return func(claims map[string]any) (stream.Filter, error) {
		var filters []stream.Filter
		for _, t := range terms {
			f, err := t(claims)
			if err != nil {
				return stream.Nothing, err
			}
			filters = append(filters, f)
		}
		return stream.Or(filters...), nil
	}, false, nil
}

// disjuncts returns the operands of a disjunction, and of those in it.
func disjuncts(e celast.Expr) (all []celast.Expr) {
	if e.Kind() != celast.CallKind || e.AsCall().FunctionName() != operators.LogicalOr {
		return []celast.Expr{e}
	}
	for _, operand := range e.AsCall().Args() {
		all = append(all, disjuncts(operand)...)
	}
	return all
}

// named returns the term of key == X, X == key and key in X, and the same with type, where X needs no message; nil for
// anything else.
func (w whole) named(call celast.CallExpr) (term, error) {
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
	program, err := w.program(x)
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
	if !in {
		return appendText(nil, v)
	}
	if list, ok := v.(traits.Iterable); ok {
		for it := list.Iterator(); it.HasNext() == boolTrue; {
			texts = appendText(texts, it.Next())
		}
	}
	return texts
}

// appendText appends a value that is text. Others have some in them, too: the name of a type.
func appendText(texts []string, v ref.Val) []string {
	if s, ok := v.(types.String); ok {
		return append(texts, string(s))
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
	b, err := json.Marshal(exact(seen))
	if err != nil {
		return "", nil, fmt.Errorf("claims: %w", err)
	}
	return text + " with claims " + string(b), seen, nil
}

// exact returns claims that are written so that 1.0 isn't 1: the one divides otherwise.
func exact(v any) any {
	switch v := v.(type) {
	case map[string]any:
		members := make(map[string]any, len(v))
		for name, member := range v {
			members[name] = exact(member)
		}
		return members
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = exact(v[i])
		}
		return list
	case float64:
		if s := strconv.FormatFloat(v, 'g', -1, 64); !strings.ContainsAny(s, ".e") {
			return json.RawMessage(s + ".0")
		}
	}
	return v
}
