package stream

// Predicate decides about a message by more than its key and type. One that can't decide (a field that isn't there, a
// value that can't be read) doesn't match. It is safe for concurrent use, and changes no message.
type Predicate interface {
	Match(*Message) bool
	String() string // equal texts mean the same predicate
}

// Expressions compiles what people write to decide about claims and messages. Errors name the place in the text, for
// whoever wrote it. It is safe for concurrent use, and so is what it returns.
type Expressions interface {
	// OverClaims compiles an expression over a token's claims. One that can't decide about some says false.
	OverClaims(text string) (func(claims map[string]any) bool, error)

	// OverMessages compiles an expression over messages, which may name the claims of whoever is to see them. With claims
	// it is a canonical filter, in which what it says of keys and types stands in Keys and Types. Errors are about the claims.
	OverMessages(text string) (func(claims map[string]any) (Filter, error), error)
}
