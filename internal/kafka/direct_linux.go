package kafka

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// direct is a TCP connection whose reads and writes Go's scheduler isn't told of. They don't block, since the descriptor
// doesn't. Of a call that might, the runtime's monitor wakes up, and then looks every 20 µs for a while whether it does: at
// a thousand events a second, for each of which there is a handful of calls, that was half of all switches of threads.
type direct struct {
	*net.TCPConn
	raw syscall.RawConn
}

// directly returns conn, direct if it is TCP.
func directly(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	return &direct{tcp, raw}
}

// Read implements [net.Conn].
func (d *direct) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	waited := d.raw.Read(func(fd uintptr) (done bool) {
		n, done, err = systemCall("read", syscall.SYS_READ, fd, b)
		return done
	})
	switch {
	case waited != nil: // a deadline, or the connection was closed
		return 0, waited
	case n == 0 && err == nil:
		err = io.EOF
	}
	return n, err
}

// Write implements [net.Conn].
func (d *direct) Write(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	waited := d.raw.Write(func(fd uintptr) bool {
		for n < len(b) && err == nil {
			var written int
			var done bool
			if written, done, err = systemCall("write", syscall.SYS_WRITE, fd, b[n:]); !done {
				return false
			}
			n += written
		}
		return true
	})
	if waited != nil {
		err = waited
	}
	return n, err
}

// mostDirect bounds the bytes of a call: nothing else can use its processor meanwhile.
const mostDirect = 128 << 10

// systemCall makes a system call that reads to, or writes from, the beginning of b, which isn't empty. done is false when it
// would have to wait.
func systemCall(name string, number, fd uintptr, b []byte) (n int, done bool, err error) {
	for {
		r, _, errno := syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(min(len(b), mostDirect)))
		switch errno {
		case 0:
			return int(r), true, nil
		case syscall.EAGAIN:
			return 0, false, nil
		case syscall.EINTR:
		default:
			return 0, true, os.NewSyscallError(name, errno)
		}
	}
}
