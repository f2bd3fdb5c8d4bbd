package gateway

import (
	"context"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// tidy decides when memory goes back to the system. A crowd of clients that comes leaves the garbage of its handshakes,
// one that goes leaves room for as many: the runtime keeps both for what may come, for minutes.
type tidy struct {
	seen int64     // connections that had come and gone when last asked
	done int64     // when memory was last given back
	at   time.Time // when that was
}

const (
	tidyEvery = time.Second
	tidyLeast = 100              // connections that are a crowd, if the heap is small
	tidyPause = 10 * time.Second // between two collections
	tidyEach  = 12 << 10         // bytes of garbage that a connection leaves, about
)

// tidyCrowd returns how many connections make it worth a collection of all garbage: theirs is a quarter of the heap then.
func tidyCrowd(heap uint64) int64 { return max(tidyLeast, int64(heap/4/tidyEach)) }

// due reports whether a crowd has come or gone, and it is calm again. moved counts connections that came and that went;
// heap is the size of what was in use after the last collection.
func (t *tidy) due(now time.Time, moved int64, heap func() uint64) bool {
	lately := moved - t.seen
	t.seen = moved
	crowd := moved - t.done
	if crowd < tidyLeast || lately > crowd/20 || now.Sub(t.at) < tidyPause || crowd < tidyCrowd(heap()) {
		return false
	}
	t.done, t.at = moved, now
	return true
}

// tidy gives memory back until ctx ends.
func (ws *writers) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for t := new(tidy); ; {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if t.due(now, ws.moved.Load(), liveHeap) {
				debug.FreeOSMemory()
			}
		}
	}
}

// liveHeap returns the bytes that were in use after the last collection.
func liveHeap() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(sample)
	return sample[0].Value.Uint64()
}
