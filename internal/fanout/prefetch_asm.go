//go:build amd64 || arm64

package fanout

import "unsafe"

// prefetch is [Prefetch], in assembly.
//
//go:noescape
func prefetch(p unsafe.Pointer, n uintptr)
