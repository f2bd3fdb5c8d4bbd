package gateway

import (
	"testing"
	"time"
)

func TestMemoryGoesBackOnceItIsCalm(t *testing.T) {
	const large = 4 * 1000 * tidyEach // for which 1,000 connections are a crowd
	now := time.Now()
	var tidy tidy
	for i, step := range []struct {
		moved int64  // in this second
		heap  uint64 // of which crowd depends
		want  bool
	}{
		{0, large, false}, {999, large, false}, {0, large, false}, // no crowd
		{600, large, false}, {600, large, false}, {10, large, true}, // one, and then calm
		{0, large, false}, {2000, large, false}, {0, large, false}, {0, large, false}, {0, large, false}, {0, large, false}, {0, large, false}, {0, large, false}, {0, large, false}, {0, large, true}, // not so soon again
		{0, large, false}, {99, 0, false}, {0, 0, false}, // nor for a few, however small the heap
		{0, 0, false}, {0, 0, false}, {0, 0, false}, {0, 0, false}, {0, 0, false}, {0, 0, false}, {0, 0, false}, {1, 0, true},
	} {
		now = now.Add(time.Second)
		if got := tidy.due(now, tidy.seen+step.moved, func() uint64 { return step.heap }); got != step.want {
			t.Errorf("second %d: %v", i, got)
		}
	}
	if liveHeap() > 1<<40 {
		t.Error("the heap isn't what it is called any more")
	}
}
