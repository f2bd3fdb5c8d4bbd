package gateway

import (
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// feed is one subscription on a connection: it polls and writes down what came, and never waits. It is what whoever
// runs connections calls, a goroutine for each of them or one for many.
type feed struct {
	id      string // of the subscription, on a WebSocket; "" for the request's own
	sub     subscription
	frames  frames
	pending atomic.Bool // Poll may have something; set by the hub
	since   time.Time   // when it began: what is older is a replay
	topics  []topicCount
}

// topicCount counts a topic's events that are in the buffer and not yet written.
type topicCount struct {
	name    string
	n       int
	counter prometheus.Counter
}

// count prepares the counts of a feed whose subscription is open: then its topics exist, and only those that exist may
// have metrics, or clients could make up any number of them.
func (f *feed) count(topics []string, transport string, m *metrics) {
	f.topics = make([]topicCount, len(topics))
	for i, t := range topics {
		f.topics[i] = topicCount{name: t, counter: m.delivered.WithLabelValues(t, transport)}
	}
}

// poll polls once and appends what came to out; batch is empty before and after it. It reports whether there may be
// more at once.
func (f *feed) poll(batch *fanout.Batch, out *outgoing) (more bool, err error) {
	err = f.sub.Poll(batch)
	more = batch.More
	for i := range batch.Items {
		item := &batch.Items[i]
		switch {
		case item.Gap != nil:
			out.buf = f.frames.appendGap(out.own(), item.Gap, item.ID)
			continue
		case item.Frame == nil:
			out.buf = f.frames.AppendMessage(out.own(), item.Message, item.ID)
		case f.id == "" && out.empty():
			out.shared = item.Frame
		default:
			out.buf = f.frames.appendShared(out.own(), item.Frame)
		}
		f.note(item.Message, out)
	}
	batch.Reset()
	return more, err
}

func (f *feed) note(m *stream.Message, out *outgoing) {
	if m.Timestamp.After(f.since) && (out.oldest.IsZero() || m.Timestamp.Before(out.oldest)) {
		out.oldest = m.Timestamp
	}
	for i := range f.topics {
		if f.topics[i].name == m.Topic {
			f.topics[i].n++
			return
		}
	}
}

// written counts what was in the buffer as delivered.
func (f *feed) written() {
	for i := range f.topics {
		if t := &f.topics[i]; t.n > 0 {
			t.counter.Add(float64(t.n))
			t.n = 0
		}
	}
}
