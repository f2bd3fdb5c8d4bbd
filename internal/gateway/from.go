package gateway

import (
	"errors"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
)

// start returns where a subscription begins and the field that says so. A last event id wins over from, which a
// reconnecting client sends again as it first did; then from isn't even read.
func (w *wish) start() (fanout.From, string, error) {
	switch {
	case w.lastEventID != "":
		p, err := stream.ParsePosition(w.lastEventID)
		return fanout.From{Position: &p}, w.lastEventIDField, inField(w.lastEventIDField, err)
	case w.from != nil:
		from, err := parseFrom(*w.from, time.Now())
		return from, "from", err
	default:
		return fanout.From{At: stream.Latest}, "from", nil
	}
}

// parseFrom reads from=: latest, earliest, a duration back (-5m), an RFC 3339 time or a position.
func parseFrom(s string, now time.Time) (fanout.From, error) {
	switch s {
	case "":
		return fanout.From{}, stream.BadField("from", "is empty")
	case "latest":
		return fanout.From{At: stream.Latest}, nil
	case "earliest":
		return fanout.From{At: stream.Earliest}, nil
	}
	if back, ok := strings.CutPrefix(s, "-"); ok {
		d, err := time.ParseDuration(back)
		if err != nil || d < 0 {
			return fanout.From{}, stream.BadField("from", "%q isn't a duration back, such as -90s, -5m or -1h30m", shorten(s))
		}
		return fanout.From{At: stream.AtTime(now.Add(-d))}, nil
	}
	// A + that wasn't escaped arrives as a space; no other form of from has one.
	if t, err := time.Parse(time.RFC3339, strings.ReplaceAll(s, " ", "+")); err == nil {
		return fanout.From{At: stream.AtTime(t)}, nil
	}
	p, err := stream.ParsePosition(s)
	if e, ok := errors.AsType[*stream.Error](err); ok {
		return fanout.From{}, &stream.Error{
			Kind: e.Kind, Field: "from", Err: e.Err,
			Detail: "is neither latest, earliest, an RFC 3339 time nor a duration back (-5m), and as a position: " + e.Detail,
		}
	}
	return fanout.From{Position: &p}, err
}

// inField names the field that an error is about, where it doesn't name one itself.
func inField(field string, err error) error {
	e, ok := errors.AsType[*stream.Error](err)
	if !ok || e.Field != "" {
		return err
	}
	named := *e
	named.Field = field
	return &named
}
