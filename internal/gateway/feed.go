package gateway

import (
	"sync/atomic"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// feed is one subscription on a connection: it polls and writes down what came, and never waits.
type feed struct {
	pending atomic.Bool // Poll may have something; set by the hub
	driver  driver      // of its connection
	sub     subscription
	id      string // of the subscription, on a WebSocket; "" for the request's own
	topics  []topicCount
	since   time.Time     // when it began: what is older is a replay
	one     [1]topicCount // topics, of most
	frames  frames
	asked   *request // what was asked for, where the grant may change; nil: it may not. Not changed
}

// Wake implements [fanout.Waker]. Who finds the feed pending has been preceded by who wakes the driver for it.
func (f *feed) Wake() {
	if !f.pending.Swap(true) {
		f.driver.wake()
	}
}

// topicCount counts a topic's events that are in the buffer and not yet written.
type topicCount struct {
	name    string
	n       int
	counter prometheus.Counter
}

// remember keeps what was asked for, to ask it anew with another grant.
func (f *feed) remember(req request) {
	f.asked = &req
	f.asked.From = fanout.From{} // it goes on from where it stands
}

// count prepares the counts of a feed whose subscription is open: then its topics exist, and only those that exist may
// have metrics, or clients could make up any number of them.
func (f *feed) count(topics []string, transport string, m *metrics) {
	f.topics = f.one[:0]
	for _, t := range topics {
		f.topics = append(f.topics, topicCount{name: t, counter: m.delivered.WithLabelValues(t, transport)})
	}
}

// poll polls once and appends what came to out. It reports whether there may be more at once. What came as a run
// is the batch's until it is written.
func (f *feed) poll(batch *fanout.Batch, out *outgoing) (more bool, err error) {
	err = f.sub.Poll(batch)
	more = batch.More
	if len(batch.Run.Frames) > 0 {
		f.takeRun(&batch.Run, out)
		return more, err
	}
	for i := 0; i < len(batch.Items); i++ {
		item := &batch.Items[i]
		switch {
		case item.Gap != nil:
			out.buf = f.frames.appendGap(out.own(), item.Gap, item.ID)
			continue
		case item.Frame == nil:
			i += f.encode(batch.Items[i:], out) - 1
			continue
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

// encode puts down the messages at the beginning of items that nobody has encoded, and returns how many.
func (f *feed) encode(items []fanout.Item, out *outgoing) (n int) {
	buf := out.own()
	from := len(buf)
	for ; n < len(items) && items[n].Message != nil && items[n].Frame == nil; n++ {
		buf = f.frames.AppendMessage(buf, items[n].Message, items[n].ID)
		f.note(items[n].Message, out)
	}
	out.buf = f.frames.pack(buf, from)
	return n
}

// takeRun puts down a run of the hub's log, which is of the only topic.
func (f *feed) takeRun(run *fanout.Run, out *outgoing) {
	if f.id == "" && out.empty() {
		out.shared, out.run, out.of = run.Frames, run, f
	} else {
		out.buf = f.frames.appendRun(out.own(), run.Frames)
	}
	f.noteTime(run.Oldest, out)
	f.topics[0].n += run.Count
}

func (f *feed) noteTime(t time.Time, out *outgoing) {
	if t.After(f.since) && (out.oldest.IsZero() || t.Before(out.oldest)) {
		out.oldest = t
	}
}

func (f *feed) note(m *stream.Message, out *outgoing) {
	f.noteTime(m.Timestamp, out)
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
