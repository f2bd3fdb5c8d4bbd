package expr

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp/syntax"
	"slices"

	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// CEL counts what a call costs once it has been made. So one call alone mustn't cost much more than its operands are large.

// multiplying are functions whose result may be as large as two of their operands multiplied.
var multiplying = map[string]bool{"replace": true, "join": true, "format": true}

// maxPattern bounds a regular expression, in instructions of the machine that it becomes.
const maxPattern = 1000

// checkCalls returns an error if an expression has a call whose cost can't be bounded.
func checkCalls(e celast.Expr) (err error) {
	celast.PreOrderVisit(e, celast.NewExprVisitor(func(e celast.Expr) {
		if e.Kind() != celast.CallKind {
			return
		}
		switch call := e.AsCall(); {
		case multiplying[call.FunctionName()]:
			err = errors.Join(err, fmt.Errorf("%s isn't available: what it makes has no bound", call.FunctionName()))
		case call.FunctionName() == "matches":
			err = errors.Join(err, checkPattern(call.Args()[len(call.Args())-1]))
		}
	}))
	return err
}

// checkPattern takes a pattern that is written out, and that doesn't become large.
func checkPattern(e celast.Expr) error {
	if e.Kind() != celast.LiteralKind {
		return errors.New("matches: the pattern has to be written out")
	}
	pattern, _ := e.AsLiteral().Value().(string)
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return fmt.Errorf("matches: %w", err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return fmt.Errorf("matches: %w", err)
	}
	if len(program.Inst) > maxPattern {
		return errors.New("matches: the pattern is too large")
	}
	return nil
}

// costs has the comparison of lists and maps cost what is compared: CEL counts the first level alone.
type costs struct{}

// CallCost implements [cost.ActualCostEstimator].
func (costs) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	switch function {
	case operators.Equals, operators.NotEquals, operators.In:
		n := valuesIn(args[0], maxCost+1)
		if _, list := args[1].(traits.Lister); function != operators.In {
			n = valuesIn(args[1], n) // the smaller of them
		} else if list && n > 1 { // a map is looked into by a key, and a single value is held against the first level
			n = valuesIn(args[1], maxCost+1)
		}
		if n > 1 {
			cost := uint64(n)
			return &cost
		}
	}
	return nil
}

// valuesIn counts the values of a list or map and of those in it, up to most.
func valuesIn(v any, most int) int {
	if val, ok := v.(ref.Val); ok {
		v = val.Value()
	}
	switch v := v.(type) {
	case map[string]any:
		return 1 + valuesInAll(maps.Values(v), most-1)
	case []any:
		return 1 + valuesInAll(slices.Values(v), most-1)
	case []ref.Val:
		return 1 + valuesInAll(slices.Values(v), most-1)
	}
	return 1
}

func valuesInAll[T any](members iter.Seq[T], most int) (n int) {
	for m := range members {
		if n >= most {
			break
		}
		n += valuesIn(m, most-n)
	}
	return n
}
