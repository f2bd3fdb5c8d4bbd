package stream

import "fmt"

// Kind classes an [Error] by who can act on it and how. The gateway has one row for each: problem type, status,
// WebSocket close code.
type Kind int

// The kinds of an Error.
const (
	Internal     Kind = iota // a fault of ours; the client learns nothing but that
	BadRequest               // the client asked for something that can't be; Field names what
	BadPosition              // a position that can't be read or doesn't fit
	NotFound                 // no such topic, or none that may be served
	Unauthorized             // no token, or one that doesn't hold
	Forbidden                // a token that doesn't grant this
	TooLarge                 // more bytes than allowed
	TooMany                  // over a limit of this client's; later it may work
	Unavailable              // Kafka can't be reached or can't serve this now
	Overloaded               // this gateway is at its bounds; another replica, or later, may do
	TooSlow                  // the client didn't take what it was sent and asked to be closed then
)

// Error is a failure a client can act on. The gateway answers with it as RFC 9457 problem details.
type Error struct {
	Kind   Kind   // picks the problem type, the status and the WebSocket close code: one table row each
	Field  string // for bad input: the parameter or setting at fault
	Detail string // for the client
	Err    error  // the cause, for the log; never sent
}

func (e *Error) Error() string {
	s := e.Detail
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error of a kind. Its detail is for the client: no cause, no secret.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// BadField returns an Error of kind BadRequest that names the field at fault.
func BadField(field, format string, args ...any) *Error {
	return &Error{Kind: BadRequest, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// RecreatedError says that a topic isn't the one that was asked for: it was deleted and created again.
type RecreatedError struct {
	Topic string
	Now   Incarnation // the one that exists
}

func (e *RecreatedError) Error() string {
	return fmt.Sprintf("topic %s was created again: it is now %s", e.Topic, e.Now)
}
