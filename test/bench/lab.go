package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// lab is what rows are measured with: a real Kafka of one broker, programs built from this tree, and what they say.
type lab struct {
	root    string // the repository
	dir     string // what is removed in the end
	results string // what each run said, as JSON
	brokers string // the bootstrap list
	kafka   *kgo.Client
	topics  int     // how many were made
	others  float64 // cores that other programs took, at most, while a row was measured

	// What is measured now: a pass over all rows, from 1; the row; and how often it has run streamgw bench.
	pass int
	row  string
	runs int
}

// openLab builds the programs and starts Kafka. Close ends it.
func openLab(ctx context.Context, root, results string) (_ *lab, err error) {
	l := &lab{root: root, results: results}
	if l.dir, err = os.MkdirTemp("", "streamgw-bench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	for _, program := range []string{"./cmd/streamgw", "./test/bench/grouper"} {
		if err := l.do(ctx, "go", "build", "-o", l.dir+"/", program); err != nil {
			return nil, err
		}
	}
	port, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	out, err := l.output(ctx, "test/platform/kafka", "start", filepath.Join(l.dir, "kafka"), "1", fmt.Sprint(port))
	if err != nil {
		return nil, err
	}
	l.brokers = strings.TrimSpace(out)
	l.kafka, err = kgo.NewClient(kgo.SeedBrokers(l.brokers))
	return l, err
}

// Close ends Kafka and removes what the lab made, but for the results.
func (l *lab) Close() {
	if l.kafka != nil {
		l.kafka.Close()
	}
	_ = l.do(context.Background(), "test/platform/kafka", "stop", filepath.Join(l.dir, "kafka"))
	_ = os.RemoveAll(l.dir)
}

// do runs a command in the repository and returns an error with what it said.
func (l *lab) do(ctx context.Context, args ...string) error {
	_, err := l.output(ctx, args...)
	return err
}

func (l *lab) output(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = l.root
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	// A broker that the command leaves running has none of its pipes: see test/platform/kafka.
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, out, complaint.Bytes())
	}
	return string(out), nil
}

// kafkaPID returns the broker's process.
func (l *lab) kafkaPID() string {
	pid, err := os.ReadFile(filepath.Join(l.dir, "kafka", "1.pid"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(pid))
}

// partitions is how many each topic has.
const partitions = 3

// newTopic makes a topic that no other row has.
func (l *lab) newTopic(ctx context.Context) (string, error) {
	l.topics++
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 20_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = fmt.Sprintf("bench.t%d.sent", l.topics), partitions, 1
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, l.kafka)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		return "", fmt.Errorf("create %s: %w", t.Topic, err)
	}
	return t.Topic, nil
}

// groups returns how many consumer groups the broker keeps.
func (l *lab) groups(ctx context.Context) (int, error) {
	resp, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, l.kafka)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return 0, fmt.Errorf("list groups: %w", err)
	}
	return len(resp.Groups), nil
}

// server is a program under load.
type server struct {
	cmd     *exec.Cmd
	log     bytes.Buffer
	url     string
	metrics string // "": none
	ended   chan error
}

// gateway starts streamgw with a configuration of this directory, and waits until it is ready.
func (l *lab) gateway(ctx context.Context, config string) (*server, error) {
	listen, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s := &server{url: fmt.Sprintf("http://127.0.0.1:%d", listen), metrics: fmt.Sprintf("http://127.0.0.1:%d/metrics", listen+1)}
	s.cmd = exec.Command(filepath.Join(l.dir, "streamgw"), "serve", "--config", filepath.Join(l.root, "test", "bench", config),
		"--brokers", l.brokers, "--listen", strings.TrimPrefix(s.url, "http://"), "--admin-listen", fmt.Sprintf("127.0.0.1:%d", listen+1))
	return s, s.start(ctx)
}

// grouper starts the pattern that streamgw replaces, written in Go or in JavaScript.
func (l *lab) grouper(ctx context.Context, language string) (*server, error) {
	listen, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", listen)
	s := &server{url: "http://" + address}
	if language == "JavaScript" {
		if err := l.do(ctx, "test/platform/node-modules"); err != nil {
			return nil, err
		}
		s.cmd = exec.Command("node", filepath.Join(l.root, "test", "clients", "grouper.mjs"), l.brokers, address)
	} else {
		s.cmd = exec.Command(filepath.Join(l.dir, "grouper"), "-brokers", l.brokers, "-listen", address)
	}
	return s, s.start(ctx)
}

func (s *server) start(ctx context.Context) error {
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives a benchmark that dies
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !ready(ctx, s.url+"/readyz") {
		select {
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("%s ended: %w\n%s", s.cmd.Path, errors.Join(err), s.log.Bytes())
		case <-ctx.Done():
			s.stop()
			return fmt.Errorf("%s isn't ready: %w\n%s", s.cmd.Path, ctx.Err(), s.log.Bytes())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func ready(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

// pid returns the program's process.
func (s *server) pid() string { return fmt.Sprint(s.cmd.Process.Pid) }

// stop ends the program, by SIGKILL where SIGTERM isn't enough.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.ended:
		s.ended <- err
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		s.ended <- <-s.ended
	}
}

// freePorts returns the first of n free ports in a row, below those that the kernel gives to outgoing connections.
func freePorts(n int) (int, error) {
next:
	for first := 23000; first < 24000; first += n {
		for port := first; port < first+n; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				continue next
			}
			l.Close()
		}
		return first, nil
	}
	return 0, fmt.Errorf("no %d ports in a row are free from 23000 to 24000", n)
}
