package gateway

import (
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// The media types of a stream.
const (
	sseType    = "text/event-stream"
	ndjsonType = "application/x-ndjson"
)

var (
	errNoStreamType = errors.New("a stream is text/event-stream or application/x-ndjson")
	errNoLongPoll   = errors.New("application/json (long poll) isn't in this version; a stream is text/event-stream or application/x-ndjson")
)

// negotiate returns the media type that a request's Accept header prefers (RFC 9110 section 12.5.1), SSE where it
// doesn't care.
func negotiate(r *http.Request) (string, error) {
	values := r.Header["Accept"]
	if len(values) == 1 && (values[0] == sseType || values[0] == "*/*") { // nearly all
		return sseType, nil
	}
	accept := strings.Join(values, ",")
	if strings.TrimSpace(accept) == "" {
		return sseType, nil
	}
	sse, ndjson, longPoll := accepts(accept, sseType), accepts(accept, ndjsonType), accepts(accept, "application/json")
	switch {
	case sse > 0 && sse >= ndjson:
		return sseType, nil
	case ndjson > 0:
		return ndjsonType, nil
	case longPoll > 0:
		return "", errNoLongPoll
	default:
		return "", errNoStreamType
	}
}

// accepts returns the weight that an Accept header gives to a media type: that of the most specific range it matches.
func accepts(accept, mediaType string) (weight float64) {
	family, _, _ := strings.Cut(mediaType, "/")
	best := 0
	for part := range strings.SplitSeq(accept, ",") {
		name, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		specific := 0
		switch name {
		case mediaType:
			specific = 3
		case family + "/*":
			specific = 2
		case "*/*", "*": // Java's HttpURLConnection sends a bare *
			specific = 1
		}
		if specific > best {
			best, weight = specific, quality(params["q"])
		}
	}
	return weight
}

// acceptsGzip reports whether a request's Accept-Encoding header lets the response be gzipped, and doesn't prefer it as it
// is (RFC 9110 section 12.5.3).
func acceptsGzip(r *http.Request) bool {
	weights := map[string]float64{}
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		weight := 1.0
		if key, q, ok := strings.Cut(strings.TrimSpace(params), "="); ok && strings.EqualFold(strings.TrimSpace(key), "q") {
			weight = quality(strings.TrimSpace(q))
		}
		weights[strings.ToLower(strings.TrimSpace(name))] = weight
	}
	gzip, ok := weights["gzip"]
	if !ok {
		if gzip, ok = weights["x-gzip"]; !ok {
			gzip = weights["*"]
		}
	}
	return gzip > 0 && gzip >= weights["identity"]
}

func quality(q string) float64 {
	if q == "" {
		return 1
	}
	w, err := strconv.ParseFloat(q, 64)
	if err != nil || w < 0 || w > 1 {
		return 0
	}
	return w
}
