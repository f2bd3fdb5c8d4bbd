package gateway

import (
	"encoding/binary"
	"net/http"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
	"github.com/klauspost/compress/flate"
)

// gzipped writes what another transport writes as one gzip stream (RFC 1952), for clients that accept it. What a hub
// shares are deflate blocks that end at a byte and refer to nothing before them, so that they can follow whatever a client
// was given; what is said to one client alone stands between them in blocks of its own.
//
// A stream ends without the checksum of all of it, which nobody has: like a connection that was cut. Browsers take what
// came and come back; a reader that insists on the checksum finds the end unexpected.
type gzipped struct{ frames }

// gzipHead begins every gzip stream: no name, no time, any system.
const gzipHead = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// beginBody returns what a response of frames begins with, and sets the header that says so.
func beginBody(f frames, h http.Header) string {
	if _, ok := f.(gzipped); !ok {
		return ""
	}
	h.Set("Content-Encoding", "gzip")
	return gzipHead
}

// Below these sizes frames stand in their block as they are: what is saved isn't worth the time. Time that is spent for one
// client alone has to save more.
const (
	leastShared = 128
	leastAlone  = 1 << 10
)

func (f gzipped) format() int { return compressed + f.frames.format() }

// AppendBlock implements [fanout.BlockFormat].
func (f gzipped) AppendBlock(dst, frames []byte) []byte {
	if len(frames) < leastShared {
		return append(appendStored(dst, frames), flushed...)
	}
	return appendDeflated(dst, frames)
}

// pack makes what was appended to dst from a length on one block.
func (f gzipped) pack(dst []byte, from int) []byte {
	end := len(dst)
	if end-from < leastAlone {
		dst = append(appendStored(dst, dst[from:]), flushed...)
	} else {
		dst = appendDeflated(dst, dst[from:])
	}
	return dst[:from+copy(dst[from:], dst[end:])]
}

func (f gzipped) appendOpen(dst []byte, id string, retry time.Duration) []byte {
	return f.pack(f.frames.appendOpen(dst, id, retry), len(dst))
}

func (f gzipped) appendPosition(dst []byte, id string) []byte {
	return f.pack(f.frames.appendPosition(dst, id), len(dst))
}

func (f gzipped) appendGap(dst []byte, gap *stream.Gap, id string) []byte {
	return f.pack(f.frames.appendGap(dst, gap, id), len(dst))
}

func (f gzipped) appendError(dst []byte, id string, p problem) []byte {
	return f.pack(f.frames.appendError(dst, id, p), len(dst))
}

func (f gzipped) appendHeartbeat(dst []byte) []byte {
	return f.pack(f.frames.appendHeartbeat(dst), len(dst))
}

func (f gzipped) appendExpiring(dst []byte, ends time.Time) []byte {
	return f.pack(f.frames.appendExpiring(dst, ends), len(dst))
}

func (f gzipped) appendRestart(dst []byte, retry time.Duration) []byte {
	return f.pack(f.frames.appendRestart(dst, retry), len(dst))
}

// flushed is an empty stored block: some readers, Go's among them, give out what they have only then.
const flushed = "\x00\x00\x00\xff\xff"

// appendStored appends deflate blocks that hold b as it is (RFC 1951 section 3.2.4). They begin and end at a byte.
func appendStored(dst, b []byte) []byte {
	for len(b) > 0 {
		n := min(len(b), 1<<16-1)
		dst = binary.LittleEndian.AppendUint16(append(dst, 0), uint16(n))
		dst = binary.LittleEndian.AppendUint16(dst, ^uint16(n))
		dst = append(dst, b[:n]...)
		b = b[n:]
	}
	return dst
}

// appendDeflated appends b as deflate blocks that refer to nothing before them, and flushed. No compressor is kept from one call to the next, so that any number of hubs and clients need none.
func appendDeflated(dst, b []byte) []byte {
	w := appender(dst)
	_ = flate.StatelessDeflate(&w, b, false, nil) // to memory
	return w
}

// appender is a writer that appends to itself.
type appender []byte

func (a *appender) Write(b []byte) (int, error) {
	*a = append(*a, b...)
	return len(b), nil
}
