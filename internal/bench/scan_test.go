package bench

import (
	"bytes"
	"math"
	"slices"
	"testing"
)

// collector is a sink and a taker.
type collector struct {
	marks   []Mark
	damages int
	scan    scanner
	after   int32
	control []byte
	bad     bool
}

func (c *collector) found(m Mark)     { c.marks = append(c.marks, m) }
func (c *collector) damaged()         { c.damages++ }
func (c *collector) malformed()       { c.bad = true }
func (c *collector) payload(b []byte) { c.scan.scan(b, c.after, c) }
func (c *collector) controlFrame(opcode byte, b []byte) bool {
	c.control = append(c.control, b...)
	return opcode == opClose
}

func eventValue(t testing.TB, m Mark, size int) []byte {
	t.Helper()
	value, err := valueTemplate(size, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(value) != size {
		t.Fatalf("a value of %d bytes has %d", size, len(value))
	}
	m.put(value[len(valueHead):])
	return value
}

const testRun = 0xdead09af

// someMarks are marks with all kinds of digits.
func someMarks() []Mark {
	return []Mark{
		{testRun, 0, 0, 1},
		{testRun, 1, 0x09af09af, 1_800_000_000_123_456_789},
		{testRun, 0x01234567, 0x89abcdef, 0x0123456789abcdef},
		{testRun, math.MaxUint32, math.MaxUint32, math.MaxInt64},
	}
}

func TestMarksReadBack(t *testing.T) {
	for _, m := range someMarks() {
		b := make([]byte, markLen)
		m.put(b)
		if back, ok := parseMark(b, textOf(testRun)); !ok || back != m {
			t.Errorf("%+v is written as %s and read back as %+v, %v", m, b, back, ok)
		}
	}
}

func TestWhatIsNoMarkOfTheRun(t *testing.T) {
	good := make([]byte, markLen)
	someMarks()[1].put(good)
	for i := range good {
		if _, ok := parseMark(good[:i], textOf(testRun)); ok {
			t.Errorf("%d characters are a mark", i)
		}
	}
	if _, ok := parseMark(good, textOf(testRun+1)); ok {
		t.Error("another run's mark is taken for this one's")
	}
}

// streamText is an event stream of all marks, with what looks like marks beside them.
func streamText(t testing.TB, size int) (text []byte) {
	for _, m := range someMarks() {
		text = append(text, "@: a comment @@ of @@@@00\n\ndata: "...)
		text = append(text, eventValue(t, m, size)...)
		text = append(text, eventValue(t, Mark{testRun + 1, 1, 1, 1}, size)...)
		text = append(text, "\nid: AQ@\n\n"...)
	}
	return text
}

func TestMarksAreFoundInWhateverPiecesTheyCome(t *testing.T) {
	for _, size := range []int{MinSize, 256} {
		for _, after := range []int32{0, int32(afterMark(size))} {
			text := streamText(t, size)
			for i := range len(text) {
				for _, second := range []int{i, i + 1, i + 7, len(text)} {
					c := collector{scan: scanner{run: textOf(testRun)}, after: after}
					second = min(second, len(text))
					for _, piece := range [][]byte{text[:i], text[i:second], text[second:]} {
						c.payload(piece)
					}
					if !slices.Equal(c.marks, someMarks()) || c.damages > 0 {
						t.Fatalf("size %d, cut at %d and %d: %d damaged, and marks %v", size, i, second, c.damages, c.marks)
					}
				}
			}
		}
	}
}

func TestMarksAreFoundByteByByte(t *testing.T) {
	c := collector{scan: scanner{run: textOf(testRun)}, after: int32(afterMark(256))}
	for _, b := range streamText(t, 256) {
		c.payload([]byte{b})
	}
	if !slices.Equal(c.marks, someMarks()) || c.damages > 0 {
		t.Errorf("%d damaged, and marks %v", c.damages, c.marks)
	}
}

func TestATornValueIsSeen(t *testing.T) {
	text := streamText(t, 256)
	for i, torn := range map[string][]byte{
		"a byte too few":  slices.Delete(slices.Clone(text), 200, 201),
		"a byte too many": slices.Insert(slices.Clone(text), 200, 'x'),
		"another's bytes": slices.Insert(slices.Clone(text), 200, []byte("\n\ndata: {}")...),
	} {
		c := collector{scan: scanner{run: textOf(testRun)}, after: int32(afterMark(256))}
		c.payload(torn)
		if c.damages == 0 {
			t.Errorf("%s: nobody noticed", i)
		}
	}
}

func chunks(text []byte, sizes ...int) (out []byte) {
	for i := 0; len(text) > 0; i++ {
		n := min(sizes[i%len(sizes)], len(text))
		out = append(out, []byte(hexSize(n)+"\r\n")...)
		out = append(append(out, text[:n]...), "\r\n"...)
		text = text[n:]
	}
	return append(out, "0\r\n\r\n"...)
}

func hexSize(n int) string {
	const digits = "0123456789ABCDEF"
	var s []byte
	for ; n > 0; n >>= 4 {
		s = append(s, digits[n&15])
	}
	slices.Reverse(s)
	return string(s)
}

func serverFrames(messages ...[]byte) (out []byte) {
	for _, m := range messages {
		out = append(out, 0x80|opPing, 4, 'p', 'i', 'n', 'g')
		f := clientFrame(opText, m)
		mask := bytes.Index(f, []byte{0, 0, 0, 0})
		f = slices.Delete(f, mask, mask+4)
		f[1] &^= 0x80
		out = append(out, f...)
	}
	return append(out, 0x80|opPong, 0)
}

func TestFramingIsTakenOffInWhateverPiecesItComes(t *testing.T) {
	text := streamText(t, 256)
	for name, tt := range map[string]struct {
		framing framing
		wire    []byte
		control string
	}{
		"until the end":   {plain, text, ""},
		"in small chunks": {chunked, chunks(text, 1, 17, 3), ""},
		"in large chunks": {chunked, chunks(text, 300, 5000), ""},
		"in frames":       {frames, serverFrames(text[:100], text[100:300], text[300:]), "pingpingping"},
		"in large frames": {frames, serverFrames(append(bytes.Repeat([]byte("x"), 70_000), text...)), "ping"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, step := range []int{1, 2, 3, 5, 13, 64, 255, len(tt.wire)} {
				c := collector{scan: scanner{run: textOf(testRun)}, after: int32(afterMark(256))}
				u := unwrapper{framing: tt.framing}
				over := false
				for piece := range slices.Chunk(tt.wire, step) {
					if over = !u.unwrap(piece, &c); over {
						break
					}
				}
				if over != (tt.framing == chunked) {
					t.Fatalf("pieces of %d: over is %v", step, over)
				}
				if !slices.Equal(c.marks, someMarks()) || c.damages > 0 || c.bad || string(c.control) != tt.control {
					t.Fatalf("pieces of %d: %d damaged, malformed %v, control %q, and marks %v", step, c.damages, c.bad, c.control, c.marks)
				}
			}
		})
	}
}

func TestFramingThatCannotBeRead(t *testing.T) {
	for name, tt := range map[string]struct {
		framing framing
		wire    string
	}{
		"a chunk without a size": {chunked, "data: x\r\n"},
		"a masked frame":         {frames, "\x81\x81abcdx"},
		"a compressed frame":     {frames, "\xc1\x01x"},
	} {
		c := collector{}
		u := unwrapper{framing: tt.framing}
		if u.unwrap([]byte(tt.wire), &c) || !c.bad {
			t.Errorf("%s: nobody noticed", name)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add(streamText(f, 256), 100, int32(0))
	f.Add([]byte("@@@@@"), 2, int32(3))
	f.Fuzz(func(t *testing.T, text []byte, cut int, after int32) {
		if after < 0 || after > 1000 || cut < 0 || cut > len(text) {
			return
		}
		whole, pieces := collector{scan: scanner{run: textOf(testRun)}, after: after}, collector{scan: scanner{run: textOf(testRun)}, after: after}
		whole.payload(text)
		pieces.payload(text[:cut])
		pieces.payload(text[cut:])
		if !slices.Equal(whole.marks, pieces.marks) || whole.damages != pieces.damages {
			t.Errorf("whole: %v, %d damaged; in pieces: %v, %d", whole.marks, whole.damages, pieces.marks, pieces.damages)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	event := append(append([]byte("data: "), eventValue(b, someMarks()[1], 256)...), "\nid: AQAAAAAPb3JkZXJzLm9yZGVyLnBsYWNlZAMAAAAAAAAAAAAAAAA\n\n"...)
	text := bytes.Repeat(event, 300)
	c := collector{scan: scanner{run: textOf(testRun)}, after: int32(afterMark(256)), marks: make([]Mark, 0, 300)}
	for b.Loop() {
		c.marks = c.marks[:0]
		c.payload(text)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/300, "ns/event")
}
