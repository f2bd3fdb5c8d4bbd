package gateway

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// dial opens a WebSocket of a client that takes 32 KiB in each pause.
func (n *network) dial(t *testing.T, query string, pause time.Duration) *websocket.Conn {
	t.Helper()
	client := &http.Client{Transport: n.transport(t, pause)}
	c, _, err := websocket.Dial(t.Context(), "http://gateway/v1/ws"+query, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	return c
}

// TestAClientThatTakesALargeMessageSlowlyStays: no ping can be sent, so that none is unanswered.
func TestAClientThatTakesALargeMessageSlowlyStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, Config{})
		c := n.dial(t, "?topic=orders", time.Second)
		defer c.CloseNow()
		begun := time.Now()
		large := strings.Repeat("x", 8<<20)
		n.hubs.sub(0).push(wsItem(large, 1))
		n.hubs.sub(0).push(wsItem("2", 2))
		for _, want := range []string{`{"type":"subscribed"`, large, `"event":2`} {
			if _, b, err := c.Read(t.Context()); err != nil || !strings.Contains(string(b), want) {
				t.Fatalf("after %v: %v, %d bytes", time.Since(begun), err, len(b))
			}
		}
		if took := time.Since(begun); took < 4*time.Minute {
			t.Errorf("the message was taken in %v, which shows nothing", took)
		}
		// A context that ends would not do: the library closes the connection then with a lock held that the bubble's
		// clock doesn't see.
		time.AfterFunc(10*time.Minute, func() { n.hubs.sub(0).push(wsItem("3", 3)) })
		if _, b, err := c.Read(t.Context()); err != nil || !strings.Contains(string(b), `"event":3`) {
			t.Errorf("after %v: %q, %v", time.Since(begun), b, err)
		}
	})
}

// TestAClientThatAnswersPingsStays: that is all that it does.
func TestAClientThatAnswersPingsStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, Config{})
		c := n.dial(t, "?topic=orders&heartbeat=event", 0)
		defer c.CloseNow()
		time.AfterFunc(10*time.Minute+time.Second, func() { n.hubs.sub(0).push(wsItem("0", 1)) })
		beats := 0
		for {
			_, b, err := c.Read(t.Context())
			if err != nil {
				t.Fatalf("after %d heartbeats: %v", beats, err)
			}
			if strings.Contains(string(b), `"event":0`) {
				break
			}
			if string(b) == `{"type":"heartbeat"}` {
				beats++
			}
		}
		if beats != 40 {
			t.Errorf("%d heartbeats in ten minutes, want 40", beats)
		}
	})
}

// TestAClientThatAnswersNoPingIsClosed has one that takes all and says nothing.
func TestAClientThatAnswersNoPingIsClosed(t *testing.T) {
	for name, tt := range map[string]struct {
		heartbeat, timeout, want time.Duration
	}{
		"defaults":           {15 * time.Second, 30 * time.Second, 45 * time.Second},
		"rare heartbeats":    {time.Minute, 30 * time.Second, 3 * time.Minute},
		"a patient gateway":  {15 * time.Second, 2 * time.Minute, 135 * time.Second},
		"frequent heartbeat": {time.Second, 30 * time.Second, 31 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, Config{Heartbeat: tt.heartbeat, WriteTimeout: tt.timeout})
				tr := n.transport(t, 0)
				conn, err := tr.DialContext(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				handshake := "GET /v1/ws?topic=orders HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
					"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
				if _, err := conn.Write([]byte(handshake)); err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				for b := make([]byte, 1<<10); err == nil; {
					_, err = conn.Read(b)
				}
				if took := time.Since(begun); took != tt.want {
					t.Errorf("it was closed after %v, want %v", took, tt.want)
				}
				synctest.Wait()
				if got := metric(t, n.registry, "streamgw_connections_closed_total", "timeout", "websocket"); got != 1 {
					t.Errorf("%v are counted as timeouts", got)
				}
			})
		})
	}
}

// TestLittleWaitsInAWebSocketsConnection: what waits there is ahead of a ping.
func TestLittleWaitsInAWebSocketsConnection(t *testing.T) {
	taken := make(chan int, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := (&hijacker{ResponseWriter: w, timeout: time.Second}).Hijack()
		if err != nil {
			t.Error(err)
			close(taken)
			return
		}
		defer conn.Close()
		if err := conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		n, err := conn.(*webSocketConn).Conn.Write(make([]byte, 64<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d: %v, want that the buffers are full", n, err)
		}
		taken <- n
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if n := <-taken; n == 0 || n > 512<<10 {
		t.Errorf("%d KiB were taken by nobody", n>>10)
	}
}
