package harness

import (
	"bytes"
	"fmt"
	"maps"
	"strconv"
	"sync"
)

// Number is an event's place: the N-th event, from 0, written to a partition of a series. A series is a topic, by the
// place that the test gave it.
type Number struct {
	Series, Partition int
	N                 int64
}

// AppendNumber appends the JSON value that carries n, filled up to size bytes.
func AppendNumber(dst []byte, n Number, size int) []byte {
	start := len(dst)
	dst = append(dst, `{"s":`...)
	dst = strconv.AppendInt(dst, int64(n.Series), 10)
	dst = append(dst, `,"p":`...)
	dst = strconv.AppendInt(dst, int64(n.Partition), 10)
	dst = append(dst, `,"n":`...)
	dst = strconv.AppendInt(dst, n.N, 10)
	if fill := size - (len(dst) - start) - len(`,"x":""}`); fill > 0 {
		dst = append(dst, `,"x":"`...)
		dst = append(dst, bytes.Repeat([]byte{'x'}, fill)...)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// ParseNumber reads what AppendNumber wrote. It is called millions of times and doesn't allocate.
func ParseNumber(value []byte) (Number, error) {
	rest := value
	field := func(name string) (v int64) {
		after, ok := bytes.CutPrefix(rest, []byte(name))
		digits := 0
		for digits < len(after) && '0' <= after[digits] && after[digits] <= '9' {
			v = v*10 + int64(after[digits]-'0')
			digits++
		}
		if !ok || digits == 0 {
			return -1
		}
		rest = after[digits:]
		return v
	}
	s, p, n := field(`{"s":`), field(`,"p":`), field(`,"n":`)
	if s < 0 || p < 0 || n < 0 || len(rest) == 0 || rest[len(rest)-1] != '}' || bytes.IndexByte(rest, '}') != len(rest)-1 {
		return Number{}, fmt.Errorf("not a numbered event: %.200q", value)
	}
	return Number{int(s), int(p), n}, nil
}

// Ledger is what one client has received. It accepts a number only when it is the next of its partition.
type Ledger struct {
	stride, first int64 // of the numbers expected: a filter by key leaves every stride-th, beginning with first

	mu    sync.Mutex // guards what follows
	next  map[[2]int]int64
	count int64
}

// NewLedger returns a ledger that expects the numbers 0, 1, 2, … of every partition.
func NewLedger() *Ledger { return NewLedgerOf(0, 1) }

// NewLedgerOf returns a ledger that expects first, first+stride, first+2·stride, … of every partition.
func NewLedgerOf(first, stride int64) *Ledger {
	return &Ledger{stride: stride, first: first, next: map[[2]int]int64{}}
}

// Take enters a number, or says how it isn't the one expected.
func (l *Ledger) Take(n Number) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := [2]int{n.Series, n.Partition}
	want, ok := l.next[at]
	if !ok {
		want = l.first
	}
	switch {
	case n.N < want:
		return fmt.Errorf("series %d, partition %d: %d came again or out of order, %d was next", n.Series, n.Partition, n.N, want)
	case n.N > want:
		return fmt.Errorf("series %d, partition %d: %d came, %d to %d were lost", n.Series, n.Partition, n.N, want, n.N-l.stride)
	}
	l.next[at] = want + l.stride
	l.count++
	return nil
}

// Expect sets the next number of a partition, for a client that began later or was told of a gap.
func (l *Ledger) Expect(n Number) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next[[2]int{n.Series, n.Partition}] = n.N
}

// Next returns the number that is next in a partition: all before it have come.
func (l *Ledger) Next(series, partition int) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if next, ok := l.next[[2]int{series, partition}]; ok {
		return next
	}
	return l.first
}

// Count returns how many numbers were entered.
func (l *Ledger) Count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Clone returns a ledger that has taken what this one has.
func (l *Ledger) Clone() *Ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &Ledger{stride: l.stride, first: l.first, next: maps.Clone(l.next), count: l.count}
}
