// Command kept holds benchmarks to the counts that they had: allocations, bytes, writes a delivery, fetches. A count is
// the same on a busy machine as on a quiet one, so it can fail a build; a time can't, and isn't looked at.
//
//	go run ./test/bench/kept            runs the benchmarks, shows them beside the baseline (benchstat), and fails
//	                                    when one of their counts grew by more than its tolerance
//	go run ./test/bench/kept -update    writes the baseline anew: with a change that costs more, and says why
//
// The baseline is committed, since a clean checkout may have no history to compare with.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// suite is benchmarks of one package that are kept.
type suite struct {
	pkg   string
	bench string // what go test -bench takes
	times string // what each is repeated, as -benchtime takes it: fixed, so that counts are the same every time
}

// suites are the benchmarks that are kept. One that isn't named here is for developers only.
func suites() []suite {
	return []suite{
		{"./internal/kafka", "^Benchmark(Answer|Records)$", "1000x"},
		{"./internal/fanout", "^Benchmark(Fanout|FanoutOfBlocks|OwnKey)$", "200x"},
		{"./internal/gateway", "^Benchmark(Encode|Pass)$", "1000x"},
		{"./cmd/streamgw", "^BenchmarkDelivery$", "20x"},
		{"./cmd/streamgw", "^BenchmarkIdleConnection$", "1x"},
	}
}

// samples is how often each benchmark is run: benchstat wants six to say anything.
const samples = "6"

func main() {
	baseline := flag.String("baseline", filepath.Join("test", "bench", "kept", "baseline.txt"), "file of the counts to compare with")
	update := flag.Bool("update", false, "write the baseline anew")
	flag.Parse()
	if err := run(*baseline, *update); err != nil {
		fmt.Fprintln(os.Stderr, "kept:", err)
		os.Exit(1)
	}
}

func run(baseline string, update bool) error {
	now, err := measure()
	if err != nil {
		return err
	}
	if update {
		return os.WriteFile(baseline, now.text(), 0o644)
	}
	text, err := os.ReadFile(baseline)
	if err != nil {
		return err
	}
	base, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", baseline, err)
	}
	if err := show(baseline, now); err != nil {
		return err
	}
	return compare(base, now)
}

// measure runs the benchmarks. One processor, so that counts don't depend on how many there are.
func measure() (all counts, err error) {
	for _, s := range suites() {
		cmd := exec.Command("go", "test", "-run", "^$", "-bench", s.bench, "-benchtime", s.times, "-cpu", "1", "-count", samples, s.pkg)
		text, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", cmd, err, text)
		}
		some, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cmd, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// show prints benchstat's table of both.
func show(baseline string, now counts) error {
	dir, err := os.MkdirTemp("", "kept")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	current := filepath.Join(dir, "now.txt")
	if err := os.WriteFile(current, now.text(), 0o600); err != nil {
		return err
	}
	cmd := exec.Command("go", "tool", "benchstat", "baseline="+baseline, "now="+current)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
