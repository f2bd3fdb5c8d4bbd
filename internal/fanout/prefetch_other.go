//go:build !amd64 && !arm64

package fanout

import "unsafe"

func prefetch(unsafe.Pointer, uintptr) {}
