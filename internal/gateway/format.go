package gateway

import (
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// frames is how a transport writes what a stream says. An id is a position; where it is "" there is none to tell.
type frames interface {
	fanout.Format

	format() int // the index in Formats

	// appendShared appends what AppendMessage once returned, for this subscription.
	appendShared(dst, frame []byte) []byte

	// pack makes what AppendMessage appended to dst from a length on what can be written: a block, where there are some.
	pack(dst []byte, from int) []byte
	appendRun(dst, run []byte) []byte // what appendShared does, of many frames, one behind the other
	appendOpen(dst []byte, id string, retry time.Duration) []byte
	appendPosition(dst []byte, id string) []byte
	appendGap(dst []byte, gap *stream.Gap, id string) []byte
	appendError(dst []byte, id string, p problem) []byte
	appendHeartbeat(dst []byte) []byte
	appendExpiring(dst []byte, ends time.Time) []byte     // the token ends then, and the stream with it
	appendRestart(dst []byte, retry time.Duration) []byte // the last words of a gateway that stops
}

// The formats that are shared by all subscriptions of a hub.
const (
	sseValue = iota
	sseValueNamed
	sseRecord
	sseRecordNamed
	wsValue
	wsRecord
	ndjsonValue
	ndjsonRecord
	compressed // the compressed ones follow, in the same order
)

const formats = 2 * compressed

// Formats returns what [fanout.Config].Formats has to be, for the hubs of a gateway.
func Formats() []fanout.Format {
	list := make([]fanout.Format, formats)
	for _, record := range []bool{false, true} {
		for _, f := range []frames{sse{record: record}, sse{record: record, named: true}, webSocketFrames{record: record}, ndjson{record: record}} {
			list[f.format()] = f
			if ws, ok := f.(webSocketFrames); ok {
				ws.deflate = leastShared
				f = ws
			} else {
				f = gzipped{f}
			}
			list[f.format()] = f
		}
	}
	return list
}
