package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program under test. Its output is kept, and shown when the test fails.
type Process struct {
	t    testing.TB
	name string
	args []string
	env  []string
	log  string

	mu   sync.Mutex // guards what follows
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	want bool          // that it runs: an end meanwhile is a failure
}

// StartProcess runs a program until the test ends, when it is killed. An end before that which the test didn't ask
// for fails the test.
func StartProcess(t testing.TB, name string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, name: name, args: args, env: env, log: filepath.Join(t.TempDir(), name+".log")}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, tail(p.Log(), 16<<10))
		}
	})
	p.Start()
	return p
}

// Start runs the program again after Kill or Terminate.
func (p *Process) Start() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives a test that dies
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.done, p.want = cmd, done, true
	p.mu.Unlock()
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		unexpected := p.want && p.cmd == cmd
		p.mu.Unlock()
		close(done)
		if unexpected {
			p.t.Errorf("%s ended by itself: %v", p.name, err)
		}
	}()
}

// Kill ends the program with SIGKILL and waits for its end.
func (p *Process) Kill() { p.signal(syscall.SIGKILL, time.Minute) }

// Terminate ends the program with SIGTERM, as an orchestrator does, and fails the test when that takes too long.
func (p *Process) Terminate(within time.Duration) {
	p.t.Helper()
	if !p.signal(syscall.SIGTERM, within) {
		p.t.Errorf("%s still runs %v after SIGTERM", p.name, within)
	}
}

func (p *Process) signal(s os.Signal, within time.Duration) bool {
	p.mu.Lock()
	p.want = false
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	_ = cmd.Process.Signal(s) // it may have ended already
	select {
	case <-done:
		return true
	case <-time.After(within):
		return false
	}
}

// Running reports whether the program runs.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// PID returns the process id of the program's current run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Log returns what the program has written so far, over all its runs.
func (p *Process) Log() []byte {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Appendf(nil, "(%v)", err)
	}
	return b
}

// tail returns the last n bytes of b, from the start of a line.
func tail(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	b = b[len(b)-n:]
	return b[bytes.IndexByte(b, '\n')+1:]
}
