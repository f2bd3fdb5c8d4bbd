package gateway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// watcher sees what clients send, and that they leave, without a goroutine for each: an epoll instance of ours, on which
// the runtime's own waits.
type watcher struct {
	fd   int
	file *os.File // fd, so that waiting for it takes no thread
	raw  syscall.RawConn

	closed atomic.Bool

	scratch []byte // run's

	mu    sync.Mutex // guards what follows
	slots []*taken
	free  []int32
	turns []int32 // of each slot: how often it was given out, so that a late event hits nobody else
}

// watch is where a connection is in its watcher.
type watch struct {
	slot, turn int32
	on         bool
	noise      int // bytes that a client sent which has nothing to say
}

// watched is what is waited for: something to read, or the client's end, once.
const watched = syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT

func newWatcher() (*watcher, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), syscall.Close(fd))
	}
	w := &watcher{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), scratch: make([]byte, 4<<10)}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, w.file.Close())
	}
	return w, nil
}

// close makes run return.
func (w *watcher) close() error {
	w.closed.Store(true)
	return w.file.Close()
}

// run tells connections what there is to see until close.
func (w *watcher) run() error {
	events := make([]syscall.EpollEvent, 128)
	for {
		n, err := 0, error(nil)
		waitErr := w.raw.Read(func(fd uintptr) bool {
			for {
				if n, err = syscall.EpollWait(int(fd), events, 0); err != syscall.EINTR {
					return n > 0 || err != nil
				}
			}
		})
		if w.closed.Load() {
			return nil
		}
		if err = errors.Join(waitErr, err); err != nil {
			return fmt.Errorf("wait for connections: %w", err)
		}
		for _, e := range events[:n] {
			if c := w.find(e.Fd, e.Pad); c != nil {
				w.see(c)
			}
		}
	}
}

func (w *watcher) find(slot, turn int32) *taken {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.turns[slot] != turn {
		return nil
	}
	return w.slots[slot]
}

// see deals with what a client sent.
func (w *watcher) see(c *taken) {
	if s := c.socket; s == nil {
		w.discard(c)
	} else if !s.reading.Swap(true) && !s.hear(w.read(c)) {
		s.reading.Store(false)
		if err := w.again(c); err != nil {
			c.leave(err)
		}
	}
}

// discard reads what a client sent that has nothing to say.
func (w *watcher) discard(c *taken) {
	for {
		b, err := w.read(c)
		c.watch.noise += len(b)
		switch {
		case errors.Is(err, errNothing):
			if err := w.again(c); err != nil {
				c.leave(err)
			}
			return
		case err != nil:
			c.leave(err)
			return
		case c.watch.noise > maxNoise:
			c.leave(errClientGone) // or worse
			return
		}
	}
}

// add begins to watch a connection.
func (w *watcher) add(c *taken) error {
	w.mu.Lock()
	slot := int32(len(w.slots))
	if n := len(w.free); n > 0 {
		slot, w.free = w.free[n-1], w.free[:n-1]
	} else {
		w.slots, w.turns = append(w.slots, nil), append(w.turns, 0)
	}
	w.slots[slot] = c
	c.watch.slot, c.watch.turn, c.watch.on = slot, w.turns[slot], true
	w.mu.Unlock()
	err := w.control(c, syscall.EPOLL_CTL_ADD)
	if err != nil {
		w.remove(c)
	}
	return err
}

// again waits for what comes next from a connection that was told what there was.
func (w *watcher) again(c *taken) error { return w.control(c, syscall.EPOLL_CTL_MOD) }

// remove ends it. Closing the connection takes it out of the epoll instance.
func (w *watcher) remove(c *taken) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !c.watch.on {
		return
	}
	c.watch.on = false
	w.slots[c.watch.slot] = nil
	w.turns[c.watch.slot]++
	w.free = append(w.free, c.watch.slot)
}

func (w *watcher) control(c *taken, op int) error {
	if !c.descriptor.use() {
		return net.ErrClosed
	}
	defer c.descriptor.done()
	event := syscall.EpollEvent{Events: watched, Fd: c.watch.slot, Pad: c.watch.turn}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(w.fd, op, c.descriptor.fd, &event))
}

// read returns some of what has come, until the next read, and errors as a descriptor's does.
func (w *watcher) read(c *taken) ([]byte, error) {
	n, err := c.descriptor.read(w.scratch)
	return w.scratch[:n], err
}
