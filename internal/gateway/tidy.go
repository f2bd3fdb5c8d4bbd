package gateway

import (
	"context"
	"runtime/debug"
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
	tidyCrowd = 1000             // connections that make it worth a collection of all garbage
	tidyPause = 10 * time.Second // between two of them
)

// due reports whether a crowd has come or gone, and it is calm again; moved counts connections that came and that went.
func (t *tidy) due(now time.Time, moved int64) bool {
	calm := moved-t.seen < tidyCrowd/20
	t.seen = moved
	if !calm || moved-t.done < tidyCrowd || now.Sub(t.at) < tidyPause {
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
			if t.due(now, ws.moved.Load()) {
				debug.FreeOSMemory()
			}
		}
	}
}
