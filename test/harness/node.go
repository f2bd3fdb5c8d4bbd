package harness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// NodeClient is a program of test/clients: a client library that isn't ours, which prints what it is given.
type NodeClient struct {
	Ledger *Ledger

	t      testing.TB
	mu     sync.Mutex // guards what follows
	opened int
	fault  error
	errors bytes.Buffer
}

// StartNodeClient runs a program of test/clients until the test ends.
func StartNodeClient(t testing.TB, script, url string) *NodeClient {
	t.Helper()
	Prepare(t, "node-modules")
	cmd := exec.Command("node", filepath.Join(Root(t), "test", "clients", script), url)
	c := &NodeClient{Ledger: NewLedger(), t: t}
	cmd.Stderr = lockedWriter{&c.mu, &c.errors}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			c.line(lines.Bytes())
		}
		c.wrong(fmt.Errorf("%s ended", script))
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("errors of %s:\n%s", script, tail(c.errors.Bytes(), 4<<10))
		}
	})
	return c
}

// line enters what a client prints: name, position and the data as a JSON string.
func (c *NodeClient) line(line []byte) {
	fields := bytes.SplitN(line, []byte(" "), 3)
	var data string
	if len(fields) != 3 || json.Unmarshal(fields[2], &data) != nil {
		c.wrong(fmt.Errorf("printed %q", line))
		return
	}
	switch string(fields[0]) {
	case "open":
		c.mu.Lock()
		c.opened++
		c.mu.Unlock()
	case "message":
		n, err := ParseNumber([]byte(data))
		if err == nil {
			err = c.Ledger.Take(n)
		}
		if err != nil {
			c.wrong(err)
		}
	case "gap":
		c.wrong(fmt.Errorf("a gap where nothing was lost: %s", data))
	}
}

// wrong keeps the first fault.
func (c *NodeClient) wrong(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault == nil {
		c.fault = err
	}
}

// WaitOpened waits until the client has opened n streams in all.
func (c *NodeClient) WaitOpened(n int) {
	c.t.Helper()
	Until(c.t, time.Minute, fmt.Sprintf("%d streams were opened", n), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.fault != nil {
			c.t.Fatal(c.fault)
		}
		return c.opened >= n
	})
}

// WaitCount waits until the client has printed n numbers in all.
func (c *NodeClient) WaitCount(n int64) {
	c.t.Helper()
	Until(c.t, time.Minute, fmt.Sprintf("%d numbers came", n), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.fault != nil {
			c.t.Fatal(c.fault)
		}
		return c.Ledger.Count() >= n
	})
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

// Prepare runs a script of test/platform that installs a component, and fails the test with the reason when it can't
// be had. It returns what the script prints.
func Prepare(t testing.TB, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command(Script(t, script), args...)
	cmd.Env = append(os.Environ(), "STREAMGW_TEST_CACHE="+Cache(t))
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("platform/%s: %v\n%s", script, err, problems.Bytes())
	}
	return string(bytes.TrimSpace(out))
}
