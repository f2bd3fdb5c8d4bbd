package main

import (
	"os"
	"strings"
	"testing"
)

const was = `goos: linux
pkg: example.org/fanout
cpu: some
BenchmarkFanout/1000 	 200	 73235 ns/op	 13654626 deliveries/s	 1451 B/op	 12 allocs/op
BenchmarkFanout/1000 	 200	 98765 ns/op	 10000000 deliveries/s	 1453 B/op	 12 allocs/op
BenchmarkFanout/1000 	 200	 73235 ns/op	 13654626 deliveries/s	 1452 B/op	 12 allocs/op
PASS
pkg: example.org/gateway
BenchmarkWrites 	 1000	 500 ns/op	 0.1 writes/delivery	 35 cpu-µs/event	 5 fetches/s	 2.9 p50-ms	 6200 bytes/connection	 0 B/op	 0 allocs/op
`

func TestACountThatGrowsIsAFailure(t *testing.T) {
	for name, tt := range map[string]struct {
		from, to string // what differs from the baseline
		want     string // part of the complaint; "" is none
	}{
		"nothing changed":                        {"", "", ""},
		"slower is no failure":                   {" 73235 ns/op", " 9973235 ns/op", ""},
		"an allocation more, within one":         {" 12 allocs/op", " 13 allocs/op", ""},
		"two allocations more":                   {" 12 allocs/op", " 14 allocs/op", "BenchmarkFanout/1000: 14 allocs/op, was 12"},
		"fewer is no failure":                    {" 12 allocs/op", " 2 allocs/op", ""},
		"bytes within five in a hundred":         {" 6200 bytes/connection", " 6500 bytes/connection", ""},
		"bytes beyond it":                        {" 6200 bytes/connection", " 6520 bytes/connection", "BenchmarkWrites: 6520 bytes/connection, was 6200"},
		"a fraction grows by a half":             {"0.1 writes/delivery", "0.15 writes/delivery", "BenchmarkWrites: 0.15 writes/delivery, was 0.1"},
		"one sample of three is an outlier":      {" 1453 B/op\t 12 allocs/op", " 9999 B/op\t 99 allocs/op", ""},
		"allocates where it didn't":              {" 0 B/op\t 0 allocs/op", " 16 B/op\t 1 allocs/op", "BenchmarkWrites: 1 allocs/op, was 0"},
		"a count isn't reported any more":        {"\t 0.1 writes/delivery", "", "BenchmarkWrites: reports no writes/delivery any more"},
		"a benchmark isn't run any more":         {"BenchmarkWrites", "BenchmarkOther", "BenchmarkWrites: is in the baseline and wasn't run"},
		"a benchmark isn't in the baseline":      {"BenchmarkWrites", "BenchmarkOther", "BenchmarkOther: isn't in the baseline yet"},
		"the same name in another package":       {"example.org/gateway", "example.org/other", "BenchmarkWrites: is in the baseline and wasn't run"},
		"the machine's name is another":          {"cpu: some", "cpu: other", ""},
		"CPU time is no count":                   {" 35 cpu-µs/event", " 350 cpu-µs/event", ""},
		"nor is a rate":                          {" 5 fetches/s", " 50 fetches/s", ""},
		"the same, where deliveries a second is": {" 13654626 deliveries/s", " 1 deliveries/s", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(was, tt.from) {
				t.Fatalf("%q isn't in the baseline of this test", tt.from)
			}
			base, now := mustParse(t, was), mustParse(t, strings.ReplaceAll(was, tt.from, tt.to))
			err := compare(base, now)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestTheBaselineIsWrittenAsItIsRead(t *testing.T) {
	counts := mustParse(t, was)
	again := mustParse(t, string(counts.text()))
	if string(again.text()) != string(counts.text()) || compare(counts, again) != nil {
		t.Errorf("read back\n%s, want\n%s", again.text(), counts.text())
	}
	for _, unwanted := range []string{"ns/op", "deliveries/s", "cpu:"} {
		if strings.Contains(string(counts.text()), unwanted) {
			t.Errorf("the baseline has %s:\n%s", unwanted, counts.text())
		}
	}
}

func TestEveryBenchmarkOfTheBaselineHasACount(t *testing.T) {
	text, err := os.ReadFile("baseline.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range mustParse(t, string(text)) {
		if len(b.units) == 0 {
			t.Errorf("%s has none", b.name)
		}
	}
}

func mustParse(t *testing.T, text string) counts {
	t.Helper()
	counts, err := parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return counts
}
