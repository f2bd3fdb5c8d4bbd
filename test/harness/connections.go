package harness

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Connections returns how many established TCP connections the gateway's process has to some addresses of IPv4, as the
// kernel counts them (proc(5), /proc/pid/fd and /proc/net/tcp).
func (g *Gateway) Connections(addresses []string) int {
	g.t.Helper()
	inodes, err := socketsTo(addresses)
	if err != nil {
		g.t.Fatal(err)
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", g.PID()))
	if err != nil {
		g.t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err == nil && slices.Contains(inodes, strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")) {
			n++
		}
	}
	return n
}

// socketsTo returns the inodes of the established connections to addresses.
func socketsTo(addresses []string) (inodes []string, err error) {
	var remote []string
	for _, address := range addresses {
		tcp, err := net.ResolveTCPAddr("tcp4", address)
		if err != nil {
			return nil, err
		}
		ip := tcp.IP.To4()
		remote = append(remote, fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], tcp.Port))
	}
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const established = 1
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		if state, _ := strconv.ParseInt(fields[3], 16, 32); state == established && slices.Contains(remote, fields[2]) {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes, nil
}
