package kafka

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// directPair returns both ends of a connection, of which one is direct.
func directPair(t *testing.T) (*direct, *net.TCPConn) {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	ours := must[net.Conn](t)(net.Dial("tcp", l.Addr().String()))
	theirs := must[net.Conn](t)(l.Accept())
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	d, ok := directly(ours).(*direct)
	if !ok {
		t.Fatal("a TCP connection isn't direct")
	}
	return d, theirs.(*net.TCPConn)
}

// More than the kernel holds goes through, either way, though each call takes a part.
func TestDirectCarriesMuch(t *testing.T) {
	d, peer := directPair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	for name, ends := range map[string][2]net.Conn{"out": {d, peer}, "in": {peer, d}} {
		written := make(chan error, 1)
		go func() {
			n, err := ends[0].Write(sent)
			if err == nil && n != len(sent) {
				err = io.ErrShortWrite
			}
			written <- err
		}()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: it isn't what was sent: %v", name, err)
		}
		if err := <-written; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDirectEndsAsTCPDoes(t *testing.T) {
	var b [1]byte
	t.Run("the peer's end", func(t *testing.T) {
		d, peer := directPair(t)
		check(t, peer.Close())
		if n, err := d.Read(b[:]); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v", n, err)
		}
	})
	t.Run("nothing asked for", func(t *testing.T) {
		d, _ := directPair(t)
		if n, err := d.Read(nil); n != 0 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		if n, err := d.Write(nil); n != 0 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
	t.Run("a deadline", func(t *testing.T) {
		d, _ := directPair(t)
		check(t, d.SetDeadline(time.Now().Add(10*time.Millisecond)))
		if n, err := d.Read(b[:]); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d, %v", n, err)
		}
		if n, err := d.Write(make([]byte, 64<<20)); n >= 64<<20 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
	t.Run("closed while a read waits", func(t *testing.T) {
		d, _ := directPair(t)
		read := make(chan error, 1)
		go func() {
			_, err := d.Read(b[:])
			read <- err
		}()
		check(t, d.Close())
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
	})
	t.Run("reset by the peer", func(t *testing.T) {
		d, peer := directPair(t)
		check(t, peer.SetLinger(0))
		check(t, peer.Close())
		if n, err := d.Read(b[:]); n != 0 || err == nil || err == io.EOF {
			t.Errorf("read %d, %v", n, err)
		}
	})
}
