package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Mark is what an event carries: the run that it belongs to, its stream (a lane of the publisher, or a key), its number
// in that stream, counted from 0, and when it was handed to the publisher.
type Mark struct {
	Run    uint32
	Stream uint32
	Number uint32
	At     int64 // nanoseconds since 1970
}

// A mark is 42 characters that no encoding changes: @@, then run, stream, number and time in hexadecimal digits.
const (
	markSign   = '@'
	markLen    = 2 + 8 + 8 + 8 + 16
	maxStreams = 1 << 22
)

// put writes the mark over the first markLen bytes of dst.
func (m Mark) put(dst []byte) {
	_ = dst[markLen-1]
	dst[0], dst[1] = markSign, markSign
	putHex8(dst[2:], m.Run)
	putHex8(dst[10:], m.Stream)
	putHex8(dst[18:], m.Number)
	putHex8(dst[26:], uint32(m.At>>32))
	putHex8(dst[34:], uint32(m.At))
}

// runText is how marks of a run have it: what tells them from anything else.
type runText uint64

func textOf(run uint32) runText {
	var b [8]byte
	putHex8(b[:], run)
	return runText(binary.BigEndian.Uint64(b[:]))
}

// parseMark reads the mark of that run that b begins with.
func parseMark(b []byte, run runText) (m Mark, ok bool) {
	if len(b) < markLen || b[0] != markSign || b[1] != markSign || runText(binary.BigEndian.Uint64(b[2:])) != run {
		return m, false
	}
	return Mark{
		Run: hex8(b[2:]), Stream: hex8(b[10:]), Number: hex8(b[18:]), At: int64(hex8(b[26:]))<<32 | int64(hex8(b[34:])),
	}, true
}

const hexDigits = "0123456789abcdef"

func putHex8(dst []byte, v uint32) {
	for i := 7; i >= 0; i-- {
		dst[i] = hexDigits[v&15]
		v >>= 4
	}
}

// hex8 reads eight hexadecimal digits, lower case, all at once: a byte of a word each. What isn't one reads as some number.
func hex8(b []byte) uint32 {
	const ones = 0x0101010101010101
	w := binary.BigEndian.Uint64(b)
	v := w&(ones*0x0f) + (w>>6)&ones*9 // bit 6 is a letter's
	v = (v | v>>4) & 0x00ff00ff00ff00ff
	v = (v | v>>8) & 0x0000ffff0000ffff
	return uint32(v | v>>16)
}

// An event's value is a JSON object of an exact size: {"m":"MARK","p":"PADDING"}.
const (
	valueHead   = `{"m":"`
	valueMiddle = `","p":"`
	valueTail   = `"}`

	// MinSize is the smallest value of an event.
	MinSize = len(valueHead) + markLen + len(valueMiddle) + len(valueTail)
	maxSize = 1 << 20
)

// valueTemplate returns a value but for its mark, and padded with what looks like text.
func valueTemplate(size int, seed uint64) ([]byte, error) {
	if size < MinSize || size > maxSize {
		return nil, fmt.Errorf("--size: %d isn't between %d and %d", size, MinSize, maxSize)
	}
	random := rand.New(rand.NewPCG(seed, 1))
	value := make([]byte, 0, size)
	value = append(value, valueHead...)
	value = slices.Grow(value, markLen)[:len(value)+markLen]
	value = append(value, valueMiddle...)
	const letters = "etaoinshrdlucmfw  ETAOIN0123456789"
	for len(value) < size-len(valueTail) {
		value = append(value, letters[random.IntN(len(letters))])
	}
	return append(value, valueTail...), nil
}

// afterMark is how many bytes of a value stand between its mark and the quote that ends its padding.
func afterMark(size int) int { return size - len(valueHead) - markLen - len(valueTail) }
