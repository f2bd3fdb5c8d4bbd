package gateway

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/devbroker"
)

// TestContractBlocksCutAnywhereAreWhole has writes that are taken in part, at each byte of a run of compressed blocks or
// frames.
func TestContractBlocksCutAnywhereAreWhole(t *testing.T) {
	c := newCluster(t, devbroker.Topic{Name: topic, Partitions: 1})
	r := newReplicaOf(t, c, Config{Compression: true})
	r.stingy()
	const events = 1500
	b, filtered := r.openGzipped(t, "topic="+topic, ""), r.openGzipped(t, "topic="+topic+"&key=k1", "")
	socket := (&face{url: r.url}).dialDeflated(t, "?topic="+topic)
	rng := rand.New(rand.NewPCG(11, 12))
	for i := 0; i < events; {
		next := min(events, i+1+rng.IntN(20))
		c.produce(long(rng, 1, i, next)...)
		i = next
	}
	for i := range events {
		want := fmt.Sprintf(`{"n":%d,`, i)
		if got := b.next().data; !strings.HasPrefix(got, want) {
			t.Fatalf("got %.40q, want %s", got, want)
		}
		if i%3 != 1 {
			continue
		}
		if got := filtered.next().data; !strings.HasPrefix(got, want) {
			t.Fatalf("filtered: got %.40q, want %s", got, want)
		}
	}
	for i := range events {
		want := fmt.Sprintf(`"event":{"n":%d,`, i)
		got := socket.next()
		for strings.HasPrefix(got, `{"type":"subscribed"`) || strings.HasPrefix(got, `{"type":"position"`) {
			got = socket.next()
		}
		if !strings.Contains(got, want) {
			t.Fatalf("WebSocket: got %.80q, want %s", got, want)
		}
	}
}
