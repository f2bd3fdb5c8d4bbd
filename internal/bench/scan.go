package bench

import "bytes"

// sink takes what a scanner finds.
type sink interface {
	found(m Mark)
	damaged() // a value doesn't end where it should
}

// scanner finds the marks in the bytes of one connection, whatever pieces they come in.
type scanner struct {
	run   runText       // whose marks it finds
	skip  int32         // bytes of the last event's value that are still to come, before the quote that ends it
	quote bool          // the next byte after skip must be that quote
	n     uint8         // bytes of a mark in carry
	carry [markLen]byte // a mark's beginning that ended the last piece
}

// scan takes the next piece. With after > 0, so many bytes follow each mark before a quote, and aren't searched.
func (s *scanner) scan(b []byte, after int32, to sink) {
	if s.n > 0 {
		if b = s.complete(b, after, to); s.n > 0 {
			return
		}
	}
	for {
		if b = s.pass(b, to); len(b) == 0 {
			return
		}
		i := bytes.IndexByte(b, markSign)
		if i < 0 {
			return
		}
		b = b[i:]
		if len(b) < markLen {
			s.hold(b)
			return
		}
		m, ok := parseMark(b, s.run)
		if !ok {
			b = b[1:]
			continue
		}
		b = b[markLen:]
		s.expect(after)
		to.found(m)
	}
}

// pass leaves out what is known to be padding.
func (s *scanner) pass(b []byte, to sink) []byte {
	if s.skip >= int32(len(b)) {
		s.skip -= int32(len(b))
		return nil
	}
	b = b[s.skip:]
	s.skip = 0
	if s.quote {
		s.quote = false
		if b[0] != '"' {
			to.damaged()
		}
	}
	return b
}

func (s *scanner) expect(after int32) {
	s.skip, s.quote = after, after > 0
}

// hold keeps what may be a mark's beginning.
func (s *scanner) hold(b []byte) {
	if len(b) >= 2 && b[1] != markSign {
		if i := bytes.IndexByte(b[1:], markSign); i >= 0 {
			s.hold(b[1+i:])
		}
		return
	}
	s.n = uint8(copy(s.carry[:], b))
}

// complete adds to what was held until that is a mark, or turns out to be none, and returns the rest of b.
func (s *scanner) complete(b []byte, after int32, to sink) []byte {
	took := copy(s.carry[s.n:], b)
	whole := s.carry[:int(s.n)+took]
	if m, ok := parseMark(whole, s.run); ok {
		s.n = 0
		s.expect(after)
		to.found(m)
		return b[took:]
	}
	if len(whole) < markLen && (len(whole) < 2 || whole[1] == markSign) {
		s.n = uint8(len(whole))
		return nil
	}
	// No mark begins here. What was held is short: look for one that begins later in it.
	held := s.carry
	n := s.n
	s.n = 0
	for i := 1; i < int(n); i++ {
		if held[i] == markSign {
			s.n = uint8(copy(s.carry[:], held[i:n]))
			return s.complete(b, after, to)
		}
	}
	return b
}
