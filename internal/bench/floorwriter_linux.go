package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// WriteFloor is the writing process of [Floor]: it takes connections, and on an order writes to all of them. It ends with
// the end of in.
func WriteFloor(in io.Reader, out io.Writer) error {
	listener, port, err := listenRaw()
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := json.NewEncoder(out).Encode(floorReport{Listen: fmt.Sprintf("127.0.0.1:%d", port)}); err != nil {
		return err
	}
	sockets := make(chan int, 1<<16)
	go acceptRaw(listener, sockets) // ends with the process, as do the sockets
	orders := bufio.NewScanner(in)
	for orders.Scan() {
		var order floorOrder
		if err := json.Unmarshal(orders.Bytes(), &order); err != nil {
			return err
		}
		w, err := newFloorLoop(order, sockets)
		if err != nil {
			return err
		}
		report, err := w.write()
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(report); err != nil {
			return err
		}
	}
	return orders.Err()
}

func listenRaw() (fd, port int, err error) {
	if fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, 0, err
	}
	if err = syscall.Listen(fd, 4096); err != nil {
		return 0, 0, err
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, 0, err
	}
	return fd, name.(*syscall.SockaddrInet4).Port, nil
}

// acceptRaw answers each request and passes its socket on.
func acceptRaw(listener int, sockets chan<- int) {
	defer close(sockets)
	request := make([]byte, 64<<10)
	for {
		fd, _, err := syscall.Accept4(listener, syscall.SOCK_CLOEXEC)
		if err == syscall.EINTR || err == syscall.ECONNABORTED {
			continue
		} else if err != nil {
			return
		}
		patience := syscall.NsecToTimeval(int64(5 * time.Second))
		_ = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &patience)
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		n, err := syscall.Read(fd, request)
		for err == syscall.EINTR { // a read with a time limit isn't begun anew by itself
			n, err = syscall.Read(fd, request)
		}
		if err != nil || !bytes.Contains(request[:max(n, 0)], []byte("\r\n\r\n")) {
			_ = syscall.Close(fd)
			continue
		}
		_ = syscall.SetNonblock(fd, true)
		sockets <- fd // before the answer: who has that is written to
		_, _ = syscall.Write(fd, []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: floor\nid: 0\n\n"))
	}
}

// floorLoop writes the same frame to every socket.
type floorLoop struct {
	order   floorOrder
	sockets []int
	waiting map[int][]byte // what a full socket hasn't taken yet
	frame   []byte
	marks   []int // where the marks of the frame are
}

// floorID is as long as a position of a topic with a dozen partitions.
var floorID = strings.Repeat("0", 70)

func newFloorLoop(order floorOrder, sockets <-chan int) (*floorLoop, error) {
	template, err := valueTemplate(order.Size, order.Seed)
	if err != nil {
		return nil, err
	}
	w := &floorLoop{order: order, waiting: map[int][]byte{}}
	for range len(sockets) {
		w.sockets = append(w.sockets, <-sockets)
	}
	for range order.Batch {
		w.frame = append(w.frame, "data: "...)
		w.marks = append(w.marks, len(w.frame)+len(valueHead))
		w.frame = append(w.frame, template...)
		w.frame = append(w.frame, "\nid: "+floorID+"\n\n"...)
	}
	return w, nil
}

func (w *floorLoop) write() (report floorReport, err error) {
	every := time.Duration(float64(time.Second) / w.order.Rate * float64(w.order.Batch))
	start := time.Now()
	number := uint32(0)
	for due := start; due.Before(start.Add(w.order.Long)); due = due.Add(every) {
		time.Sleep(time.Until(due))
		now := time.Now()
		report.LateNS = max(report.LateNS, int64(now.Sub(due)))
		for _, at := range w.marks {
			Mark{Run: w.order.Run, Number: number, At: nanoseconds(now)}.put(w.frame[at:])
			number++
		}
		for _, fd := range w.sockets {
			w.send(fd, w.frame)
		}
		for fd, rest := range w.waiting {
			delete(w.waiting, fd)
			w.send(fd, rest)
		}
	}
	for end := time.Now().Add(10 * time.Second); len(w.waiting) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return report, fmt.Errorf("%d connections take nothing", len(w.waiting))
		}
		for fd, rest := range w.waiting {
			delete(w.waiting, fd)
			w.send(fd, rest)
		}
	}
	report.Events = int64(number)
	return report, nil
}

// send writes to a socket what fits, and keeps the rest for later. The system call is a bare one, of which Go's scheduler
// isn't told.
func (w *floorLoop) send(fd int, b []byte) {
	if rest, ok := w.waiting[fd]; ok {
		w.waiting[fd] = append(rest, b...)
		return
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno == syscall.EAGAIN || errno == syscall.EINTR {
		n = 0
	} else if errno != 0 {
		return // the client has gone, and says so itself
	}
	if int(n) < len(b) {
		w.waiting[fd] = append([]byte(nil), b[n:]...)
	}
}
