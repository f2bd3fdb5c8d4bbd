package gateway

import (
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// ndjson writes lines of JSON, each an object with a type:
//
//	{"type":"position","position":P}                       when the stream opens, and as it moves past what a filter leaves out
//	{"type":"event","topic":T,"event":V,"position":P}      a record's value (format=value), as webSocketFrames has it
//	{"type":"event","topic":T,"partition":N,"offset":N,"timestamp":MS,"key":K,"headers":[…],"value":V,"position":P}
//	                                                       a record (format=record), as appendRecord has it
//	{"type":"gap","topic":T,"partition":N,"from":N,"to":N,"reason":R,"position":P}
//	{"type":"heartbeat"}
//	{"type":"expiring","expires":TIME}                     the token's end is near, and the stream's with it
//	{"type":"error","problem":{…}}                         and then the stream ends
type ndjson struct {
	record bool
}

func (f ndjson) format() int {
	if f.record {
		return ndjsonRecord
	}
	return ndjsonValue
}

// AppendMessage appends the line of m.
func (f ndjson) AppendMessage(dst []byte, m *stream.Message, id string) []byte {
	if !f.record {
		return append(appendEvent(dst, m, id, false), '\n')
	}
	dst = append(dst, `{"type":"event",`...)
	dst = appendRecord(dst, m)
	return append(appendPositionMember(dst, id), "}\n"...)
}

func (f ndjson) appendShared(dst, frame []byte) []byte { return append(dst, frame...) }

func (f ndjson) appendRun(dst, run []byte) []byte { return append(dst, run...) }

func (f ndjson) pack(dst []byte, _ int) []byte { return dst }

func (f ndjson) appendOpen(dst []byte, id string, _ time.Duration) []byte {
	return f.appendPosition(dst, id)
}

func (f ndjson) appendPosition(dst []byte, id string) []byte {
	dst = append(dst, `{"type":"position"`...)
	return append(appendPositionMember(dst, id), "}\n"...)
}

func (f ndjson) appendGap(dst []byte, gap *stream.Gap, id string) []byte {
	return append(appendGapObject(dst, gap, id), '\n')
}

func (f ndjson) appendError(dst []byte, id string, p problem) []byte {
	return append(appendErrorObject(dst, id, p), '\n')
}

func (f ndjson) appendHeartbeat(dst []byte) []byte {
	return append(dst, `{"type":"heartbeat"}`+"\n"...)
}

func (f ndjson) appendExpiring(dst []byte, ends time.Time) []byte {
	return append(appendExpires(append(dst, `{"type":"expiring",`...), ends), "}\n"...)
}

// appendRestart tells why the stream ends: an end without a word would look like a cut.
func (f ndjson) appendRestart(dst []byte, _ time.Duration) []byte {
	return f.appendError(dst, "", problemOf(errDraining))
}
