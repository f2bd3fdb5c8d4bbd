package gateway

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/stream"
)

// webSocketFrames writes whole WebSocket text frames (RFC 6455 section 5.2), unmasked as a server's are. What is the
// same for all subscribers comes first and the subscription's id last, so that a frame can be shared by those of the
// query, which have none, and is cheaply made into the others'.
//
//	{"type":"event","topic":T,"event":V,"position":P,"id":I}
//
// With format=value, event is the record's value: JSON as it is; text as a string, with "encoding":"text"; other bytes
// in base64, with "encoding":"base64". A tombstone has "event":null,"deleted":true and key and keyEncoding; a value
// that is the JSON text null has "encoding":"json". With format=record, event is the object that appendRecord describes.
//
//	{"type":"position","position":P,"id":I}    when a filter leaves out what the subscription moves past
//	{"type":"gap","topic":T,"partition":N,"from":N,"to":N,"reason":R,"position":P,"id":I}
//	{"type":"error","problem":{…},"position":P,"id":I}
//	{"type":"heartbeat"}
//	{"type":"expiring","expires":TIME}         the token's end is near: an auth frame with another one is expected
//	{"type":"authenticated","expires":TIME}    the answer to that
type webSocketFrames struct {
	record         bool
	id             string // of the subscription; "" for the query's own
	heartbeatEvent bool   // heartbeat=event
	deflate        int    // events of so many bytes and more are compressed; 0: none is
}

func (f webSocketFrames) format() int {
	format := wsValue
	if f.record {
		format = wsRecord
	}
	if f.deflate > 0 {
		format += compressed
	}
	return format
}

// AppendMessage appends the frame of m.
func (f webSocketFrames) AppendMessage(dst []byte, m *stream.Message, id string) []byte {
	begin := len(dst)
	dst = f.appendText(dst, func(dst []byte) []byte { return appendEvent(dst, m, id, f.record) })
	if f.deflate > 0 && len(dst)-begin >= f.deflate {
		return deflateFrame(dst, begin)
	}
	return dst
}

// appendShared adds the subscription's id to a frame that has none.
func (f webSocketFrames) appendShared(dst, frame []byte) []byte {
	switch {
	case f.id == "":
		return append(dst, frame...)
	case frame[0]&rsv1 != 0:
		return appendDeflatedShared(dst, frame, f.appendID(nil))
	default:
		return f.appendText(dst, func(dst []byte) []byte { return append(dst, payloadOf(frame)...) })
	}
}

func (f webSocketFrames) pack(dst []byte, _ int) []byte { return dst }

func (f webSocketFrames) appendRun(dst, run []byte) []byte {
	if f.id == "" {
		return append(dst, run...)
	}
	for len(run) > 0 {
		n := frameLength(run)
		dst = f.appendShared(dst, run[:n])
		run = run[n:]
	}
	return dst
}

func (f webSocketFrames) appendOpen(dst []byte, id string, _ time.Duration) []byte {
	return f.appendText(dst, func(dst []byte) []byte {
		return append(appendPositionMember(append(dst, `{"type":"subscribed"`...), id), '}')
	})
}

func (f webSocketFrames) appendPosition(dst []byte, id string) []byte {
	return f.appendText(dst, func(dst []byte) []byte {
		return append(appendPositionMember(append(dst, `{"type":"position"`...), id), '}')
	})
}

func (f webSocketFrames) appendGap(dst []byte, gap *stream.Gap, id string) []byte {
	return f.appendText(dst, func(dst []byte) []byte { return appendGapObject(dst, gap, id) })
}

func (f webSocketFrames) appendError(dst []byte, id string, p problem) []byte {
	return f.appendText(dst, func(dst []byte) []byte { return appendErrorObject(dst, id, p) })
}

// appendHeartbeat appends something that JavaScript can see, if that was asked for. It doesn't see pings, which go out
// with every heartbeat.
func (f webSocketFrames) appendHeartbeat(dst []byte) []byte {
	if !f.heartbeatEvent {
		return dst
	}
	return f.appendType(dst, "heartbeat")
}

func (f webSocketFrames) appendExpiring(dst []byte, ends time.Time) []byte {
	return f.appendLease(dst, "expiring", ends)
}

// appendLease appends a frame about the time that a connection has.
func (f webSocketFrames) appendLease(dst []byte, name string, ends time.Time) []byte {
	return f.appendText(dst, func(dst []byte) []byte {
		dst = append(append(append(dst, `{"type":"`...), name...), '"')
		if !ends.IsZero() {
			dst = appendExpires(append(dst, ','), ends)
		}
		return append(dst, '}')
	})
}

// appendRestart appends nothing: close code 1012 says it.
func (f webSocketFrames) appendRestart(dst []byte, _ time.Duration) []byte { return dst }

// appendType appends a frame that only has a type, and the id that f is for.
func (f webSocketFrames) appendType(dst []byte, name string) []byte {
	return f.appendText(dst, func(dst []byte) []byte {
		dst = append(dst, `{"type":"`...)
		dst = append(dst, name...)
		return append(dst, `"}`...)
	})
}

// Frame bits and opcodes (RFC 6455 section 5.2).
const (
	final   = 0x80
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

// maxFrameHeader is that of a frame of 64 KiB and more.
const maxFrameHeader = 10

// appendText appends a frame whose payload is the object that object appends, with the subscription's id in it.
func (f webSocketFrames) appendText(dst []byte, object func(dst []byte) []byte) []byte {
	begin := len(dst)
	dst = append(dst, make([]byte, maxFrameHeader)...)
	dst = object(dst)
	if f.id != "" {
		dst = f.appendID(dst[:len(dst)-1])
	}
	var header [maxFrameHeader]byte
	h := appendFrameHeader(header[:0], len(dst)-begin-maxFrameHeader)
	copy(dst[begin:], h)
	return append(dst[:begin+len(h)], dst[begin+maxFrameHeader:]...)
}

// appendID appends what ends an object that has the subscription's id.
func (f webSocketFrames) appendID(dst []byte) []byte {
	return append(appendString(append(dst, `,"id":`...), f.id), '}')
}

// appendClose appends a close frame. text has 123 bytes at most.
func appendClose(dst []byte, code websocket.StatusCode, text string) []byte {
	dst = append(dst, final|opClose, byte(2+len(text)))
	return append(binary.BigEndian.AppendUint16(dst, uint16(code)), text...)
}

func appendFrameHeader(dst []byte, length int) []byte {
	dst = append(dst, final|opText)
	switch {
	case length < 126:
		return append(dst, byte(length))
	case length < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(length))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 127), uint64(length))
	}
}

// payloadOf returns what stands in a frame of ours.
func payloadOf(frame []byte) []byte { return frame[headerLength(frame):] }

// headerLength returns the bytes before the payload of a frame of ours, which isn't masked.
func headerLength(frame []byte) int {
	switch frame[1] {
	case 126:
		return 4
	case 127:
		return 10
	default:
		return 2
	}
}

// frameLength returns the bytes of the first frame of ours in b.
func frameLength(b []byte) int {
	switch h := headerLength(b); h {
	case 4:
		return h + int(binary.BigEndian.Uint16(b[2:]))
	case 10:
		return h + int(binary.BigEndian.Uint64(b[2:]))
	default:
		return h + int(b[1])
	}
}

func appendEvent(dst []byte, m *stream.Message, id string, record bool) []byte {
	dst = append(dst, `{"type":"event","topic":`...)
	dst = appendString(dst, m.Topic)
	dst = append(dst, `,"event":`...)
	switch {
	case record:
		dst = append(dst, '{')
		dst = append(appendRecord(dst, m), '}')
	case m.Value == nil:
		dst = append(dst, `null,"deleted":true,`...)
		dst = appendKey(dst, m.Key)
	default:
		enc := encodingOf(m.Value)
		dst = appendBytes(dst, m.Value, enc)
		dst = appendEncoding(dst, "encoding", enc, m.Value)
	}
	return append(appendPositionMember(dst, id), '}')
}

func appendPositionMember(dst []byte, id string) []byte {
	if id == "" {
		return dst
	}
	dst = append(dst, `,"position":`...)
	return appendString(dst, id)
}

func appendGapObject(dst []byte, gap *stream.Gap, id string) []byte {
	dst = append(dst, `{"type":"gap","topic":`...)
	dst = appendString(dst, gap.Topic)
	dst = append(dst, `,"partition":`...)
	dst = strconv.AppendInt(dst, int64(gap.Partition), 10)
	dst = append(dst, `,"from":`...)
	dst = strconv.AppendInt(dst, gap.From, 10)
	dst = append(dst, `,"to":`...)
	dst = strconv.AppendInt(dst, gap.To, 10)
	dst = append(dst, `,"reason":`...)
	dst = appendString(dst, gap.Reason)
	return append(appendPositionMember(dst, id), '}')
}

func appendErrorObject(dst []byte, id string, p problem) []byte {
	dst = append(dst, `{"type":"error","problem":`...)
	dst = p.append(dst)
	return append(appendPositionMember(dst, id), '}')
}
