package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// counts are the samples of every count of every benchmark, in the order in which they were first seen.
type counts []benchmark

type benchmark struct {
	pkg, name string
	units     []unit
}

type unit struct {
	name    string
	samples []float64
}

// isCount reports whether a unit is counted rather than timed: so many of something for each of something else.
func isCount(unit string) bool {
	of, each, ok := strings.Cut(unit, "/")
	return ok && each != "s" && slices.Contains([]string{"B", "bytes", "allocs", "writes", "fetches", "goroutines"}, of)
}

// tolerance returns how much a count may grow: five in a hundred, and at least what one chance event makes of it. What
// allocates nothing must go on so.
func tolerance(unit string, base float64) float64 {
	least := 1.0
	switch {
	case unit == "allocs/op" && base == 0:
		least = 0
	case unit == "B/op":
		least = 64 // a slice that grew in another run
	case !strings.HasSuffix(unit, "/op"):
		least = 0.02 // these are fractions
	}
	return max(base/20, least)
}

// parse reads what go test -bench prints, and keeps the counts.
// https://go.dev/design/14313-benchmark-format
func parse(text []byte) (counts, error) {
	var all counts
	pkg := ""
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		if strings.Contains(line, "--- FAIL") {
			return nil, fmt.Errorf("a benchmark failed:\n%s", text)
		}
		if p, ok := strings.CutPrefix(line, "pkg: "); ok {
			pkg = p
		}
		fields := strings.Fields(line)
		if !strings.HasPrefix(line, "Benchmark") || len(fields) < 4 || len(fields)%2 != 0 {
			continue
		}
		b := all.find(pkg, fields[0])
		if b == nil {
			all = append(all, benchmark{pkg: pkg, name: fields[0]})
			b = &all[len(all)-1]
		}
		for i := 2; i < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
			if isCount(fields[i+1]) {
				b.add(fields[i+1], value)
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("there is no benchmark in it")
	}
	return all, nil
}

func (c counts) find(pkg, name string) *benchmark {
	i := slices.IndexFunc(c, func(b benchmark) bool { return b.pkg == pkg && b.name == name })
	if i < 0 {
		return nil
	}
	return &c[i]
}

func (b *benchmark) add(name string, value float64) {
	i := slices.IndexFunc(b.units, func(u unit) bool { return u.name == name })
	if i < 0 {
		b.units = append(b.units, unit{name: name})
		i = len(b.units) - 1
	}
	b.units[i].samples = append(b.units[i].samples, value)
}

// median returns the median of a unit, and whether the benchmark has it.
func (b *benchmark) median(name string) (float64, bool) {
	for _, u := range b.units {
		if u.name == name {
			sorted := slices.Sorted(slices.Values(u.samples))
			return sorted[len(sorted)/2], true
		}
	}
	return 0, false
}

// text writes the counts as go test does, without the machine: benchstat would else compare nothing with another one's.
func (c counts) text() []byte {
	var out bytes.Buffer
	pkg := ""
	for _, b := range c {
		if b.pkg != pkg {
			pkg = b.pkg
			fmt.Fprintf(&out, "pkg: %s\n", pkg)
		}
		for i := range b.units[0].samples {
			fmt.Fprintf(&out, "%s 1", b.name)
			for _, u := range b.units {
				if i < len(u.samples) {
					fmt.Fprintf(&out, " %s %s", strconv.FormatFloat(u.samples[i], 'f', -1, 64), u.name)
				}
			}
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

// compare returns everything that is worse than the baseline, or is in only one of both.
func compare(base, now counts) error {
	var worse []error
	complain := func(format string, args ...any) { worse = append(worse, fmt.Errorf(format, args...)) }
	for _, was := range base {
		is := now.find(was.pkg, was.name)
		if is == nil {
			complain("%s: is in the baseline and wasn't run", was.name)
			continue
		}
		for _, u := range was.units {
			from, _ := was.median(u.name)
			to, ok := is.median(u.name)
			switch may := tolerance(u.name, from); {
			case !ok:
				complain("%s: reports no %s any more", was.name, u.name)
			case to > from+may:
				complain("%s: %g %s, was %g and may grow by %.3g", was.name, to, u.name, from, may)
			}
		}
	}
	for _, is := range now {
		if base.find(is.pkg, is.name) == nil {
			complain("%s: isn't in the baseline yet: go run ./test/bench/kept -update", is.name)
		}
	}
	return errors.Join(worse...)
}
