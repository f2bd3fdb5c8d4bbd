package fanout

import (
	"container/list"
	"sync"
	"time"
)

const (
	historyIdle  = 15 * time.Second      // what nobody has taken of for so long is given up
	historySpare = time.Second           // and after so long already, before windows shrink
	historyFresh = 20 * time.Millisecond // for so long it isn't given up for other history: those it was read for have yet to take it
)

// archive holds what was lately read of history, for all who need it, and knows who waits for more. What it holds counts
// once, however many cursors take it, and counts until it is given up, whoever is behind.
type archive struct {
	hubs *Hubs

	mu      sync.Mutex    // guards what follows, and every past; taken with a hub's lock held, not the other way round
	recent  list.List     // of *stretch, the one that was used least lately first
	bytes   int64         // of them
	queue   []*past       // those with somebody in line, each once
	filled  chan struct{} // capacity 1: there is something in the queue
	waiting int           // cursors, in line or for a read under way
}

func newArchive(h *Hubs) *archive { return &archive{hubs: h, filled: make(chan struct{}, 1)} }

// next returns the next read to be made, or nil. Topics take turns.
func (a *archive) next() *read {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.queue) > 0 {
		p := a.queue[0]
		a.queue[0] = nil
		a.queue = a.queue[1:]
		p.queued = false
		r := p.beginLocked()
		p.queueLocked()
		if r != nil {
			return r
		}
	}
	return nil
}

func (a *archive) signalLocked() {
	if len(a.queue) > 0 {
		select {
		case a.filled <- struct{}{}:
		default:
		}
	}
}

// size returns how many stretches are held, their bytes, and how many cursors wait for others.
func (a *archive) size() (stretches int, bytes int64, waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.recent.Len(), a.bytes, a.waiting
}

func (a *archive) addLocked(s *stretch) {
	s.used = a.hubs.now()
	s.place = a.recent.PushBack(s)
	a.bytes += s.size
}

func (a *archive) usedLocked(s *stretch) {
	s.used = a.hubs.now()
	a.recent.MoveToBack(s.place)
}

// dropLocked gives up a stretch. Who is just taking it goes on with it; others read it anew.
func (a *archive) dropLocked(s *stretch) {
	a.recent.Remove(s.place)
	held := s.size + s.shared.bytes
	a.bytes -= held
	a.hubs.memory.add(-held)
	s.dropped, s.shared = true, pastRuns{}
	s.past.removeLocked(s)
}

// giveUp drops what nobody has used for so long, until that is enough.
func (a *archive) giveUp(idle time.Duration, enough func() bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.hubs.now().Add(-idle)
	for e := a.recent.Front(); e != nil && !enough(); e = a.recent.Front() {
		s := e.Value.(*stretch)
		if s.used.After(before) {
			return
		}
		a.dropLocked(s)
	}
}

// room makes room for more history within a bound of all of it, from what nobody has used for so long, and reports
// whether there is.
func (a *archive) room(size, bound int64, idle time.Duration) bool {
	fits := func() bool { return a.bytes == 0 || a.bytes+size <= bound }
	a.giveUp(idle, fits)
	a.mu.Lock()
	defer a.mu.Unlock()
	return fits()
}
