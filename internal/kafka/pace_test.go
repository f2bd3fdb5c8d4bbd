package kafka

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/goodgo/streamgw/internal/stream/streamtest"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestPause(t *testing.T) {
	const most = 5 * time.Millisecond
	for name, tt := range map[string]struct {
		apart time.Duration // between an answer and the next one, pauses included
		most  time.Duration
		want  time.Duration // after many answers
	}{
		"an event now and then":            {300 * time.Millisecond, most, 0},
		"50 a second":                      {20 * time.Millisecond, most, 0},
		"in between":                       {15 * time.Millisecond, most, most / 2},
		"100 a second":                     {10 * time.Millisecond, most, most},
		"thousands a second":               {6 * time.Millisecond, most, most},
		"no pause is wanted":               {time.Millisecond, 0, 0},
		"a negative one is none":           {time.Millisecond, -1, 0},
		"an hour's, which nobody sets":     {time.Hour, time.Hour, time.Hour},
		"a costly fetch, 50 events second": {20 * time.Millisecond, 2 * most, 2 * most},
	} {
		var p pacer
		var got time.Duration
		now := time.Now()
		for range 100 {
			now = now.Add(tt.apart)
			got, _ = p.pause(now, tt.most, 1)
		}
		if d := got - tt.want; d < -tt.most/100 || d > tt.most/100 {
			t.Errorf("%s: a pause of %v, want %v", name, got, tt.want)
		}
	}
}

// Whatever was before a quiet: the first few answers after it find no pause, and soon a load that lasts is gathered.
func TestPauseAfterQuiet(t *testing.T) {
	const most = 5 * time.Millisecond
	var p pacer
	now := time.Now()
	for _, quiet := range []time.Duration{0, time.Minute, 50 * time.Millisecond} {
		now = now.Add(quiet)
		unpaced, answers := 0, 0
		for pause, steady := p.pause(now, most, 10); pause < most && answers < 100; pause, steady = p.pause(now, most, 10) {
			now = now.Add(time.Millisecond + pause)
			answers++
			if pause == 0 {
				unpaced++
			}
			if steady {
				t.Errorf("after a quiet of %v and %d answers, a pause of %v passes for one of a steady load", quiet, answers, pause)
			}
		}
		if unpaced < 3 || answers > 20 {
			t.Errorf("after a quiet of %v, %d answers without a pause, and %d until it is the longest", quiet, unpaced, answers)
		}
	}
}

// The broker may make the pauses once hardly any would be without an event, and not when they are shorter than the longest.
func TestSteadyLoad(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		apart    time.Duration // between an answer and the next one
		messages int           // in each
		most     time.Duration
		want     bool
	}{
		"1,000 a second, by sixes":         {6 * ms, 6, 5 * ms, true},
		"600 a second, by threes and more": {6 * ms, 4, 5 * ms, true},
		"300 a second":                     {6 * ms, 2, 5 * ms, false},
		"a batch now and then":             {50 * ms, 100, 5 * ms, false},
		"batches that hardly gather":       {15 * ms, 100, 5 * ms, false},
		"pauses that no broker can make":   {ms, 100, ms / 2, false},
		"no pause is wanted":               {ms, 100, 0, false},
	} {
		var p pacer
		var steady bool
		now := time.Now()
		for range 100 {
			now = now.Add(tt.apart)
			_, steady = p.pause(now, tt.most, tt.messages)
		}
		if steady != tt.want {
			t.Errorf("%s: steady is %v", name, steady)
		}
	}
}

// Batches that come less often than the broker's pauses end are found out, however large they are: most fetches bring one.
func TestBatchesAreNoSteadyLoad(t *testing.T) {
	const most, apart, batch = 5 * time.Millisecond, 8 * time.Millisecond, 1000
	var p pacer
	now := time.Now()
	vain := 0
	for range 100 {
		now = now.Add(apart)
		if _, steady := p.pause(now, most, batch); steady {
			p.vain()
			vain++
		}
	}
	if vain > 20 {
		t.Errorf("%d pauses of a hundred were in vain", vain)
	}
}

// loadedReader follows a topic that gets some messages whenever a fetch comes, so that each answer has some, and hears of
// every fetch.
type loadedReader struct {
	*readerBench
	topic string
	*streamtest.Follower
	want  []stream.Message
	asked chan kmsg.FetchRequest
	fails atomic.Bool // fetches that the broker is to hold break the connection
}

func newLoadedReader(b *readerBench) *loadedReader {
	l := &loadedReader{readerBench: b, topic: b.topic(1), asked: make(chan kmsg.FetchRequest, 4000)}
	l.Follower = b.follow(l.topic)
	b.broker.Cluster().ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.broker.Cluster().KeepControl()
		req := *r.(*kmsg.FetchRequest)
		select {
		case l.asked <- req:
		default: // the test has failed
		}
		if req.MinBytes > 1 && l.fails.Load() {
			return nil, errors.New("the connection breaks"), true
		}
		return nil, nil, false
	})
	return l
}

// next publishes and returns the next fetch.
func (l *loadedReader) next() kmsg.FetchRequest {
	const each = 5
	l.want = append(l.want, l.produce(streamtest.Records(l.topic, 0, len(l.want), len(l.want)+each)...)...)
	return <-l.asked
}

// steadily goes on until the broker is to hold fetches. It reports whether that comes to be.
func (l *loadedReader) steadily() (held kmsg.FetchRequest, ok bool) {
	for range 300 {
		if held = l.next(); held.MinBytes > 1 {
			return held, true
		}
	}
	return held, false
}

// TestTheBrokerHoldsFetchesUnderASteadyLoad, and no longer once it ends.
func TestTheBrokerHoldsFetchesUnderASteadyLoad(t *testing.T) {
	eachWay(t, devbroker.Config{}, func(b *readerBench) {
		l := newLoadedReader(b)
		held, ok := l.steadily()
		if !ok || held.MaxWaitMillis < 5 || held.MaxWaitMillis > 6 || held.MinBytes != partitionBytes {
			b.Fatalf("it is to wait for %d bytes or %d ms", held.MinBytes, held.MaxWaitMillis)
		}
		for range 20 {
			l.next()
		}
		b.wantAll(l.Follower, l.want)
		for req := range l.asked { // until there is one that waits for the next event
			if req.MinBytes <= 1 {
				break
			}
		}
		l.next()
		b.wantAll(l.Follower, l.want)
	})
}

// TestAHeldFetchThatFailsIsNotMadeAgain on the next connection: nobody knows what is there now.
func TestAHeldFetchThatFailsIsNotMadeAgain(t *testing.T) {
	eachWay(t, devbroker.Config{}, func(b *readerBench) {
		l := newLoadedReader(b)
		l.fails.Store(true)
		if _, ok := l.steadily(); !ok {
			b.Fatal("no fetch is to be held")
		}
		if again := <-l.asked; again.MinBytes > 1 {
			b.Errorf("the next one is to be held for %d ms", again.MaxWaitMillis)
		}
		l.fails.Store(false)
		b.wantAll(l.Follower, l.want)
	})
}

// TestTheBrokerHoldsNoFetchForLong: what is added would wait for it, and beyond RequestTimeout there is no answer.
func TestTheBrokerHoldsNoFetchForLong(t *testing.T) {
	broker := embedded(t, devbroker.Config{})
	client := newClient(t, Config{Brokers: broker.Addrs(), Pace: guestWait + 5*time.Millisecond})
	reader := NewReader(client)
	run(t, reader)
	l := newLoadedReader(&readerBench{t, broker, newContractCluster(t, broker.Addrs(), func() {}), client, reader})
	for range 30 {
		if req := l.next(); req.MinBytes > 1 {
			t.Fatalf("a fetch is to be held for %d ms", req.MaxWaitMillis)
		}
	}
	l.wantAll(l.Follower, l.want)
}
