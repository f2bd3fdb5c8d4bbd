package expr

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/goodgo/streamgw/internal/stream"
)

const boolTrue = types.True

// predicate is an expression with somebody's claims. It implements [stream.Predicate].
type predicate struct {
	name    string
	program cel.Program
	claims  map[string]any
	events  *events
}

func (p *predicate) Match(m *stream.Message) bool {
	return holds(p.program, &variables{m: m, claims: p.claims, events: p.events})
}

func (p *predicate) String() string { return p.name }

// variables resolves what an expression names of a message, and no more than that, and once. It is a [cel.Activation] for
// one evaluation.
type variables struct {
	m      *stream.Message
	claims map[string]any
	events *events

	event   *event            // nil: not read yet
	headers map[string]string // the same
}

// Parent implements [cel.Activation].
func (v *variables) Parent() cel.Activation { return nil }

// ResolveName implements [cel.Activation].
func (v *variables) ResolveName(name string) (any, bool) {
	m := v.m
	switch name {
	case varClaims:
		return v.claims, true
	case varEvent:
		if v.event == nil {
			v.event = v.events.of(m)
		}
		return v.event.value, v.event.err == nil
	case varKey:
		if m.Key == nil {
			return types.NullValue, true
		}
		return string(m.Key), true
	case varType:
		return m.EventType(), true
	case varHeaders:
		if v.headers == nil {
			v.headers = make(map[string]string, len(m.Headers))
			for i := range m.Headers {
				v.headers[m.Headers[i].Name] = string(m.Headers[i].Value)
			}
		}
		return v.headers, true
	case varTopic:
		return m.Topic, true
	case varPartition:
		return int64(m.Partition), true
	case varOffset:
		return m.Offset, true
	case varTimestamp:
		return m.Timestamp, true
	}
	return nil, false
}

// events keeps the last events that were read from their messages, since different expressions are asked about the same
// message one after the other. Few, and of the large ones one: what they hold, which is twenty times a message's value at
// worst, counts nowhere. It is safe for concurrent use.
type events struct {
	small [8]atomic.Pointer[event]
	large atomic.Pointer[event]
}

// maxSmall bounds the value of a message that isn't large, in bytes.
const maxSmall = 64 << 10

// event is a message's value, read.
type event struct {
	of    *stream.Message
	value any
	err   error
}

// of returns a message's event, with an error for one whose value isn't JSON.
func (es *events) of(m *stream.Message) *event {
	slot := &es.large
	if len(m.Value) <= maxSmall {
		slot = &es.small[uintptr(unsafe.Pointer(m))/unsafe.Sizeof(*m)%uintptr(len(es.small))]
	}
	if e := slot.Load(); e != nil && e.of == m {
		return e
	}
	e := &event{of: m}
	e.value, e.err = read(m.Value)
	slot.Store(e)
	return e
}

// read reads JSON. Whole numbers stay whole.
func read(value []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	return withNumbers(v), nil
}

func withNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return number(string(v))
	case map[string]any:
		for name, member := range v {
			v[name] = withNumbers(member)
		}
	case []any:
		for i := range v {
			v[i] = withNumbers(v[i])
		}
	}
	return v
}

func number(s string) any {
	if !strings.ContainsAny(s, ".eE") {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i
		}
		if u, err := strconv.ParseUint(s, 10, 64); err == nil {
			return u
		}
	}
	f, _ := strconv.ParseFloat(s, 64) // of a number that JSON allows; beyond the range it is an infinity
	return f
}
