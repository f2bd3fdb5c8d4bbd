package gateway

import (
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/prometheus/client_golang/prometheus"
)

// stalled opens streams that nobody reads.
func (f *face) stalled(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		stall(t, f.url, streamRequests["sse"])
		f.sub(t, i)
	}
}

// TestABlockedClientKeepsNothingOfTheHubs: the window is bounded by memory, and may let go of what it shares.
func TestABlockedClientKeepsNothingOfTheHubs(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := newFace(t, Config{Metrics: registry})
	f.stalled(t, 1)
	push := func() weak.Pointer[byte] {
		one := sharedItem(sse{}, strings.Repeat("x", 8<<20), 1)
		f.sub(t, 0).push(one)
		return weak.Make(&one.Frame[0])
	}
	frame := push()
	eventually(t, "it is blocked", func() bool { return metric(t, registry, "streamgw_connections_blocked") == 1 })
	eventually(t, "the hub's frame is let go of", func() bool {
		runtime.GC()
		return frame.Value() == nil
	})
}

// TestWithoutMemoryNothingIsCopiedForBlockedClients: a large message to many of them would be more than there is at all.
func TestWithoutMemoryNothingIsCopiedForBlockedClients(t *testing.T) {
	const clients, size = 40, 8 << 20
	registry := prometheus.NewRegistry()
	f := newFace(t, Config{Metrics: registry})
	f.hubs.budget = 0
	f.stalled(t, clients)
	one := []fanout.Item{sharedItem(sse{}, strings.Repeat("x", size), 1)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range clients {
		f.sub(t, i).push(one...)
	}
	eventually(t, "all are ended", func() bool {
		return metric(t, registry, "streamgw_connections_closed_total", "overloaded", "sse") == clients
	})
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > clients*size/4 {
		t.Errorf("%d MiB were allocated", n>>20)
	}
}

// TestABlockedClientsStreamEndsWithItsToken: of a large message it would have more for as long as it takes some.
func TestABlockedClientsStreamEndsWithItsToken(t *testing.T) {
	big := sharedItem(sse{}, strings.Repeat("x", 16<<20), 1)
	for name, tt := range map[string]struct {
		lasts  time.Duration
		revoke bool
	}{"revoked": {time.Hour, true}, "over": {5 * time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			d := newDoor(t, nil)
			f := guarded["taken over"](t, Config{Metrics: registry, Heartbeat: time.Second, WriteTimeout: time.Hour}, d)
			stall(t, f.url, strings.Replace(streamRequests["sse"], "\r\n", "\r\nAuthorization: Bearer "+d.token(t, "ann", tt.lasts, "orders")+"\r\n", 1))
			f.sub(t, 0).push(big)
			eventually(t, "it is blocked", func() bool { return metric(t, registry, "streamgw_connections_blocked") == 1 })
			if tt.revoke {
				if status, answer := f.adminAnswers(t, "DELETE", "?subject=ann"); status != 200 || answer["closed"] != 1.0 {
					t.Errorf("%d %v", status, answer)
				}
			}
			<-f.sub(t, 0).closed
			eventually(t, "it is told why", func() bool {
				return metric(t, registry, "streamgw_connections_closed_total", "unauthorized", "sse") == 1
			})
		})
	}
}
