package kafka

import (
	"slices"
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
	const most = 5 * time.Millisecond
	for name, tt := range map[string]struct {
		apart    time.Duration // between an answer and the next one
		messages int           // in each
		want     bool
	}{
		"1,000 a second, by sixes":         {6 * time.Millisecond, 6, true},
		"600 a second, by threes and more": {6 * time.Millisecond, 4, true},
		"300 a second":                     {6 * time.Millisecond, 2, false},
		"a batch now and then":             {50 * time.Millisecond, 100, false},
		"batches that hardly gather":       {15 * time.Millisecond, 100, false},
	} {
		var p pacer
		var steady bool
		now := time.Now()
		for range 100 {
			now = now.Add(tt.apart)
			_, steady = p.pause(now, most, tt.messages)
		}
		if steady != tt.want {
			t.Errorf("%s: steady is %v", name, steady)
		}
	}
}

// TestTheBrokerHoldsRequestsUnderASteadyLoad, and no longer once it ends. Events are published whenever a request comes,
// so that each answer has some.
func TestTheBrokerHoldsRequestsUnderASteadyLoad(t *testing.T) {
	eachWay(t, devbroker.Config{}, func(b *readerBench) {
		const each, patience = 5, 300
		topic := b.topic(1)
		f := b.follow(topic)
		asked := make(chan bool, 4*patience) // whether the broker is to hold a request
		b.broker.Cluster().ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.broker.Cluster().KeepControl()
			select {
			case asked <- r.(*kmsg.FetchRequest).MinBytes > 1:
			default: // the test has failed
			}
			return nil, nil, false
		})
		var want []stream.Message
		held := 0
		for n := 0; held < 20; n++ {
			if n == patience {
				t.Fatalf("%d requests of %d were held", held, n)
			}
			want = append(want, b.produce(streamtest.Records(topic, 0, n*each, (n+1)*each)...)...)
			if <-asked {
				held++
			}
		}
		b.wantAll(f, want)
		for <-asked { // until there is one that waits for the next event
		}
		last := b.produce(streamtest.Records(topic, 0, len(want), len(want)+1)...)
		b.wantAll(f, slices.Concat(want, last))
	})
}
