package kafka

import (
	"testing"
	"time"
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
			got = p.pause(now, tt.most)
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
		for pause := p.pause(now, most); pause < most && answers < 100; pause = p.pause(now, most) {
			now = now.Add(time.Millisecond + pause)
			answers++
			if pause == 0 {
				unpaced++
			}
		}
		if unpaced < 3 || answers > 20 {
			t.Errorf("after a quiet of %v, %d answers without a pause, and %d until it is the longest", quiet, unpaced, answers)
		}
	}
}
