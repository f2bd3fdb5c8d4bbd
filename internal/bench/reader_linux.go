package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// reader reads for its share of a crowd's connections, on one thread, by epoll.
type reader struct {
	arrival
	crowd *crowd
	to    []syscall.Sockaddr // of its own: a system call writes to them
	from  []syscall.Sockaddr
	epoll int
	wake  [2]int // a pipe: who writes to it has the reader look for what is to be done
	conns []*connection
	buf   []byte

	queue      []dialing // to be made
	perSecond  float64   // 0: as fast as they can be
	begun      time.Time // of the queue
	made       int       // of the queue
	underWay   int       // connections that are being opened
	reportedAt uint64    // of received

	mu   sync.Mutex // guards what follows
	todo []func()
	gone bool // nobody does anything any more
}

const (
	readBuffer  = 256 << 10
	wakeIndex   = -1
	maxUnderWay = 512 // fewer than a listener's backlog: a SYN that is dropped comes again after a second
)

func newReader(c *crowd, t *tally, after int32) (*reader, error) {
	r := &reader{crowd: c, to: clones(c.to), from: clones(c.from), buf: make([]byte, readBuffer), epoll: -1, wake: [2]int{-1, -1}}
	r.arrival = arrival{tally: t, after: after, reply: r.reply, done: r.complete}
	var err error
	if r.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err = syscall.Pipe2(r.wake[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC); err == nil {
		err = syscall.EpollCtl(r.epoll, syscall.EPOLL_CTL_ADD, r.wake[0], &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: wakeIndex})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), r.close())
	}
	return r, nil
}

func clones(all []syscall.Sockaddr) (own []syscall.Sockaddr) {
	for _, a := range all {
		switch a := a.(type) {
		case *syscall.SockaddrInet4:
			own = append(own, &syscall.SockaddrInet4{Port: a.Port, Addr: a.Addr})
		case *syscall.SockaddrInet6:
			own = append(own, &syscall.SockaddrInet6{Port: a.Port, Addr: a.Addr})
		}
	}
	return own
}

// do has something done on the reader's thread, soon; at once if it doesn't run any more.
func (r *reader) do(act func()) {
	r.mu.Lock()
	if r.gone {
		defer r.mu.Unlock()
		act()
		return
	}
	defer r.mu.Unlock()
	r.todo = append(r.todo, act)
	_, _ = syscall.Write(r.wake[1], []byte{0}) // a full pipe wakes it too
}

// schedule has connections made.
func (r *reader) schedule(all []dialing, perSecond float64) {
	r.queue, r.made, r.perSecond, r.begun = all, 0, perSecond, time.Now()
}

func (r *reader) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { r.do(func() {}) })()
	events := make([]syscall.EpollEvent, 1024)
	for ctx.Err() == nil {
		n, err := syscall.EpollWait(r.epoll, events, r.connectMore())
		if err != nil && err != syscall.EINTR {
			return fmt.Errorf("epoll: %w", err)
		}
		for i := range max(n, 0) {
			if e := &events[i]; e.Fd == wakeIndex {
				r.doAll()
			} else {
				r.serve(r.conns[e.Fd], e.Events)
			}
		}
		if delta := r.received - r.reportedAt; delta > 0 {
			r.reportedAt = r.received
			r.crowd.received.Add(int64(delta))
		}
	}
	return nil
}

func (r *reader) doAll() {
	var drain [64]byte
	for {
		if n, _ := syscall.Read(r.wake[0], drain[:]); n < len(drain) {
			break
		}
	}
	r.mu.Lock()
	todo := r.todo
	r.todo = nil
	r.mu.Unlock()
	for _, act := range todo {
		act()
	}
}

// connectMore begins the connections that are due, and returns how many milliseconds the next one has time; -1: for ever.
func (r *reader) connectMore() (wait int) {
	for r.made < len(r.queue) {
		if r.underWay >= maxUnderWay {
			return -1
		}
		if r.perSecond > 0 {
			due := r.begun.Add(time.Duration(float64(r.made) / r.perSecond * float64(time.Second)))
			if wait := time.Until(due); wait > 0 {
				return int(wait/time.Millisecond) + 1
			}
		}
		d := &r.queue[r.made]
		r.made++
		if err := r.connect(d); err != nil {
			r.crowd.fail(err)
		}
	}
	r.queue, r.made = nil, 0
	return -1
}

// ipBindAddressNoPort has the kernel choose the port when the connection is made (Linux 4.2), so that one local address
// serves as many connections as it has ports, to each address.
const ipBindAddressNoPort = 24

func (r *reader) connect(d *dialing) error {
	family := syscall.AF_INET
	if _, v6 := r.to[d.to].(*syscall.SockaddrInet6); v6 {
		family = syscall.AF_INET6
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err == syscall.EMFILE {
		return errors.New("this process may have no more open files (ulimit -n)")
	} else if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	c := &connection{
		fd: fd, index: int32(len(r.conns)), expect: d.expect, group: d.group, tap: d.tap, since: nanoseconds(time.Now()), scan: scanner{run: textOf(r.tally.run)},
		opening: &opening{unsent: d.request, greeting: d.greeting, ready: r.crowd.ready()},
	}
	err = r.begin(c, d)
	if err != nil {
		_ = syscall.Close(fd)
		return fmt.Errorf("connect: %w", err)
	}
	r.underWay++
	return nil
}

func (r *reader) begin(c *connection, d *dialing) error {
	if d.from >= 0 {
		_ = syscall.SetsockoptInt(c.fd, syscall.IPPROTO_IP, ipBindAddressNoPort, 1) // without it, ports run out sooner
		if err := syscall.Bind(c.fd, r.from[d.from]); err != nil {
			return err
		}
	}
	if err := syscall.SetsockoptInt(c.fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return err
	}
	if err := syscall.Connect(c.fd, r.to[d.to]); err != nil && err != syscall.EINPROGRESS {
		return err
	}
	r.conns = append(r.conns, c)
	return syscall.EpollCtl(r.epoll, syscall.EPOLL_CTL_ADD, c.fd,
		&syscall.EpollEvent{Events: syscall.EPOLLOUT, Fd: c.index})
}

// serve does what a connection is ready for.
func (r *reader) serve(c *connection, events uint32) {
	if c.over {
		return
	}
	if c.opening != nil && len(c.opening.unsent) > 0 {
		if err := r.send(c); err != nil {
			r.refuse(c, err)
		}
		return
	}
	for !c.over {
		n, errno := readNow(c.fd, r.buf)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			return
		case errno != 0 || n == 0:
			r.end(c, errno)
			return
		}
		r.c, r.now = c, nanoseconds(time.Now())
		r.take(c, r.buf[:n])
		if n < len(r.buf) && events&hungUp == 0 {
			return // all that there was: what comes now is told anew
		}
	}
}

// hungUp is what epoll says where an end stands behind what can be read.
const hungUp = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR

// whenMore has epoll tell once of each change: a connection whose data was read isn't looked at again.
const whenMore = syscall.EPOLLIN | syscall.EPOLLRDHUP | edgeTriggered

// edgeTriggered is EPOLLET, which package syscall has as a negative number.
const edgeTriggered = 1 << 31

// readNow reads without telling the scheduler: a nonblocking read is soon over.
func readNow(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// send sends what is left of the request, and then waits for the answer.
func (r *reader) send(c *connection) error {
	o := c.opening
	if !o.connected {
		code, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
		if err == nil && code != 0 {
			err = syscall.Errno(code)
		}
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		o.connected = true
	}
	n, err := syscall.Write(c.fd, o.unsent)
	if err == syscall.EAGAIN {
		return nil
	} else if err != nil {
		return fmt.Errorf("send the request: %w", err)
	}
	if o.unsent = o.unsent[n:]; len(o.unsent) > 0 {
		return nil
	}
	return r.interest(c, whenMore)
}

func (r *reader) interest(c *connection, events uint32) error {
	return syscall.EpollCtl(r.epoll, syscall.EPOLL_CTL_MOD, c.fd, &syscall.EpollEvent{Events: events, Fd: c.index})
}

// take takes what a read returned.
func (r *reader) take(c *connection, b []byte) {
	o := c.opening
	if o != nil && !o.headRead {
		rest, whole, err := o.head(c, b, r.crowd.cfg.Transport)
		if err != nil {
			r.refuse(c, err)
			return
		}
		if !whole {
			return
		}
		if b = rest; len(o.greeting) > 0 {
			o.unsent = o.greeting
			if err := r.interest(c, syscall.EPOLLIN|syscall.EPOLLOUT); err != nil {
				r.refuse(c, err)
				return
			}
		}
	}
	if !c.unwrap.unwrap(b, &r.arrival) {
		r.end(c, 0)
		return
	}
	if o == nil {
		return
	}
	if open, err := o.isOpen(); err != nil {
		r.refuse(c, err)
	} else if open {
		c.opening = nil
		r.underWay--
		r.crowd.opened.Add(1)
	}
}

// reply sends a control frame. It is small, and lost only if the server doesn't read.
func (r *reader) reply(c *connection, frame []byte) { _, _ = syscall.Write(c.fd, frame) }

// complete notes that a connection has got what it came back for.
func (r *reader) complete(c *connection, now int64) {
	r.tally.done.record(now - c.since)
	for was := r.crowd.lastCompletion.Load(); now > was && !r.crowd.lastCompletion.CompareAndSwap(was, now); {
		was = r.crowd.lastCompletion.Load()
	}
	r.crowd.completed.Add(1)
}

// refuse gives up a connection that isn't open yet.
func (r *reader) refuse(c *connection, err error) {
	r.drop(c)
	r.underWay--
	c.opening = nil
	r.crowd.fail(err)
}

// end takes note that the server has ended a connection.
func (r *reader) end(c *connection, errno syscall.Errno) {
	if c.opening != nil {
		err := errors.New("the server closed the connection before it was open")
		if errno != 0 {
			err = fmt.Errorf("the connection broke before it was open: %w", errno)
		}
		r.refuse(c, err)
		return
	}
	r.Ended++
	r.drop(c)
}

func (r *reader) drop(c *connection) {
	c.over = true
	_ = syscall.Close(c.fd)
}

// close closes all that is open. What is still to be done is done now.
func (r *reader) close() error {
	r.mu.Lock()
	r.gone = true
	todo := r.todo
	r.todo = nil
	r.mu.Unlock()
	for _, act := range todo {
		act()
	}
	for _, c := range r.conns {
		if !c.over {
			r.drop(c)
		}
	}
	for _, fd := range []int{r.epoll, r.wake[0], r.wake[1]} {
		if fd >= 0 {
			_ = syscall.Close(fd)
		}
	}
	r.epoll, r.wake = -1, [2]int{-1, -1}
	return nil
}
