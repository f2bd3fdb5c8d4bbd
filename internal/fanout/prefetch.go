package fanout

import "unsafe"

// Who passes over thousands of subscribers finds the memory of each cold: a line of it takes as long to come as two hundred
// instructions to run, a delivery needs a dozen, and one waits for the other. So each is asked for a few subscribers ahead.

// Prefetch has the processor fetch the lines with n bytes from p on, meanwhile. It reads nothing: p may be anything, and
// others may write there.
func Prefetch(p unsafe.Pointer, n uintptr) {
	const line = 64
	prefetch(p, n+uintptr(p)%line)
}

// Prefetch fetches what the next Poll looks at.
func (s *Subscription) Prefetch() {
	Prefetch(unsafe.Pointer(s), unsafe.Offsetof(s.only)+unsafe.Offsetof(s.only.own))
}

// prefetchWaker fetches the line that a waker begins in.
func prefetchWaker(w Waker) {
	type iface struct{ kind, value unsafe.Pointer }
	Prefetch((*iface)(unsafe.Pointer(&w)).value, 1)
}
