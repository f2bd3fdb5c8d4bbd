package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"testing"
)

// FreePort returns a port of 127.0.0.1 on which a program can listen, and listen again after it was killed. It lies
// below the range that the kernel gives to outgoing connections, any of which could take it meanwhile:
// $STREAMGW_TEST_PORTS (default 22100) and the 799 after it.
func FreePort(t testing.TB) int {
	t.Helper()
	base := 22100
	if s := os.Getenv("STREAMGW_TEST_PORTS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("STREAMGW_TEST_PORTS: %v", err)
		}
		base = n
	}
	for range 1000 {
		port := base + rand.IntN(800)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatalf("no port from %d to %d is free", base, base+799)
	return 0
}

// freeRun returns the first of n consecutive free ports.
func freeRun(t testing.TB, n int) int {
	t.Helper()
next:
	for range 1000 {
		first := FreePort(t)
		for port := first + 1; port < first+n; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				continue next
			}
			l.Close()
		}
		return first
	}
	t.Fatalf("no %d ports in a row are free", n)
	return 0
}
