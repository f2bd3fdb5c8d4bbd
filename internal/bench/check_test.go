package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// got is one event of stream 0.
func judged(first uint32, numbers ...uint32) Exactness {
	c := &connection{expect: sequences{next: []uint32{first}}}
	a := &arrival{tally: newTally(testRun), c: c}
	for _, n := range numbers {
		a.found(Mark{Number: n})
	}
	return a.Exactness
}

func TestWhatAConnectionNotices(t *testing.T) {
	for name, tt := range map[string]struct {
		first   uint32
		numbers []uint32
		want    Exactness
	}{
		"all in order":                    {0, []uint32{0, 1, 2, 3}, Exactness{}},
		"it may begin anywhere":           {anywhere, []uint32{7, 8}, Exactness{}},
		"the first is missing":            {0, []uint32{1, 2}, Exactness{Lost: 1}},
		"some in the middle are missing":  {0, []uint32{0, 4}, Exactness{Lost: 3}},
		"one comes twice":                 {0, []uint32{0, 1, 1, 2}, Exactness{Duplicated: 1}},
		"all come twice":                  {0, []uint32{0, 1, 2, 0, 1, 2}, Exactness{Duplicated: 3}},
		"two have changed places":         {0, []uint32{0, 2, 1, 3}, Exactness{Reordered: 1}},
		"the first comes last":            {0, []uint32{1, 2, 3, 0}, Exactness{Reordered: 1}},
		"some come late, one of them not": {0, []uint32{0, 5, 1, 2, 4, 6}, Exactness{Lost: 1, Reordered: 3}},
		"one comes late, and then again":  {0, []uint32{0, 2, 1, 1}, Exactness{Reordered: 1, Duplicated: 1}},
		"one before where it begins":      {5, []uint32{5, 4}, Exactness{Duplicated: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := judged(tt.first, tt.numbers...); got != tt.want {
				t.Errorf("%v: got %+v, want %+v", tt.numbers, got, tt.want)
			}
		})
	}
}

func TestEveryShuffleIsAccountedFor(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	counted := newTally(testRun)
	for range 2000 {
		var numbers []uint32
		missing, twice := uint64(0), uint64(0)
		const n = 20
		for i := range uint32(n) {
			switch random.IntN(8) {
			case 0:
				missing++
			case 1:
				numbers = append(numbers, i, i)
				twice++
			default:
				numbers = append(numbers, i)
			}
		}
		random.Shuffle(len(numbers), func(i, k int) { numbers[i], numbers[k] = numbers[k], numbers[i] })
		c := &connection{expect: sequences{next: []uint32{0}}}
		counted.Exactness = Exactness{}
		a := &arrival{tally: counted, c: c}
		for _, k := range numbers {
			a.found(Mark{Number: k})
		}
		a.missed(c, []uint32{n})
		if a.Lost != missing || a.Duplicated != twice {
			t.Fatalf("%v: %d lost and %d repeated, want %d and %d", numbers, a.Lost, a.Duplicated, missing, twice)
		}
		if slices.IsSorted(numbers) == (a.Reordered > 0) {
			t.Fatalf("%v: %d out of order", numbers, a.Reordered)
		}
	}
}

func TestStreamsAreCheckedApart(t *testing.T) {
	c := &connection{expect: sequences{base: 10, next: []uint32{0, 0}}}
	a := &arrival{tally: newTally(testRun), c: c}
	for _, m := range []Mark{{Stream: 10, Number: 0}, {Stream: 11, Number: 0}, {Stream: 10, Number: 1}, {Stream: 11, Number: 2}, {Stream: 12}, {Stream: 9}} {
		a.found(m)
	}
	if want := (Exactness{Lost: 1, Foreign: 2}); a.Exactness != want {
		t.Errorf("got %+v, want %+v", a.Exactness, want)
	}
}

func TestAConnectionIsCompleteOnce(t *testing.T) {
	for name, numbers := range map[string][]Mark{
		"in order":           {{Stream: 0, Number: 3}, {Stream: 1, Number: 0}, {Stream: 1, Number: 1}, {Stream: 0, Number: 4}, {Stream: 0, Number: 5}},
		"though one is lost": {{Stream: 0, Number: 3}, {Stream: 1, Number: 1}, {Stream: 0, Number: 4}, {Stream: 1, Number: 2}},
		"far beyond":         {{Stream: 0, Number: 10}, {Stream: 1, Number: 10}, {Stream: 1, Number: 11}},
	} {
		t.Run(name, func(t *testing.T) {
			done := 0
			c := &connection{expect: sequences{next: []uint32{3, 0}}}
			c.expect.aim([]uint32{5, 2})
			a := &arrival{tally: newTally(testRun), c: c, done: func(*connection, int64) { done++ }}
			for i, m := range numbers {
				if i == 1 && done > 0 {
					t.Fatal("it is complete before it has everything")
				}
				a.found(m)
			}
			if done != 1 {
				t.Errorf("complete %d times, with %d left", done, c.expect.left)
			}
		})
	}
}

func TestLatenciesOfEachPeriodAndGroup(t *testing.T) {
	a := &arrival{tally: newTally(testRun), periods: [periods]period{{100, 200}, {200, endless}}}
	a.c = &connection{expect: sequences{next: []uint32{anywhere}}}
	for i, at := range []int64{99, 100, 199, 200, 5000} {
		a.now = at + 3_000_000
		a.found(Mark{Number: uint32(i), At: at})
	}
	a.c.group = returning
	a.found(Mark{Number: 5, At: 100})
	for g, want := range [groups][periods]int64{{2, 2}, {1, 0}} {
		for p := range want {
			if got := a.latency[g][p].summary().Count; got != want[p] {
				t.Errorf("group %d, period %d: %d events, want %d", g, p, got, want[p])
			}
		}
	}
	if got := a.latency[live][0].summary(); got.P50 < 2.99 || got.P50 > 3.01 {
		t.Errorf("3 ms are told as %v", got)
	}
}

func TestLatencySummary(t *testing.T) {
	var all [2]*latencies // as of two readers
	for i := range all {
		all[i] = newLatencies()
	}
	for ms := range 1000 {
		all[ms%2].record(int64(ms+1) * 1e6)
	}
	all[0].record(-5)         // clocks may do that
	all[0].record(3600 * 1e9) // more than it holds
	all[0].add(all[1])
	got := all[0].summary()
	near := func(got, want float64) bool { return got > want*0.995 && got < want*1.005 }
	if got.Count != 1002 || !near(got.P50, 500) || !near(got.P90, 901) || !near(got.P99, 991) || !near(got.Max, 600_000) {
		t.Errorf("%+v", got)
	}
}

func TestARunCountsOnlyIfAllIsRight(t *testing.T) {
	right := Result{Connect: Connect{Opened: 10}}
	right.judge(10)
	if right.Err() != nil {
		t.Errorf("a run without fault: %v", right.Err())
	}
	for _, e := range []Exactness{{Lost: 1}, {Duplicated: 1}, {Reordered: 1}, {Foreign: 1}, {Damaged: 1}, {Ended: 1}} {
		r := Result{Connect: Connect{Opened: 10}, Exactness: e}
		if r.judge(10); r.Err() == nil {
			t.Errorf("a run with %+v counts", e)
		}
	}
	few := Result{Connect: Connect{Opened: 9, Reasons: []string{"1 × refused"}}}
	if few.judge(10); few.Err() == nil || few.Err().Error() != "this run doesn't count: only 9 of 10 connections came to be open: 1 × refused" {
		t.Errorf("too few connections: %v", few.Err())
	}
}

func TestTheRatioToAFloor(t *testing.T) {
	floor := &Result{Mode: "floor", Deliveries: &Deliveries{PerCPUSecond: 200}}
	r := &Result{Mode: "sse", Deliveries: &Deliveries{PerCPUSecond: 150}}
	if err := r.CompareTo(floor, "floor.json"); err != nil || r.Ratio != 0.75 || r.RatioTo != "floor.json" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := r.CompareTo(r, "x"); err == nil {
		t.Error("what isn't a floor is taken for one")
	}
	if err := new(Result).CompareTo(floor, "x"); err == nil {
		t.Error("a run without a server's CPU has a ratio")
	}
}
