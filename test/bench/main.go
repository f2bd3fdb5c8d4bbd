// Command bench measures the table of docs/performance.md: it starts a real Kafka, and for each row a gateway of this
// tree, loads it with `streamgw bench`, and prints what came out beside the machine's own floor and beside what must be
// reached. It fails when a run wasn't exact or couldn't be made; a figure out of bounds is only said.
//
//	go run ./test/bench                          every row once, in ten minutes at most
//	go run ./test/bench -rows 'floor|sse' -runs 3    those whose names match, and what they are compared with, three times: medians
//	go run ./test/bench -list                    the rows
//
// What each run said stays as JSON in the results' directory, and the table beside it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	names := flag.String("rows", ".", "regular expression of the names of rows")
	runs := flag.Int("runs", 1, "passes over all rows; figures are the medians of them")
	results := flag.String("results", filepath.Join(".cache", "bench"), "directory for what each run said")
	list := flag.Bool("list", false, "print the rows and what they must reach, and measure nothing")
	flag.Parse()
	chosen, err := choose(rows(), *names)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case *list:
		fmt.Print(table(chosen, nil))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, chosen, *runs, *results); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// choose returns the rows whose names match and those that they are compared with, in their order.
func choose(all []row, names string) (chosen []row, err error) {
	match, err := regexp.Compile(names)
	if err != nil {
		return nil, err
	}
	var known []string
	wanted := map[string]bool{}
	for _, r := range all {
		known = append(known, r.name)
		if !match.MatchString(r.name) {
			continue
		}
		wanted[r.name] = true
		for _, f := range r.figures {
			wanted[f.of] = true
			if f.must.ofFloor > 0 {
				wanted[floorRow] = true
			}
		}
	}
	for _, r := range all {
		if wanted[r.name] {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no row is called %q; there are: %s", names, strings.Join(known, " "))
	}
	return chosen, nil
}

// run measures rows in passes, so that what is compared is measured close together, and prints the table.
func run(ctx context.Context, chosen []row, runs int, results string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	results, err = filepath.Abs(filepath.Join(results, time.Now().UTC().Format("20060102-150405")))
	if err != nil {
		return err
	}
	l, err := openLab(ctx, root, results)
	if err != nil {
		return err
	}
	defer l.Close()
	began := time.Now()
	all := outcomes{}
	for l.pass = 1; l.pass <= runs; l.pass++ {
		for _, r := range chosen {
			fmt.Fprintf(os.Stderr, "%6s  pass %d  %s: %s\n", time.Since(began).Round(time.Second), l.pass, r.name, r.what)
			l.row, l.runs = r.name, 0
			figures, err := r.measure(ctx, l)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "        FAILED: %v\n", err)
			}
			all[r.name] = append(all[r.name], outcome{figures, err})
		}
	}
	text := l.machine(ctx, runs, time.Since(began)) + all.scale() + "\n\n" + table(chosen, all)
	fmt.Print(text)
	if err := os.WriteFile(filepath.Join(results, "table.md"), []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "kept in", results)
	return all.failures()
}

// outcome is what a row gave in one pass: figures by their names, or why there are none.
type outcome struct {
	figures map[string]float64
	err     error
}

// outcomes are those of all passes, by the row's name.
type outcomes map[string][]outcome

// failures returns what failed, if anything did.
func (all outcomes) failures() error {
	var failed []error
	for name, runs := range all {
		for _, o := range runs {
			if o.err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", name, o.err))
			}
		}
	}
	return errors.Join(failed...)
}
