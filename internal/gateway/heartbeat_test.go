package gateway

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestHeartbeatAfterSilence(t *testing.T) {
	for name, tt := range map[string]struct {
		frames frames
		want   string
	}{
		"comment": {sse{}, ":\n\n"},
		"event":   {sseEventHeartbeat{}, "event: streamgw.heartbeat\ndata: {}\n\n"},
		"NDJSON":  {ndjson{}, `{"type":"heartbeat"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := startLoop(t, Config{}, tt.frames)
				l.sink.take()
				time.Sleep(15*time.Second - 1)
				synctest.Wait()
				wantWrites(t, l.sink.take())
				time.Sleep(2 * time.Nanosecond)
				synctest.Wait()
				wantWrites(t, l.sink.take(), tt.want)
				time.Sleep(10 * time.Second)
				l.sub.push(item("1", 1))
				synctest.Wait()
				l.sink.take()
				time.Sleep(14 * time.Second) // 24 s after the last heartbeat, 14 s after the last event
				synctest.Wait()
				wantWrites(t, l.sink.take())
				time.Sleep(time.Second + 1)
				synctest.Wait()
				wantWrites(t, l.sink.take(), tt.want)
				l.stop(t)
			})
		})
	}
}

func TestProgressIsToldWithTheHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		l.sub.pass("P9")
		synctest.Wait()
		wantWrites(t, l.sink.take())
		time.Sleep(15*time.Second + 1)
		synctest.Wait()
		wantWrites(t, l.sink.take(), "id: P9\n\n:\n\n")
		time.Sleep(15 * time.Second)
		synctest.Wait()
		wantWrites(t, l.sink.take(), ":\n\n")
		l.stop(t)
	})
}

// TestProgressIsNoHeartbeat: a page sees nothing of an id alone, and its watchdog would take the stream for dead.
func TestProgressIsNoHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sseEventHeartbeat{})
		l.sink.take()
		for i := range 10 {
			l.sub.pass(fmt.Sprint("P", i+1))
			time.Sleep(15*time.Second + 1)
			synctest.Wait()
			wantWrites(t, l.sink.take(), fmt.Sprintf("id: P%d\n\nevent: streamgw.heartbeat\ndata: {}\n\n", i+1))
		}
		l.stop(t)
	})
}

// TestABusyStreamStillTellsProgress: that of a subscription beside the one that is busy.
func TestABusyStreamStillTellsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, webSocketFrames{})
		heard := new(atomic.Bool)
		l.pings = &pings{heard: heard}
		quiet := &fakeSub{position: "Q0", closed: make(chan struct{})}
		l.feeds = append(l.feeds, &feed{id: "q", frames: webSocketFrames{id: "q"}, sub: quiet})
		l.sink.take()
		for i := range 60 {
			quiet.pass(fmt.Sprint("Q", i))
			l.sub.push(item("1", i))
			heard.Store(true)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := strings.Count(strings.Join(l.sink.take(), ""), `{"type":"position"`); n != 4 {
			t.Errorf("progress was told %d times in a minute, want with each heartbeat", n)
		}
		l.stop(t)
	})
}

// TestABusyStreamTellsProgressWithItsEvents: ten thousand that each get an event now and then would have as many writes
// again for positions alone.
func TestABusyStreamTellsProgressWithItsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		for i := range 20 {
			l.sub.pass(fmt.Sprint("P", 2*i))
			time.Sleep(10 * time.Second)
			l.sub.push(item("a", 2*i+1))
			synctest.Wait()
			wantWrites(t, l.sink.take(), fmt.Sprintf("data: a\nid: P%d\n\n", 2*i+1))
		}
		l.sub.pass("P99")
		time.Sleep(15*time.Second + 1)
		synctest.Wait()
		wantWrites(t, l.sink.take(), "id: P99\n\n:\n\n")
		l.stop(t)
	})
}

func TestAnIdleConnectionBeatsOnceAHeartbeat(t *testing.T) {
	for name, lastEvent := range map[string]time.Duration{
		"from its start": 0, "an event soon after a beat": time.Second, "an event shortly before one": 14 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := startLoop(t, Config{}, sse{})
				heard := new(atomic.Bool)
				l.pings = &pings{heard: heard}
				pass := func(seconds int) {
					for range seconds {
						heard.Store(true)
						time.Sleep(time.Second)
					}
					synctest.Wait()
				}
				time.Sleep(lastEvent)
				l.sub.push(item("a", 1))
				pass(60)
				l.sink.take()
				pass(600)
				beats := l.sink.take()
				for _, b := range beats {
					if b != "\x89\x00:\n\n" {
						t.Errorf("beat with %q", b)
					}
				}
				if len(beats) != 40 {
					t.Errorf("%d heartbeats in ten minutes, want 40", len(beats))
				}
				l.stop(t)
			})
		})
	}
}

func TestHeartbeatAfterALongWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, Config{}, sse{})
		l.sink.take()
		l.sink.mu.Lock()
		block := make(chan struct{})
		l.sink.block = block
		l.sink.mu.Unlock()
		l.sub.push(item("large", 1))
		time.Sleep(5 * time.Minute)
		close(block)
		synctest.Wait()
		wantWrites(t, l.sink.take(), "data: large\nid: P1\n\n")
		time.Sleep(15*time.Second - 1)
		synctest.Wait()
		wantWrites(t, l.sink.take())
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		wantWrites(t, l.sink.take(), ":\n\n")
		l.stop(t)
	})
}
