package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/bench"
)

// benched runs a bench that must count, and returns its result.
func benched(t *testing.T, args ...string) (r bench.Result) {
	t.Helper()
	code, out, stderr := run(t, "", append([]string{"bench"}, append(args, "--json")...)...)
	if code != exitOK {
		t.Fatalf("code %d: %s%s", code, out, stderr)
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}

func TestBench(t *testing.T) {
	dev := startDev(t, func(d *developing) { d.noSample = true })
	server := []string{"--url", "http://" + dev.gateway, "--conns", "50", "--pid", fmt.Sprint("dev=", os.Getpid())}
	kafka := []string{"--brokers", dev.broker, "--metrics-url", "http://" + dev.admin + "/metrics"}
	steady := []string{"--rate", "200", "--duration", "500ms", "--warmup", "100ms"}
	join := func(all ...[]string) (args []string) {
		for _, a := range all {
			args = append(args, a...)
		}
		return args
	}
	for _, args := range [][]string{{"sse"}, {"ws"}, {"keyed"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			r := benched(t, join(args, server, kafka, steady)...)
			want := uint64(r.Published.Events)
			if args[0] != "keyed" {
				want *= 50
			}
			if d := r.Deliveries; want < 50 || d.Received != want || d.Expected != want || r.Connect.Opened != 50 || r.Latency.Count == 0 || r.Processes[0].Name != "dev" {
				t.Errorf("%+v %+v %+v %+v", d, r.Connect, r.Latency, r.Processes)
			}
		})
	}
	for _, transport := range []string{"sse", "ws"} {
		t.Run("resume "+transport, func(t *testing.T) {
			r := benched(t, join([]string{"resume", "--transport", transport, "--behind", "200"}, server, kafka)...)
			if r.Resume.Completed != 50 || r.Metrics[`streamgw_replays_total{source="window"}`] != 50 || r.Resume.CPUSeconds < 0 {
				t.Errorf("%+v, %v", r.Resume, r.Metrics)
			}
		})
		t.Run("idle "+transport, func(t *testing.T) {
			r := benched(t, join([]string{"idle", "--transport", transport, "--settle", "100ms"}, server)...)
			if r.Connect.Opened != 50 || r.Processes[0].Connected.RSS == 0 {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("resume in two steps", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "left.json")
		benched(t, join([]string{"resume", "--behind", "100", "--save", file}, server, kafka)...)
		if r := benched(t, join([]string{"resume", "--from", file, "--cold"}, server)...); r.Resume.Completed != 50 || r.Resume.Behind != 100 || !r.Resume.Cold {
			t.Errorf("%+v", r.Resume)
		}
	})
	t.Run("storm", func(t *testing.T) {
		r := benched(t, join([]string{"storm", "--storm-conns", "40", "--behind", "100"}, server, kafka, steady)...)
		if r.Storm.Completed != 40 || r.Storm.During.Count == 0 {
			t.Errorf("%+v", r.Storm)
		}
	})
	t.Run("a table to read", func(t *testing.T) {
		code, out, stderr := run(t, "", join([]string{"bench", "sse", "--progress"}, server, kafka, steady, []string{"--duration", "1s"})...)
		if code != exitOK || !strings.Contains(out, "0 lost, 0 repeated") || !strings.Contains(stderr, " of 50 open ") {
			t.Errorf("code %d: %s%s", code, out, stderr)
		}
	})
	t.Run("a topic that isn't there", func(t *testing.T) {
		code, _, stderr := run(t, "", join([]string{"bench", "sse", "--topic", "no.such"}, server, kafka)...)
		if code != exitFailure || !strings.HasPrefix(stderr, "streamgw: --topic: there is no topic no.such") {
			t.Errorf("code %d: %s", code, stderr)
		}
	})
}

func TestBenchFloor(t *testing.T) {
	t.Setenv(asProgram, "1") // the writing process is this binary
	floor := benched(t, "floor", "--conns", "50", "--rate", "200", "--duration", "500ms", "--warmup", "100ms", "--batch", "4")
	if floor.Deliveries.Received != floor.Deliveries.Expected || floor.Deliveries.Expected < 50*100 || floor.Processes[0].PID == os.Getpid() || floor.Batch != 4 {
		t.Errorf("%+v", floor)
	}
	if floor.Deliveries.PerCPUSecond == 0 {
		floor.Deliveries.PerCPUSecond = 1e6 // it took less than a clock tick
	}
	file := filepath.Join(t.TempDir(), "floor.json")
	raw, err := json.Marshal(floor)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	dev := startDev(t, func(d *developing) { d.noSample = true })
	r := benched(t, "sse", "--url", "http://"+dev.gateway, "--brokers", dev.broker, "--conns", "50", "--rate", "1000", "--duration", "1s",
		"--warmup", "100ms", "--pid", fmt.Sprint(os.Getpid()), "--ratio-to", file)
	if want := r.Deliveries.PerCPUSecond / floor.Deliveries.PerCPUSecond; r.Ratio != want || r.Ratio <= 0 || r.RatioTo != file {
		t.Errorf("the ratio is %v, want %v", r.Ratio, want)
	}
}

func TestBenchOfAServerThatLosesEvents(t *testing.T) {
	dev := startDev(t, func(d *developing) { d.noSample = true })
	deaf := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, ": nothing will come\nid: 0\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer deaf.Close()
	code, out, stderr := run(t, "", "bench", "sse", "--url", "http://"+dev.gateway, "--url", deaf.URL, "--brokers", dev.broker,
		"--conns", "2", "--rate", "100", "--duration", "200ms", "--warmup", "0", "--drain", "300ms")
	if code != exitFailure || !strings.HasPrefix(stderr, "streamgw: this run doesn't count: ") || !strings.Contains(stderr, " deliveries were lost") || !strings.Contains(out, "never got") {
		t.Errorf("code %d: %s%s", code, out, stderr)
	}
}

func TestBenchThatCannotBe(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other.json")
	if err := os.WriteFile(other, []byte(`{"a":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	floor := filepath.Join(t.TempDir(), "floor.json")
	if err := os.WriteFile(floor, []byte(`{"mode":"floor","deliveries":{"perCpuSecond":1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		`--transport: "tcp" is neither`:        {"keyed", "--transport", "tcp"},
		`--pid: "x" is neither`:                {"sse", "--pid", "x"},
		`--ratio-to: open no.such`:             {"sse", "--ratio-to", "no.such"},
		`--ratio-to: ` + other + ` isn't`:      {"sse", "--ratio-to", other},
		`--ratio-to: say with --pid`:           {"sse", "--ratio-to", floor},
		`--conns: -3 isn't`:                    {"sse", "--conns", "-3"},
		`--first: 100 isn't`:                   {"sse", "--conns", "100", "--first", "100"},
		`--url: "x" isn't`:                     {"ws", "--url", "x"},
		`--readers: 100000000 isn't`:           {"floor", "--readers", "100000000"},
		`--conns: 100000000 is more`:           {"floor", "--conns", "100000000"},
		`--publish-url: "x" isn't`:             {"sse", "--publish-url", "x"},
		`--cold goes with --from`:              {"resume", "--cold"},
		`unknown command "sees"; did you mean`: {"sees"},
	} {
		code, _, stderr := run(t, "", append([]string{"bench"}, args...)...)
		if code != exitUsage || !strings.HasPrefix(stderr, "streamgw: "+want) {
			t.Errorf("%v: code %d, %s", args, code, stderr)
		}
	}
}
