package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/goodgo/streamgw/internal/stream"
)

// encoding says how bytes stand in a JSON text.
type encoding string

const (
	asJSON   encoding = ""       // embedded as it is
	asText   encoding = "text"   // a string
	asBase64 encoding = "base64" // a string, RFC 4648 section 4
)

// encodingOf returns how a record's value is embedded. JSON that isn't UTF-8 can't stand in a JSON text (RFC 8259
// section 8.1) and counts as bytes; an empty value isn't JSON.
func encodingOf(value []byte) encoding {
	switch {
	case !utf8.Valid(value):
		return asBase64
	case json.Valid(value):
		return asJSON
	default:
		return asText
	}
}

// appendBytes appends value as enc says, on one line.
func appendBytes(dst, value []byte, enc encoding) []byte {
	switch enc {
	case asJSON:
		return appendOneLine(dst, value)
	case asText:
		return appendString(dst, value)
	default:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, value)
		return append(dst, '"')
	}
}

// appendOneLine appends valid JSON. Line ends can only stand between its tokens; with them goes all white space there.
// Nothing else changes: numbers of any size, repeated names and escapes stay as they were written.
func appendOneLine(dst, value []byte) []byte {
	if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
		return append(dst, value...)
	}
	b := bytes.NewBuffer(dst)
	if err := json.Compact(b, value); err != nil {
		panic(err) // it is valid
	}
	return b.Bytes()
}

// appendExpires appends the member expires, in whole seconds.
func appendExpires(dst []byte, at time.Time) []byte {
	return append(at.UTC().AppendFormat(append(dst, `"expires":"`...), time.RFC3339), '"')
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Bytes that aren't UTF-8 become U+FFFD; callers whose bytes matter use base64.
func appendString[S ~string | ~[]byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	begin := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := decodeRune(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[begin:i]...), "\ufffd"...)
				begin = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[begin:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		begin = i
	}
	return append(append(dst, s[begin:]...), '"')
}

func decodeRune[S ~string | ~[]byte](s S) (rune, int) {
	if len(s) > utf8.UTFMax {
		s = s[:utf8.UTFMax]
	}
	return utf8.DecodeRuneInString(string(s)) // of four bytes at most: the conversion stays on the stack
}

// appendKey appends the members key and keyEncoding: a key stands as a value does, and is null without a keyEncoding when
// there is none.
func appendKey(dst, key []byte) []byte {
	dst = append(dst, `"key":`...)
	if key == nil {
		return append(dst, "null"...)
	}
	enc := encodingOf(key)
	return appendEncoding(appendBytes(dst, key, enc), "keyEncoding", enc, key)
}

// appendPlace appends the members topic, partition, offset and timestamp (Unix time in milliseconds).
func appendPlace(dst []byte, m *stream.Message) []byte {
	dst = append(dst, `"topic":`...)
	dst = appendString(dst, m.Topic)
	dst = append(dst, `,"partition":`...)
	dst = strconv.AppendInt(dst, int64(m.Partition), 10)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendInt(dst, m.Offset, 10)
	dst = append(dst, `,"timestamp":`...)
	return strconv.AppendInt(dst, m.Timestamp.UnixMilli(), 10)
}

// appendRecord appends the members of format=record: topic, partition, offset, timestamp, key, keyEncoding, headers,
// value, valueEncoding. The value of a tombstone is null without a valueEncoding; a value that is the JSON text null
// has "valueEncoding":"json", the only one that says so. A header is [name, value]; its value is a string, null, or
// base64 followed by a third element that says so.
func appendRecord(dst []byte, m *stream.Message) []byte {
	dst = appendPlace(dst, m)
	dst = append(dst, ',')
	dst = appendKey(dst, m.Key)
	dst = append(dst, `,"headers":[`...)
	for i := range m.Headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendHeader(dst, &m.Headers[i])
	}
	dst = append(dst, `],"value":`...)
	if m.Value == nil {
		return append(dst, "null"...)
	}
	enc := encodingOf(m.Value)
	dst = appendBytes(dst, m.Value, enc)
	return appendEncoding(dst, "valueEncoding", enc, m.Value)
}

// appendEncoding appends the member that tells how a value stands, where it isn't plain JSON.
func appendEncoding(dst []byte, member string, enc encoding, value []byte) []byte {
	if enc == asJSON {
		if string(bytes.TrimSpace(value)) != "null" {
			return dst
		}
		enc = "json"
	}
	dst = append(dst, ',', '"')
	dst = append(dst, member...)
	dst = append(dst, `":"`...)
	dst = append(dst, enc...)
	return append(dst, '"')
}

func appendHeader(dst []byte, h *stream.Header) []byte {
	dst = append(dst, '[')
	dst = appendString(dst, h.Name)
	switch {
	case h.Value == nil:
		dst = append(dst, `,null`...)
	case utf8.Valid(h.Value):
		dst = append(dst, ',')
		dst = appendString(dst, h.Value)
	default:
		dst = append(dst, ',')
		dst = appendBytes(dst, h.Value, asBase64)
		dst = append(dst, `,"base64"`...)
	}
	return append(dst, ']')
}
