package fanout

import (
	"sync"
	"sync/atomic"
)

// memory is the one bound of what subscribers can make the process hold: windows with their frames, history, and
// pending writes. What windows hold yields to the others.
type memory struct {
	limit int64
	used  atomic.Int64

	mu    sync.Mutex
	freed chan struct{} // nil unless somebody waits; closed at the next release
}

func newMemory(limit int64) *memory { return &memory{limit: limit} }

// add counts n bytes, or gives them back when n is negative.
func (m *memory) add(n int64) {
	m.used.Add(n)
	if n >= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.freed != nil {
		close(m.freed)
		m.freed = nil
	}
}

// take counts n bytes if they fit.
func (m *memory) take(n int64) bool {
	for {
		used := m.used.Load()
		if used+n > m.limit {
			return false
		}
		if m.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// over returns by how many bytes the bound would be passed if n more were held.
func (m *memory) over(n int64) int64 { return m.used.Load() + n - m.limit }

// wait returns a channel that is closed when something is given back.
func (m *memory) wait() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.freed == nil {
		m.freed = make(chan struct{})
	}
	return m.freed
}
