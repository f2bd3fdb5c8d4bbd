package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestAPingThatCrossesACloseFrameCutsNobody: the answer to the close frame is still waited for.
func TestAPingThatCrossesACloseFrameCutsNobody(t *testing.T) {
	for name, newFace := range faces {
		t.Run(name, func(t *testing.T) {
			f := newFace(t, Config{})
			conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			const handshake = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
			if _, err := io.WriteString(conn, handshake); err != nil {
				t.Fatal(err)
			}
			body := bufio.NewReader(conn)
			for line := ""; line != "\r\n"; {
				if line, err = body.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			ended := make(chan error, 1)
			go func() { ended <- f.Shutdown(context.Background()) }()
			header := make([]byte, 2)
			if _, err := io.ReadFull(body, header); err != nil || header[0] != final|opClose {
				t.Fatalf("%x, %v", header, err)
			}
			payload := make([]byte, header[1])
			if _, err := io.ReadFull(body, payload); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte{final | opPing, 0x80, 0, 0, 0, 0}); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if b, err := body.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %x, %v; want nothing yet", b, err)
			}
			if _, err := conn.Write([]byte{final | opClose, 0x82, 0, 0, 0, 0, payload[0], payload[1]}); err != nil {
				t.Error(err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAHandshakeOverHTTP10IsRefused(t *testing.T) {
	f := newFace(t, Config{})
	conn := stall(t, f.url, strings.Replace(streamRequests["websocket"], "HTTP/1.1", "HTTP/1.0", 1))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	checkProblem(t, response, http.StatusUpgradeRequired, "upgrade-required", "", "HTTP/1.1")
}
