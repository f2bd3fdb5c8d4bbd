// Package harness runs the real product among real components for the scenarios in this folder: gateways as processes
// that can be killed and restarted, a Kafka cluster whose brokers can be, producers that number what they write, and
// resuming clients that check every number they are sent.
//
// A number says which series (topic), partition and place in it an event has, so that each client can see a loss, a
// repetition and a change of order by itself, at once. What a component can't provide fails the test that needs it.
package harness

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Root returns the repository's directory.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("the test doesn't run inside the repository")
	return ""
}

// Cache returns the directory in which fetched components and built programs are kept.
func Cache(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("STREAMGW_TEST_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(Root(t), ".cache")
}

// Script returns the path of a script in test/platform.
func Script(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(Root(t), "test", "platform", name)
}

// Until waits for a condition, and fails the test with what it waited for when the deadline passes.
func Until(t testing.TB, within time.Duration, what string, met func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", within, what)
		case <-tick.C:
		}
	}
}

// pause waits for d or until ctx ends. Clients stay away with it: how long is part of the scenario, not a wait for luck.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
