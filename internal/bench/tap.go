package bench

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
)

// tap reads along on one connection what the others only count: the position after each event, to come back to.
type tap struct {
	transport Transport
	run       runText
	stop      uint64 // it takes no more once it has got so many events; 0: it never stops

	mu       sync.Mutex // guards what follows
	events   uint64
	next     []uint32 // of each stream, what follows position
	position string
	buf      []byte // what isn't understood yet
}

// maxTapped bounds what isn't understood yet, in bytes.
const maxTapped = 4 << 20

// take takes the next piece of the connection's payload.
func (t *tap) take(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stop > 0 && t.events >= t.stop {
		return
	}
	t.buf = append(t.buf, b...)
	if t.transport == WebSocket {
		t.messages()
	} else {
		t.blocks()
	}
	if len(t.buf) > maxTapped { // nothing of this is an event stream's
		t.buf = nil
	}
}

// blocks takes whole blocks of an event stream: the id of one counts once all of it is there.
func (t *tap) blocks() {
	rest := t.buf
	for t.stop == 0 || t.events < t.stop {
		end, after := bytes.Index(rest, []byte("\n\n")), 2
		if crlf := bytes.Index(rest, []byte("\r\n\r\n")); crlf >= 0 && (end < 0 || crlf < end) {
			end, after = crlf, 4
		}
		if end < 0 {
			break
		}
		block := rest[:end]
		rest = rest[end+after:]
		t.marks(block)
		for line := range bytes.Lines(block) {
			if id, ok := bytes.CutPrefix(line, []byte("id:")); ok {
				t.position = string(bytes.TrimSpace(id))
			}
		}
	}
	t.buf = append(t.buf[:0], rest...)
}

// messages takes whole WebSocket messages of streamgw's, which are JSON objects.
func (t *tap) messages() {
	rest := t.buf
	for t.stop == 0 || t.events < t.stop {
		var message json.RawMessage
		d := json.NewDecoder(bytes.NewReader(rest))
		if d.Decode(&message) != nil { // it isn't whole yet
			break
		}
		rest = rest[d.InputOffset():]
		t.marks(message)
		var said struct{ Position string }
		if json.Unmarshal(message, &said) == nil && said.Position != "" {
			t.position = said.Position
		}
	}
	t.buf = append(t.buf[:0], rest...)
}

func (t *tap) marks(b []byte) {
	for {
		i := bytes.Index(b, []byte("@@"))
		if i < 0 {
			return
		}
		b = b[i:]
		m, ok := parseMark(b, t.run)
		if !ok {
			b = b[1:]
			continue
		}
		b = b[markLen:]
		if int(m.Stream) < len(t.next) {
			t.events++
			t.next[m.Stream] = m.Number + 1
		}
	}
}

// at returns the last position, what follows it of each stream, and how many events it has seen.
func (t *tap) at() (position string, next []uint32, events uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.position, slices.Clone(t.next), t.events
}
