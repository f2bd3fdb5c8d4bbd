package bench

import "encoding/binary"

// framing is what an endpoint wraps events in on their way.
type framing uint8

const (
	plain   framing = iota // bytes until the connection ends
	chunked                // RFC 9112 section 7.1
	frames                 // RFC 6455 section 5.2
)

// unwrapper takes the framing off the bytes of one connection, whatever pieces they come in.
type unwrapper struct {
	framing framing
	inside  bool   // of a chunk's or frame's payload
	control bool   // that payload is a control frame's
	n       uint8  // bytes in head
	left    uint64 // bytes of the payload that are still to come
	head    [14]byte
}

// taker takes what an unwrapper finds. Its bytes are good during the call.
type taker interface {
	payload(b []byte)                               // of chunks and data frames
	controlFrame(opcode byte, b []byte) (stop bool) // of WebSocket, a piece at least of it
	malformed()
}

// unwrap takes the next piece. It returns false once nothing follows, or nothing that can be understood.
func (u *unwrapper) unwrap(b []byte, to taker) bool {
	if u.framing == plain {
		to.payload(b)
		return true
	}
	for len(b) > 0 {
		if u.inside {
			n := min(u.left, uint64(len(b)))
			if u.control {
				if to.controlFrame(u.head[0]&0x0f, b[:n]) {
					return false
				}
			} else if n > 0 {
				to.payload(b[:n])
			}
			b = b[n:]
			if u.left -= n; u.left == 0 {
				u.inside = false
			}
			continue
		}
		rest, ok := u.header(b)
		if !ok {
			to.malformed()
			return false
		}
		b = rest
		if u.inside && u.left == 0 { // nothing follows this header
			u.inside = false
			if u.control && to.controlFrame(u.head[0]&0x0f, nil) {
				return false
			}
			if u.framing == chunked {
				return false // the last chunk: the stream is over
			}
		}
	}
	return true
}

func (u *unwrapper) header(b []byte) (rest []byte, ok bool) {
	if u.framing == chunked {
		return u.chunkHeader(b)
	}
	return u.frameHeader(b)
}

// chunkHeader reads a chunk's size. The line end of the chunk before may stand before it.
func (u *unwrapper) chunkHeader(b []byte) (rest []byte, ok bool) {
	for i, c := range b {
		switch {
		case c == '\r' || c == '\n' && u.n == 0:
		case c == '\n':
			u.inside, u.n = true, 0
			return b[i+1:], true
		default:
			digit, ok := hexDigit(c)
			if u.n == 0 {
				u.left = 0
			}
			if u.n++; !ok || u.n > 15 {
				return nil, false
			}
			u.left = u.left<<4 | uint64(digit)
		}
	}
	return nil, true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// frameHeader reads the header of a server's frame: unmasked.
func (u *unwrapper) frameHeader(b []byte) (rest []byte, ok bool) {
	for {
		need := uint8(2)
		if u.n >= 2 {
			switch u.head[1] & 0x7f {
			case 126:
				need = 4
			case 127:
				need = 10
			}
			if u.n == need {
				break
			}
		}
		took := copy(u.head[u.n:need], b)
		if b = b[took:]; took == 0 {
			return nil, true
		}
		u.n += uint8(took)
	}
	if u.head[0]&0x70 != 0 || u.head[1]&0x80 != 0 { // an extension that wasn't asked for, or a mask
		return nil, false
	}
	switch n := u.head[1] & 0x7f; n {
	case 126:
		u.left = uint64(binary.BigEndian.Uint16(u.head[2:]))
	case 127:
		u.left = binary.BigEndian.Uint64(u.head[2:])
	default:
		u.left = uint64(n)
	}
	u.inside, u.n, u.control = true, 0, u.head[0]&0x08 != 0
	return b, true
}

// The opcodes of RFC 6455 that a client makes or acts on.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

// clientFrame returns a client's frame. Its mask is all zero, so that the payload stays as it is.
func clientFrame(opcode byte, payload []byte) []byte {
	f := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		f = append(f, 0x80|byte(n))
	case n < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, 0x80|126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 0x80|127), uint64(n))
	}
	return append(append(f, 0, 0, 0, 0), payload...)
}
