package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// running is a `streamgw dev` in this process.
type running struct {
	page                   string // what it printed
	gateway, admin, broker string // addresses
	stop                   func() error
}

// startDev runs `streamgw dev` on free ports and returns once it has printed its page.
func startDev(t *testing.T, change func(*developing)) running {
	t.Helper()
	d := developing{listen: "127.0.0.1:0", admin: "127.0.0.1:0", kafka: "127.0.0.1:0", every: 30 * time.Millisecond}
	if change != nil {
		change(&d)
	}
	printed, page := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		err := program{out: page, err: t.Output()}.dev(ctx, d)
		page.Close()
		ended <- err
	}()
	r := running{stop: sync.OnceValue(func() error {
		cancel()
		return <-ended
	})}
	t.Cleanup(func() { _ = r.stop() })
	lines := bufio.NewScanner(printed)
	for lines.Scan() {
		r.page += lines.Text() + "\n"
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			break
		}
	}
	find := func(expr string) string {
		found := regexp.MustCompile(expr).FindStringSubmatch(r.page)
		if found == nil {
			t.Fatalf("it didn't start: %v\n%s", r.stop(), r.page)
		}
		return found[1]
	}
	r.gateway, r.admin, r.broker = find(`\n  gateway +http://(\S+)`), find(`\n  admin +http://(\S+)`), find(`\n  broker +(\S+)`)
	return r
}

// run runs a command in this process.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, err bytes.Buffer
	code = program{strings.NewReader(stdin), &out, &err, nil}.run(ctx, args)
	if ctx.Err() != nil {
		t.Errorf("streamgw %s didn't end by itself", strings.Join(args, " "))
	}
	return code, out.String(), err.String()
}

// get returns the body of a short answer.
func get(t testing.TB, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestDevShowsEverything(t *testing.T) {
	dev := startDev(t, nil)
	t.Run("sample events flow in each topic", func(t *testing.T) {
		for _, s := range samples() {
			code, out, stderr := run(t, "", "tail", s.topic.Name, "--url", "http://"+dev.gateway, "--max", "3", "--json")
			if code != exitOK {
				t.Fatalf("tail ended with %d: %s", code, stderr)
			}
			for line := range strings.Lines(out) {
				var r struct {
					Key     string
					Headers [][]string
					Value   envelope
				}
				if err := json.Unmarshal([]byte(line), &r); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				if r.Key == "" || r.Value.EventType != s.eventType || r.Value.Source != s.source || len(r.Headers) != 3 || r.Headers[0][1] != s.eventType {
					t.Errorf("not an event of %s: %s", s.topic.Name, line)
				}
			}
		}
	})
	t.Run("there is something to look back at", func(t *testing.T) {
		code, out, stderr := run(t, "", "tail", "orders.order.placed", "--url", "http://"+dev.gateway, "--max", "5", "--from", "-4m")
		if code != exitOK || strings.Count(out, "order.placed.v1") != 5 {
			t.Errorf("code %d, %s%s", code, out, stderr)
		}
	})
	t.Run("what is published arrives", func(t *testing.T) {
		code, out, stderr := run(t, "one\ntwo\n", "publish", "users.user.created", "--brokers", dev.broker, "--key", "me", "--header", "event-type=test.said.v1")
		if code != exitOK || strings.Count(out, "users.user.created ") != 2 {
			t.Fatalf("code %d, %s%s", code, out, stderr)
		}
		code, out, stderr = run(t, "", "publish", "users.user.created", `{"three":3}`, "--brokers", dev.broker, "--key", "me", "--json")
		if code != exitOK || !strings.HasPrefix(out, `{"topic":"users.user.created","partition":`) {
			t.Fatalf("code %d, %s%s", code, out, stderr)
		}
		code, out, stderr = run(t, "", "tail", "users.user.created", "--url", "http://"+dev.gateway, "--key", "me", "--from", "earliest", "--max", "3")
		if code != exitOK {
			t.Fatal(stderr)
		}
		for i, want := range []string{"  me  one\n", "  me  two\n", "  me  {\"three\":3}\n"} {
			if lines := strings.SplitAfter(out, "\n"); !strings.HasSuffix(lines[i], want) {
				t.Errorf("got %q, want it to end in %q", lines[i], want)
			}
		}
		code, out, stderr = run(t, "", "tail", "users.user.created", "--url", "http://"+dev.gateway, "--type", "test.said.v1", "--from", "earliest", "--max", "1")
		if code != exitOK || !strings.HasSuffix(out, "  me  one\n") {
			t.Errorf("code %d, %s%s", code, out, stderr)
		}
	})
	t.Run("check says what would be served", func(t *testing.T) {
		code, out, stderr := run(t, "", "check", "--auth-mode=none", "--brokers", dev.broker)
		if code != exitOK || !strings.Contains(out, "answers, with 3 topics") || !strings.Contains(out, "  orders.order.placed    3 partitions  ") ||
			!strings.Contains(out, "everyone who reaches :8080 reads") {
			t.Errorf("code %d, %s%s", code, out, stderr)
		}
		code, out, stderr = run(t, "", "check", "--auth-mode=none", "--brokers", dev.broker, "--topic", "inventory.stock.level")
		if code != exitOK || !strings.Contains(out, "topic inventory.stock.level: served, by the entry **\n  partition 0: offsets from 0 up to ") {
			t.Errorf("code %d, %s%s", code, out, stderr)
		}
		if code, _, stderr = run(t, "", "check", "--auth-mode=none", "--brokers", dev.broker, "--topic", "__consumer_offsets"); code != exitFailure || !strings.Contains(stderr, "never served") {
			t.Errorf("code %d, %s", code, stderr)
		}
	})
	t.Run("operators see it", func(t *testing.T) {
		if ready := get(t, "http://"+dev.admin+"/readyz"); !strings.Contains(ready, `"ready":true`) {
			t.Error(ready)
		}
		if metrics := get(t, "http://"+dev.admin+"/metrics"); !strings.Contains(metrics, "\nstreamgw_") {
			t.Error("there are no metrics of ours")
		}
	})
	if err := dev.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestDevKeepsData(t *testing.T) {
	dir := t.TempDir()
	keep := func(d *developing) { d.data, d.noSample = dir, true }
	dev := startDev(t, keep)
	if !strings.Contains(dev.page, "records are in "+dir) {
		t.Errorf("the page doesn't say where records are:\n%s", dev.page)
	}
	if code, _, stderr := run(t, "", "publish", "orders.order.placed", "kept", "--brokers", dev.broker); code != exitOK {
		t.Fatal(stderr)
	}
	if err := dev.stop(); err != nil {
		t.Fatal(err)
	}
	dev = startDev(t, keep)
	code, out, stderr := run(t, "", "tail", "orders.order.placed", "--url", "http://"+dev.gateway, "--from", "earliest", "--max", "1")
	if code != exitOK || !strings.HasSuffix(out, "  -  kept\n") {
		t.Errorf("code %d, %s%s", code, out, stderr)
	}
}

func TestDevWhenPortsAreTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()

	t.Run("the broker's default", func(t *testing.T) {
		dev := startDev(t, func(d *developing) { d.kafka = address })
		if want := address + " is in use by another program, so the broker listens on " + dev.broker; !strings.HasPrefix(dev.page, want) {
			t.Errorf("it printed %q, want %q first", dev.page, want)
		}
		if !strings.Contains(dev.page, " --brokers "+dev.broker) {
			t.Error("what to try would go to another broker")
		}
	})
	for name, args := range map[string][]string{
		"--kafka-listen: another program listens on " + address:                                                        {"--kafka-listen", address, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"},
		"listen: another program listens on " + address + " already; choose another address with --listen":             {"--listen", address, "--admin-listen", "127.0.0.1:0"},
		"admin.listen: another program listens on " + address + " already; choose another address with --admin-listen": {"--listen", "127.0.0.1:0", "--admin-listen", address},
	} {
		t.Run(name, func(t *testing.T) {
			if code, _, stderr := run(t, "", append([]string{"dev"}, args...)...); code != exitFailure || !strings.HasPrefix(stderr, "streamgw: "+name) {
				t.Errorf("code %d, %s", code, stderr)
			}
		})
	}
}
