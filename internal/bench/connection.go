package bench

import (
	"bytes"
	"fmt"
)

// connection is what a reader holds of one client.
type connection struct {
	fd      int
	index   int32    // in its reader's connections
	opening *opening // nil once it is open
	group   group
	over    bool // it has ended, or failed
	unwrap  unwrapper
	scan    scanner
	expect  sequences
	control []byte // of a control frame that isn't whole yet
	tap     *tap   // nil: nobody reads along
	since   int64  // when its connecting began, in nanoseconds since 1970
}

// opening is what a connection holds until it is open.
type opening struct {
	connected bool
	unsent    []byte // of the request and the greeting
	greeting  []byte
	headRead  bool
	text      []byte // what came so far: the head, then the payload
	ready     string // what the payload must hold; empty: nothing
}

// dialing is a connection to be made.
type dialing struct {
	to, from int    // indexes into the crowd's addresses; from -1: any
	request  []byte // shared by all that ask for the same
	greeting []byte
	expect   sequences
	group    group
	tap      *tap
}

// arrival is a read of one connection on its way through the framing to the marks. A reader has one.
type arrival struct {
	*tally
	c       *connection
	now     int64 // when the read returned
	after   int32 // see scanner.scan
	periods [periods]period
	reply   func(c *connection, frame []byte)
	done    func(c *connection, now int64)
}

// payload takes what is left without the framing.
func (a *arrival) payload(b []byte) {
	if o := a.c.opening; o != nil {
		o.text = append(o.text, b...)
	}
	if a.c.tap != nil {
		a.c.tap.take(b)
	}
	a.c.scan.scan(b, a.after, a)
}

func (a *arrival) controlFrame(opcode byte, b []byte) (stop bool) {
	c := a.c
	c.control = append(c.control, b...)
	if uint64(len(b)) < c.unwrap.left {
		return false
	}
	switch opcode {
	case opPing:
		a.reply(c, clientFrame(opPong, c.control))
	case opClose:
		a.reply(c, clientFrame(opClose, c.control))
		stop = true
	}
	c.control = nil
	return stop
}

func (a *arrival) malformed() { a.Damaged++ }
func (a *arrival) damaged()   { a.Damaged++ }

// found takes an event.
func (a *arrival) found(m Mark) {
	a.received++
	c := a.c
	before := c.expect.left
	switch v, lost := c.expect.take(m.Stream, m.Number); v {
	case inOrder:
	case afterLoss:
		a.Lost += uint64(lost)
		a.fault(c, "lost", m.Stream, m.Number-lost, m.Number-1)
	case repeated:
		a.Duplicated++
		a.fault(c, "repeated", m.Stream, m.Number, m.Number)
	case late:
		a.Lost--
		a.Reordered++
		a.fault(c, "out of order", m.Stream, m.Number, m.Number)
	case misplaced:
		a.Foreign++
		a.fault(c, "got another's", m.Stream, m.Number, m.Number)
	}
	if before > 0 && c.expect.left == 0 {
		a.done(c, a.now)
	}
	for p, period := range a.periods {
		if period.holds(m.At) {
			a.latency[c.group][p].record(a.now - m.At)
		}
	}
}

// head takes what came of the response's head, and returns what follows it. It returns false while there is more to come.
func (o *opening) head(c *connection, b []byte, transport Transport) (rest []byte, whole bool, err error) {
	o.text = append(o.text, b...)
	size, how, err := responseHead(o.text, transport)
	if err != nil || size == 0 {
		return nil, false, err
	}
	rest = o.text[size:]
	o.headRead, o.text = true, nil
	c.unwrap.framing = how
	return rest, true, nil
}

// isOpen reports whether all has come that makes a connection an open one.
func (o *opening) isOpen() (bool, error) {
	switch {
	case !o.headRead || len(o.unsent) > 0:
		return false, nil
	case o.ready == "" || bytes.Contains(o.text, []byte(o.ready)):
		return true, nil
	case len(o.text) > maxHead:
		return false, fmt.Errorf("%d bytes came, and %q isn't among them (--ready)", len(o.text), o.ready)
	}
	return false, nil
}
