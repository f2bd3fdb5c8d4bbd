package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func figures(pairs ...map[string]float64) (runs []outcome) {
	for _, p := range pairs {
		runs = append(runs, outcome{figures: p})
	}
	return runs
}

func TestTheTableJudgesMedians(t *testing.T) {
	rows := []row{
		{name: "floor", what: "the floor", figures: []figure{shown(perCPUSecond, "")}},
		{name: "sse", what: "SSE", figures: []figure{atLeast(perCPUSecond, "floor", 0.85), atMost(p99, "ms", 20), atMost(groupsLeft, "", 0)}},
	}
	floor := figures(map[string]float64{perCPUSecond: 200_000}, map[string]float64{perCPUSecond: 100}, map[string]float64{perCPUSecond: 300_000})
	for name, tt := range map[string]struct {
		runs []outcome
		want string // the cells of the row, from what was measured
	}{
		"all reached":       {figures(map[string]float64{perCPUSecond: 180_000, p99: 17.23, groupsLeft: 0}), "180 k | 0.90 × floor | ≥ 0.85 × floor |  | yes\n17.2 ms |  | ≤ 20 ms |  | yes\n0 |  | 0 |  | yes"},
		"none reached":      {figures(map[string]float64{perCPUSecond: 1_600, p99: 170, groupsLeft: 3}), "1600 | 0.01 × floor | ≥ 0.85 × floor |  | **no**\n170 ms |  | ≤ 20 ms |  | **no**\n3 |  | 0 |  | **no**"},
		"the median of two": {figures(map[string]float64{perCPUSecond: 1e6, p99: 10}, map[string]float64{perCPUSecond: 2e6, p99: 20}), "1.50 M | 7.50 × floor | ≥ 0.85 × floor |  | yes\n15 ms |  | ≤ 20 ms |  | yes\n |  | 0 |  | "},
		"one of three failed": {
			append(figures(map[string]float64{perCPUSecond: 1e6}, map[string]float64{perCPUSecond: 1e6}), outcome{err: errors.New("3 lost\nand more")}),
			"FAILED | | | | 3 lost",
		},
		"not measured": {nil, " |  | ≥ 0.85 × floor |  | \n |  | ≤ 20 ms |  | \n |  | 0 |  | "},
	} {
		t.Run(name, func(t *testing.T) {
			text := table(rows, outcomes{"floor": floor, "sse": tt.runs})
			lines := strings.Split(strings.TrimSpace(text), "\n")[3:]
			var got []string
			for _, line := range lines {
				cells := strings.Split(strings.TrimSuffix(line, " |"), " | ")
				got = append(got, strings.Join(cells[2:], " | "))
			}
			if strings.Join(got, "\n") != tt.want {
				t.Errorf("got\n%s\nwant\n%s\nin\n%s", strings.Join(got, "\n"), tt.want, text)
			}
		})
	}
}

func TestBoundsFollowTheFloorDown(t *testing.T) {
	const half = referenceFloor / 2
	once := func(name string, v float64) []outcome { return figures(map[string]float64{name: v}) }
	for name, tt := range map[string]struct {
		floor []outcome
		f     figure
		value float64
		want  string // the cells: must reach, here, verdict
	}{
		"met as it stands":                 {once(perCPUSecond, half), atMost(p99, "ms", 20).scaled(), 20, "≤ 20 ms | ≤ 40 ms | yes"},
		"met by this machine's floor":      {once(perCPUSecond, half), atMost(p99, "ms", 20).scaled(), 39.9, "≤ 20 ms | ≤ 40 ms | yes, at this machine's floor"},
		"not met by it either":             {once(perCPUSecond, half), atMost(p99, "ms", 20).scaled(), 40.1, "≤ 20 ms | ≤ 40 ms | **no**"},
		"a rate that is met by it":         {once(perCPUSecond, half), figure{name: perSecond, must: bound{least: 5e6}}.scaled(), 2.5e6, "≥ 5.00 M | ≥ 2.50 M | yes, at this machine's floor"},
		"a rate that isn't":                {once(perCPUSecond, half), figure{name: perSecond, must: bound{least: 5e6}}.scaled(), 2.4e6, "≥ 5.00 M | ≥ 2.50 M | **no**"},
		"memory doesn't scale":             {once(perCPUSecond, half), atMost(idle, "KB", 6), 7, "≤ 6 KB |  | **no**"},
		"a faster machine tightens none":   {once(perCPUSecond, 2*referenceFloor), atMost(p99, "ms", 20).scaled(), 19, "≤ 20 ms |  | yes"},
		"nor does it loosen any":           {once(perCPUSecond, 2*referenceFloor), atMost(p99, "ms", 20).scaled(), 21, "≤ 20 ms |  | **no**"},
		"a floor that wasn't measured":     {nil, atMost(p99, "ms", 20).scaled(), 30, "≤ 20 ms |  | **no**"},
		"a floor that failed in one pass":  {append(once(perCPUSecond, half), outcome{err: errors.New("1 lost")}), atMost(p99, "ms", 20).scaled(), 30, "≤ 20 ms |  | **no**"},
		"a ratio that is met":              {once(perCPUSecond, half), atLeast(perCPUSecond, "other", 30).orOfFloor(0.64), 31_000, "≥ 30 × other | or ≥ 0.64 × floor-1 | yes"},
		"or so much of the floor":          {once(perCPUSecond, 40_000), atLeast(perCPUSecond, "other", 30).orOfFloor(0.64), 28_000, "≥ 30 × other | or ≥ 0.64 × floor-1 | yes, at 0.70 × floor-1"},
		"neither":                          {once(perCPUSecond, 40_000), atLeast(perCPUSecond, "other", 30).orOfFloor(0.64), 25_000, "≥ 30 × other | or ≥ 0.64 × floor-1 | **no**"},
		"a ratio, and no floor to go back": {nil, atLeast(perCPUSecond, "other", 30).orOfFloor(0.64), 28_000, "≥ 30 × other |  | **no**"},
	} {
		t.Run(name, func(t *testing.T) {
			all := outcomes{floorRow: tt.floor, "other": once(tt.f.name, 1000), "it": once(tt.f.name, tt.value)}
			text := table([]row{{name: "it", what: "a row", figures: []figure{tt.f}}}, all)
			lines := strings.Split(strings.TrimSpace(text), "\n")
			cells := strings.Split(strings.TrimSuffix(lines[2], " |"), " | ")
			if got := strings.Join(cells[4:], " | "); got != tt.want {
				t.Errorf("got %s, want %s, in\n%s", got, tt.want, text)
			}
			floor, known := all.floor()
			if scaled := all.scale() != ""; scaled != (known && floor < referenceFloor) {
				t.Errorf("beside the table: %q", all.scale())
			}
		})
	}
}

func TestARowBringsWhatItIsComparedWith(t *testing.T) {
	for names, want := range map[string][]string{
		"^sse-5000$":        {"floor-5000", "sse-5000"},
		"^grouped$":         {"floor-1", "grouper-kafkajs", "grouper", "floor-200", "grouped"},
		"keyed-10000":       {"keyed-1000", "keyed-10000"},
		"idle|^light$":      {"light", "idle-sse", "idle-ws"},
		"^ws-1000$|^idle-s": {"floor-1", "ws-1000", "idle-sse"},
	} {
		chosen, err := choose(rows(), names)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range chosen {
			got = append(got, r.name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", names, got, want)
		}
	}
	if _, err := choose(rows(), "^nothing$"); err == nil || !strings.Contains(err.Error(), "there are: floor-1 ") {
		t.Errorf("a name that no row has: got %v", err)
	}
}

func TestRowsAreComparedWithFiguresThatAreThere(t *testing.T) {
	all := rows()
	for i, r := range all {
		for _, f := range r.figures {
			if f.must.scales && (f.of != "" || f.unit == "KB" || f.must.none) {
				t.Errorf("%s: %s follows the floor, and is a ratio, memory or without a bound", r.name, f.name)
			}
			if f.of == "" {
				continue
			}
			of := slices.IndexFunc(all[:i], func(o row) bool { return o.name == f.of })
			if of < 0 || !slices.ContainsFunc(all[of].figures, func(o figure) bool { return o.name == f.name }) {
				t.Errorf("%s: no row before it is called %s and has %s", r.name, f.of, f.name)
			}
		}
	}
}

func TestTheHighestRateIsLookedFor(t *testing.T) {
	for limit, want := range map[int][]int{
		100:    {5100, 3750, 2500, 1000, 500, 250},
		600:    {5100, 3750, 2500, 1000, 500},
		4000:   {5100, 3750},
		5100:   {5100, 7500},
		8000:   {5100, 7500, 10_000},
		99_999: {5100, 7500, 10_000, 12_500},
	} {
		var tried []int
		if err := climb(func(rate int) (bool, error) { tried = append(tried, rate); return rate <= limit, nil }); err != nil || !slices.Equal(tried, want) {
			t.Errorf("with %d as the highest that is good it tries %v (%v), want %v", limit, tried, err, want)
		}
	}
	broken := errors.New("lost")
	tried := 0
	if err := climb(func(int) (bool, error) { tried++; return false, broken }); err != broken || tried != 1 {
		t.Errorf("after a run that wasn't exact it ends with %v, having tried %d", err, tried)
	}
}
