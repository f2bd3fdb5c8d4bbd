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
		"all reached":       {figures(map[string]float64{perCPUSecond: 180_000, p99: 17.23, groupsLeft: 0}), "180 k | 0.90 × floor | ≥ 0.85 × floor | yes\n17.2 ms |  | ≤ 20 ms | yes\n0 |  | 0 | yes"},
		"none reached":      {figures(map[string]float64{perCPUSecond: 1_600, p99: 170, groupsLeft: 3}), "1600 | 0.01 × floor | ≥ 0.85 × floor | **no**\n170 ms |  | ≤ 20 ms | **no**\n3 |  | 0 | **no**"},
		"the median of two": {figures(map[string]float64{perCPUSecond: 1e6, p99: 10}, map[string]float64{perCPUSecond: 2e6, p99: 20}), "1.50 M | 7.50 × floor | ≥ 0.85 × floor | yes\n15 ms |  | ≤ 20 ms | yes\n |  | 0 | "},
		"one of three failed": {
			append(figures(map[string]float64{perCPUSecond: 1e6}, map[string]float64{perCPUSecond: 1e6}), outcome{err: errors.New("3 lost\nand more")}),
			"FAILED | | | 3 lost",
		},
		"not measured": {nil, " |  | ≥ 0.85 × floor | \n |  | ≤ 20 ms | \n |  | 0 | "},
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

func TestARowBringsWhatItIsComparedWith(t *testing.T) {
	for names, want := range map[string][]string{
		"^sse-5000$":    {"floor-5000", "sse-5000"},
		"^grouped$":     {"grouper-kafkajs", "grouper", "grouped"},
		"keyed-10000":   {"keyed-1000", "keyed-10000"},
		"idle|^light$":  {"light", "idle-sse", "idle-ws"},
		"^ws-1000$|-10": {"floor-1", "sse-1000", "ws-1000", "sse-1000-gather", "ws-1000-gather", "floor-10", "keyed-1000", "keyed-10000"},
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
		100:    {5000, 2500, 1000, 500, 250},
		600:    {5000, 2500, 1000, 500},
		5000:   {5000, 7500},
		8000:   {5000, 7500, 10_000},
		99_999: {5000, 7500, 10_000, 12_500},
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
