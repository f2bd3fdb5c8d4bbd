package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// row is what is measured under one name.
type row struct {
	name    string
	what    string // the load
	figures []figure
	measure func(context.Context, *lab) (map[string]float64, error) // figures by their names
}

// figure is one number of a row.
type figure struct {
	name string
	unit string // "": a number that needs none
	of   string // the row whose figure of the same name it is a ratio of; "": none
	must bound
}

// bound is what a figure must reach: its ratio, if it is one of another row's, else itself.
type bound struct {
	least, most float64
	none        bool    // it is shown for comparison only
	scales      bool    // it is a time, CPU or a rate of the machine that bounds were set on, and follows the floor down
	ofFloor     float64 // at least so many times the floor is enough too; 0: no such way out
}

// The floor is the row that tells machines apart, and what it gave on the machine that bounds were set on.
const (
	floorRow       = "floor-1"
	referenceFloor = 212_000
)

// scaled returns the figure with a bound that holds for the machine where it was set, and is scaled on slower ones.
func (f figure) scaled() figure {
	f.must.scales = true
	return f
}

// orOfFloor returns the figure with a bound that is also met by at least so many times the floor.
func (f figure) orOfFloor(times float64) figure {
	f.must.ofFloor = times
	return f
}

// table returns Markdown: a line for each figure of each row.
func table(rows []row, all outcomes) string {
	var out strings.Builder
	out.WriteString("| row | what | measured | ratio | must reach | here | |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		if failed := all.failed(r.name); failed != "" {
			fmt.Fprintf(&out, "| `%s` | %s | FAILED | | | | %s |\n", r.name, r.what, failed)
			continue
		}
		for i, f := range r.figures {
			name, what := "`"+r.name+"`", r.what+": "+f.name
			if i > 0 {
				name, what = "", f.name
			}
			measured, ratio, verdict := all.judge(r.name, f)
			fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %s | %s |\n", name, what, measured, ratio, f.must.text(f), all.here(f), verdict)
		}
	}
	return out.String()
}

// failed says why a row has no figures: one run that wasn't exact is enough.
func (all outcomes) failed(name string) string {
	for _, o := range all[name] {
		if o.err != nil {
			return strings.ReplaceAll(strings.SplitN(o.err.Error(), "\n", 2)[0], "|", "/")
		}
	}
	return ""
}

// judge returns the cells of a figure.
func (all outcomes) judge(name string, f figure) (measured, ratio, verdict string) {
	value, ok := all.median(name, f.name)
	if !ok {
		return "", "", ""
	}
	measured = number(value, f.unit)
	if f.of != "" {
		base, ok := all.median(f.of, f.name)
		if !ok || base == 0 {
			return measured, "needs " + f.of, ""
		}
		value /= base
		ratio = fmt.Sprintf("%.*f × %s", decimals(value), value, f.of)
	}
	return measured, ratio, all.verdict(name, f, value)
}

// verdict says whether a value is within its bound, and if not as it stands, then by the floor of this machine.
func (all outcomes) verdict(name string, f figure, value float64) string {
	floor, known := all.floor()
	switch {
	case f.must.none:
		return ""
	case f.must.holds(value):
		return "yes"
	case known && f.must.scales && f.must.slower(floor).holds(value):
		return "yes, at this machine's floor"
	case known && f.must.ofFloor > 0:
		if plain, _ := all.median(name, f.name); plain >= f.must.ofFloor*floor {
			return fmt.Sprintf("yes, at %.2f × %s", plain/floor, floorRow)
		}
	}
	return "**no**"
}

// here returns the bound that holds on this machine, where that is another than the bound itself.
func (all outcomes) here(f figure) string {
	floor, known := all.floor()
	switch {
	case !known:
		return ""
	case f.must.ofFloor > 0:
		return fmt.Sprintf("or ≥ %g × %s", f.must.ofFloor, floorRow)
	case f.must.scales && floor < referenceFloor:
		return f.must.slower(floor).text(f)
	}
	return ""
}

// scale says by how much bounds were scaled, if any were.
func (all outcomes) scale() string {
	floor, known := all.floor()
	if !known || floor >= referenceFloor {
		return ""
	}
	return fmt.Sprintf(" Its floor is %.2f of the %s that bounds were set on: a bound under \"here\" is scaled by that, and a yes by it says so.",
		floor/referenceFloor, number(referenceFloor, ""))
}

// floor returns this machine's floor, if every pass measured it.
func (all outcomes) floor() (float64, bool) {
	if all.failed(floorRow) != "" {
		return 0, false
	}
	floor, ok := all.median(floorRow, perCPUSecond)
	return floor, ok && floor > 0
}

func (b bound) holds(value float64) bool {
	if b.least > 0 {
		return value >= b.least
	}
	return value <= b.most
}

// slower returns the bound for a machine with such a floor. For one that is faster than the reference it stays.
func (b bound) slower(floor float64) bound {
	part := min(1, floor/referenceFloor)
	b.least, b.most = b.least*part, b.most/part
	return b
}

// median returns the median of a figure over all passes of its row.
func (all outcomes) median(row, name string) (float64, bool) {
	var values []float64
	for _, o := range all[row] {
		if v, ok := o.figures[name]; ok && o.err == nil {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2, true
	}
	return values[middle], true
}

// text returns a bound as the table shows it.
func (b bound) text(f figure) string {
	switch {
	case b.none:
		return ""
	case f.of != "" && b.least > 0:
		return fmt.Sprintf("≥ %g × %s", b.least, f.of)
	case f.of != "":
		return fmt.Sprintf("≤ %g × %s", b.most, f.of)
	case b.least > 0:
		return "≥ " + number(b.least, f.unit)
	case b.most == 0:
		return "0"
	}
	return "≤ " + number(b.most, f.unit)
}

// number writes a value with three digits that count, and its unit.
func number(v float64, unit string) string {
	if unit != "" {
		unit = " " + unit
	}
	switch {
	case v >= 999_500 && unit == "":
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 10_000 && unit == "":
		return fmt.Sprintf("%.0f k", v/1e3)
	case v == float64(int64(v)):
		return strconv.FormatInt(int64(v), 10) + unit
	}
	return fmt.Sprintf("%.*f%s", decimals(v), v, unit)
}

func decimals(v float64) int {
	switch {
	case v >= 100:
		return 0
	case v >= 10:
		return 1
	}
	return 2
}
