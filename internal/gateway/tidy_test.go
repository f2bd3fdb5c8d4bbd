package gateway

import (
	"testing"
	"time"
)

func TestMemoryGoesBackOnceItIsCalm(t *testing.T) {
	now := time.Now()
	var tidy tidy
	for i, step := range []struct {
		moved int64 // in this second
		want  bool
	}{
		{0, false}, {999, false}, {0, false}, // no crowd
		{600, false}, {600, false}, {10, true}, // one, and then calm
		{0, false}, {2000, false}, {0, false}, {0, false}, {0, false}, {0, false}, {0, false}, {0, false}, {0, false}, {0, true}, // not so soon again
		{0, false},
	} {
		now = now.Add(time.Second)
		if got := tidy.due(now, tidy.seen+step.moved); got != step.want {
			t.Errorf("second %d: %v", i, got)
		}
	}
}
