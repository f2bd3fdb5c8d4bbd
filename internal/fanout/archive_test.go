package fanout

import (
	"fmt"
)

// check returns an error when what the archive holds isn't as it promises.
func (a *archive) check() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	pasts := map[*past]int{}
	var bytes int64
	for e := a.recent.Front(); e != nil; e = e.Next() {
		s := e.Value.(*stretch)
		pasts[s.past]++
		bytes += s.size + s.shared.bytes
		if s.place != e || s.past.findLocked(s.part, s.from) != s || s.from >= s.next {
			return fmt.Errorf("a stretch from %d to %d of partition %d can't be found", s.from, s.next, s.part)
		}
		for i, m := range s.messages {
			if m.Offset < s.from || m.Offset >= s.next || i > 0 && m.Offset <= s.messages[i-1].Offset {
				return fmt.Errorf("offset %d is in a stretch from %d to %d", m.Offset, s.from, s.next)
			}
		}
	}
	if bytes != a.bytes {
		return fmt.Errorf("%d bytes are held and %d counted", bytes, a.bytes)
	}
	for p, n := range pasts {
		for _, stretches := range p.stretches {
			n -= len(stretches)
			for i := 1; i < len(stretches); i++ {
				if stretches[i].from < stretches[i-1].next {
					return fmt.Errorf("stretches from %d and from %d lie over each other", stretches[i-1].from, stretches[i].from)
				}
			}
		}
		if n != 0 {
			return fmt.Errorf("%d stretches are held and not counted", -n)
		}
	}
	return nil
}
