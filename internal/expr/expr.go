// Package expr compiles expressions over claims and messages: CEL, the Common Expression Language, compiled once and
// bounded in cost. It implements [stream.Expressions].
//
// Promises: what can't be decided is false. An expression changes nothing, sees nothing but its variables, and ends: its
// cost is bounded whatever the message is. What it says of keys and types stands in the filter's Keys and Types, so that a
// message is only held against the filters that name its key.
package expr

import (
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/ext"

	"github.com/goodgo/streamgw/internal/stream"
)

const (
	// maxText bounds an expression, in code points.
	maxText = 4 << 10

	// maxCost bounds one evaluation, in CEL's units: about one for each operation, a tenth for each byte of text looked at,
	// and one for each value that two lists or maps are compared by.
	maxCost = 5000

	// maxDepth bounds how deep an expression may be nested.
	maxDepth = 64
)

// The variables.
const (
	varClaims    = "claims"
	varEvent     = "event"
	varKey       = "key"
	varType      = "type"
	varHeaders   = "headers"
	varTopic     = "topic"
	varPartition = "partition"
	varOffset    = "offset"
	varTimestamp = "timestamp"
)

// Compiler compiles expressions. It is safe for concurrent use.
type Compiler struct {
	claims, messages *cel.Env
	events           events
}

var _ stream.Expressions = (*Compiler)(nil)

// New returns a compiler.
func New() (*Compiler, error) {
	shared := []cel.EnvOption{
		ext.Strings(), cel.CrossTypeNumericComparisons(true), cel.EnableMacroCallTracking(),
		cel.ParserRecursionLimit(maxDepth), cel.ParserExpressionSizeLimit(maxText),
		cel.Variable(varClaims, cel.MapType(cel.StringType, cel.DynType)),
	}
	c := &Compiler{}
	var err error
	if c.claims, err = cel.NewEnv(shared...); err != nil {
		return nil, err
	}
	c.messages, err = c.claims.Extend(
		cel.Variable(varEvent, cel.DynType), // the record's value, if that is JSON
		cel.Variable(varKey, cel.DynType),   // text, or null without one
		cel.Variable(varType, cel.StringType),
		cel.Variable(varHeaders, cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable(varTopic, cel.StringType),
		cel.Variable(varPartition, cel.IntType),
		cel.Variable(varOffset, cel.IntType),
		cel.Variable(varTimestamp, cel.TimestampType),
	)
	return c, err
}

// compile returns an expression that is true or false.
func compile(env *cel.Env, text string) (*cel.Ast, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("the expression is empty")
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		e := issues.Errors()[0]
		return nil, fmt.Errorf("line %d, column %d: %s", e.Location.Line(), e.Location.Column()+1, e.Message)
	}
	if out := ast.OutputType(); !out.IsExactType(cel.BoolType) && !out.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("the expression is of type %s, not true or false", out)
	}
	return ast, checkCalls(ast.NativeRep().Expr())
}

func plan(env *cel.Env, ast *cel.Ast) (cel.Program, error) {
	return env.Program(ast, cel.CostLimit(maxCost), cel.CostTracking(costs{}), cel.EvalOptions(cel.OptOptimize))
}

// OverClaims implements [stream.Expressions].
func (c *Compiler) OverClaims(text string) (func(claims map[string]any) bool, error) {
	ast, err := compile(c.claims, text)
	if err != nil {
		return nil, err
	}
	program, err := plan(c.claims, ast)
	if err != nil {
		return nil, err
	}
	return func(claims map[string]any) bool { return holds(program, map[string]any{varClaims: noNil(claims)}) }, nil
}

// holds reports whether a program says true.
func holds(p cel.Program, vars any) bool {
	v, _, err := p.Eval(vars)
	if err != nil {
		return false
	}
	answer, ok := v.Value().(bool)
	return ok && answer
}

func noNil(claims map[string]any) map[string]any {
	if claims == nil {
		return map[string]any{}
	}
	return claims
}

// uses is what an expression looks at.
type uses struct {
	message   bool            // some of a message
	claims    map[string]bool // claims by name
	allClaims bool            // or the map of them
}

func usesOf(e celast.Expr) uses {
	u := uses{claims: map[string]bool{}}
	u.visit(e)
	return u
}

func (u *uses) visit(e celast.Expr) {
	if name, ok := claimOf(e); ok {
		u.claims[name] = true
		return
	}
	switch e.Kind() {
	case celast.IdentKind:
		switch strings.TrimPrefix(e.AsIdent(), ".") {
		case varClaims:
			u.allClaims = true
		case varEvent, varKey, varType, varHeaders, varTopic, varPartition, varOffset, varTimestamp:
			u.message = true // or a variable of a macro that hides it, which does no harm
		}
	case celast.SelectKind:
		u.visit(e.AsSelect().Operand())
	case celast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() {
			u.visit(call.Target())
		}
		for _, a := range call.Args() {
			u.visit(a)
		}
	case celast.ListKind:
		for _, a := range e.AsList().Elements() {
			u.visit(a)
		}
	case celast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			u.visit(entry.AsMapEntry().Key())
			u.visit(entry.AsMapEntry().Value())
		}
	case celast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			u.visit(field.AsStructField().Value())
		}
	case celast.ComprehensionKind:
		l := e.AsComprehension()
		for _, a := range []celast.Expr{l.IterRange(), l.AccuInit(), l.LoopCondition(), l.LoopStep(), l.Result()} {
			u.visit(a)
		}
	}
}

// claimOf returns the name in claims.name and claims["name"].
func claimOf(e celast.Expr) (name string, ok bool) {
	isClaims := func(e celast.Expr) bool { return e.Kind() == celast.IdentKind && e.AsIdent() == varClaims }
	switch e.Kind() {
	case celast.SelectKind:
		return e.AsSelect().FieldName(), isClaims(e.AsSelect().Operand())
	case celast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != opIndex || !isClaims(call.Args()[0]) || call.Args()[1].Kind() != celast.LiteralKind {
			return "", false
		}
		name, ok = call.Args()[1].AsLiteral().Value().(string)
		return name, ok
	}
	return "", false
}
