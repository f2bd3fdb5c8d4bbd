package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// A compressed message of permessage-deflate (RFC 7692) refers to none before it, so that all clients share its frame. Its
// payload is a JSON object without its last brace, deflated up to a byte, and then the brace: a subscription's id can
// be put between the two.

// rsv1 marks the frame of a compressed message.
const rsv1 = 0x40

// deflatedBrace is a closing brace as a block of fixed codes, and the first byte of the empty stored block that every
// message ends with: the others aren't sent (RFC 7692 section 7.2.1).
const deflatedBrace = "\xaa\x05\x00"

// deflateFrame compresses the frame of a JSON object, the last thing in dst, from a length on, if that makes it smaller.
func deflateFrame(dst []byte, from int) []byte {
	end := len(dst)
	payload := payloadOf(dst[from:])
	dst = append(dst, make([]byte, maxFrameHeader)...)
	begin := len(dst)
	dst = append(appendDeflated(dst, payload[:len(payload)-1]), deflatedBrace...)
	var header [maxFrameHeader]byte
	h := appendFrameHeader(header[:0], len(dst)-begin)
	h[0] |= rsv1
	if len(h)+len(dst)-begin >= end-from {
		return dst[:end]
	}
	n := copy(dst[from:], h)
	n += copy(dst[from+n:], dst[begin:])
	return dst[:from+n]
}

// appendDeflatedShared appends a compressed frame of an object with more members at its end; tail is what stands
// there instead of the brace.
func appendDeflatedShared(dst, frame []byte, tail []byte) []byte {
	payload := payloadOf(frame)
	payload = payload[:len(payload)-len(deflatedBrace)]
	const stored, last = 5, 1
	begin := len(dst)
	dst = appendFrameHeader(dst, len(payload)+stored+len(tail)+last)
	dst[begin] |= rsv1
	return append(appendStored(append(dst, payload...), tail), 0)
}

// deflateFor returns from which size on a client's events are compressed that nobody else gets; 0: none is.
func (g *Gateway) deflateFor(r *http.Request) int {
	if !g.cfg.Compression || !offersDeflate(r) {
		return 0
	}
	return leastAlone
}

// offersDeflate reports whether a handshake offers permessage-deflate as [websocket.Accept] agrees to it.
func offersDeflate(r *http.Request) bool {
	for _, header := range r.Header.Values("Sec-WebSocket-Extensions") {
		for offer := range strings.SplitSeq(header, ",") {
			params := strings.Split(offer, ";")
			if strings.TrimSpace(params[0]) == "permessage-deflate" && !slices.ContainsFunc(params[1:], refusedParam) {
				return true
			}
		}
	}
	return false
}

// refusedParam reports whether a parameter of an offer can't be agreed to.
func refusedParam(param string) bool {
	switch param = strings.TrimSpace(param); param {
	case "client_no_context_takeover", "server_no_context_takeover", "client_max_window_bits", "server_max_window_bits=15":
		return false
	}
	return !strings.HasPrefix(param, "client_max_window_bits=") || strings.Contains(param, `"`)
}
