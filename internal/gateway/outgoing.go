package gateway

import (
	"sync"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
)

// outgoing is what goes to a client in its next write. It holds a buffer only while there is something to write, and
// not even then if that is what the hub shares.
type outgoing struct {
	buffers *sync.Pool // of *[]byte, shared by all connections; idle ones hold none

	buf    []byte
	shared []byte      // whole frames of a hub's, instead of buf
	run    *fanout.Run // of which shared is the frames, if it is one
	of     *feed       // whose last Poll yielded run
	oldest time.Time

	pooled *[]byte
}

// maxPooled bounds the buffers that are kept for the next write, of whichever connection: a batch's 64 KiB with room
// for what stands around the messages. Larger ones are of large messages, and rare.
const maxPooled = 256 << 10

func (o *outgoing) empty() bool { return len(o.buf) == 0 && o.shared == nil }

func (o *outgoing) bytes() []byte {
	if o.shared != nil {
		return o.shared
	}
	return o.buf
}

// own returns the buffer to append to, with the shared frames in it if there were some.
func (o *outgoing) own() []byte {
	if o.pooled == nil {
		var ok bool
		if o.pooled, ok = o.buffers.Get().(*[]byte); !ok {
			o.pooled = new([]byte)
		}
		o.buf = (*o.pooled)[:0]
	}
	if o.shared != nil {
		o.buf = append(o.buf, o.shared...)
		o.shared, o.run, o.of = nil, nil, nil
	}
	return o.buf
}

// reset gives the buffer back.
func (o *outgoing) reset() {
	if o.pooled != nil && cap(o.buf) <= maxPooled {
		*o.pooled = o.buf[:0]
		o.buffers.Put(o.pooled)
	}
	*o = outgoing{buffers: o.buffers}
}
