package gateway

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// descriptor is a TCP connection that the runtime's poller doesn't know: what the net package and the poller keep of a
// connection weighs as much as all that we keep of an idle one, and each write would touch it. Reads and writes take what
// there is at once. It has an owner, who alone closes it and needs no leave to use it; others ask for each use.
type descriptor struct {
	fd    int
	state atomic.Int32 // uses under way by others than the owner, and opened until the owner closes it
}

const opened = 1 << 30

// own makes conn a descriptor of ours, and closes conn.
func (d *descriptor) own(conn *net.TCPConn, timeout time.Duration) (err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	closed := raw.Control(func(fd uintptr) {
		if err = setUserTimeout(int(fd), timeout); err == nil {
			d.fd, err = duplicate(int(fd))
		}
	})
	if err = errors.Join(closed, err); err != nil {
		return err
	}
	d.state.Store(opened)
	_ = conn.Close() // the peer doesn't see it: the connection lives on
	return nil
}

func duplicate(fd int) (int, error) {
	for {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
		if errno != syscall.EINTR {
			return int(n), os.NewSyscallError("fcntl", toError(errno))
		}
	}
}

func toError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// use begins a use by somebody else than the owner, unless the owner has closed the descriptor; done ends it.
func (d *descriptor) use() bool {
	for {
		n := d.state.Load()
		if n < opened {
			return false
		}
		if d.state.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (d *descriptor) done() {
	if d.state.Add(-1) == 0 {
		_ = syscall.Close(d.fd)
	}
}

// close ends the connection, at once for whoever waits for it. The descriptor itself goes with its last use. It may be
// called again, and before own.
func (d *descriptor) close() {
	if d.state.Load() < opened {
		return
	}
	if d.state.Add(1-opened) > 1 {
		d.abort()
	}
	d.done()
}

// abort has whoever waits for the connection fail.
func (d *descriptor) abort() { _ = syscall.Shutdown(d.fd, syscall.SHUT_RDWR) }

// waiting returns another descriptor of the connection, on which reads and writes wait, with deadlines. The caller closes
// it, within its use of d.
func (d *descriptor) waiting() (*os.File, error) {
	fd, err := duplicate(d.fd)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "connection"), nil
}

// read reads what there is. Its error is errNothing when there is nothing, and EOF when the client is gone. It is a use.
func (d *descriptor) read(b []byte) (int, error) {
	if !d.use() {
		return 0, net.ErrClosed
	}
	defer d.done()
	for {
		switch n, err := syscall.Read(d.fd, b); {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, errNothing
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// write writes what the kernel takes of b, which may be nothing. It is the owner's. The scheduler isn't told of the call,
// which takes a few microseconds: of one that might block, the runtime's monitor wakes up to see whether it does.
func (d *descriptor) write(b []byte) (n int, err error) {
	if len(b) > directWrite {
		n, err = syscall.Write(d.fd, b)
	} else if len(b) > 0 {
		n, err = d.writeDirectly(b)
	}
	switch err {
	case nil:
		return n, nil
	case syscall.EINTR:
		return d.write(b)
	case syscall.EAGAIN:
		return 0, nil
	default:
		return 0, os.NewSyscallError("write", err)
	}
}

// directWrite bounds the bytes of a write that the scheduler isn't told of: nothing else can use its processor meanwhile.
const directWrite = 128 << 10

func (d *descriptor) writeDirectly(b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), toError(errno)
}

// tcpUserTimeout is TCP_USER_TIMEOUT (tcp(7)), which package syscall doesn't have.
const tcpUserTimeout = 18

// setUserTimeout has the kernel end a connection whose peer acknowledges nothing, or has no room, for so long.
func setUserTimeout(fd int, timeout time.Duration) error {
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, tcpUserTimeout, int(timeout.Milliseconds())))
}
