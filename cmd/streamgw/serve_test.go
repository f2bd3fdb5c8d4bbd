package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"go.uber.org/goleak"
)

// asProgram makes the test binary streamgw itself, for tests that need a process to send signals to.
const asProgram = testEnv + "AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick")) // sarama's, one a process, has no end
}

// process is a streamgw in a process of its own.
type process struct {
	*exec.Cmd
	log *bufio.Scanner // standard error
}

// startProcess runs streamgw with an environment of only these variables.
func startProcess(t testing.TB, env []string, args ...string) process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append([]string{asProgram + "=1", "HOME=" + os.Getenv("HOME")}, env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return process{cmd, bufio.NewScanner(stderr)}
}

// line returns the next line of the log that matches.
func (p process) line(t testing.TB, expr string) []string {
	t.Helper()
	var seen []string
	for p.log.Scan() {
		seen = append(seen, p.log.Text())
		if found := regexp.MustCompile(expr).FindStringSubmatch(p.log.Text()); found != nil {
			return found
		}
	}
	t.Fatalf("no line %s in\n%s", expr, strings.Join(seen, "\n"))
	return nil
}

// code waits for the process to end.
func (p process) code(t testing.TB) int {
	t.Helper()
	for p.log.Scan() { // a full pipe would hold it up
	}
	if err := p.Wait(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode()
		}
		t.Fatal(err)
	}
	return exitOK
}

// startBroker starts a broker of one topic, which creates others for whoever asks for them and lets it.
func startBroker(t testing.TB) *devbroker.Broker {
	t.Helper()
	broker, err := devbroker.Start(devbroker.Config{Topics: []devbroker.Topic{{Name: "a.b"}}, AutoCreate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	return broker
}

// startServe runs `streamgw serve` on a broker and returns its addresses once it is ready.
func startServe(t testing.TB, broker *devbroker.Broker, env ...string) (p process, public, admin string) {
	t.Helper()
	p = startProcess(t, append([]string{"STREAMGW_KAFKA_BROKERS=" + broker.Addr(), "STREAMGW_AUTH_MODE=none",
		"STREAMGW_LISTEN=127.0.0.1:0", "STREAMGW_ADMIN_LISTEN=127.0.0.1:0"}, env...), "serve")
	found := p.line(t, `"msg":"streamgw serves".*"listen":"([^"]+)","admin":"([^"]+)"`)
	public, admin = "http://"+found[1], "http://"+found[2]
	until(t, "it is ready", func() bool { return strings.Contains(get(t, admin+"/readyz"), `"ready":true`) })
	return p, public, admin
}

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not after 20s: %s", what)
		}
	}
}

func TestStopEndsStreamsFirst(t *testing.T) {
	p, public, _ := startServe(t, startBroker(t))
	resp, err := http.Get(public + "/v1/events?topic=a.b")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body := bufio.NewReader(resp.Body)
	for _, want := range []string{"retry: ", "id: "} {
		if line, err := body.ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("the stream opens with %q (%v), want %s", line, err, want)
		}
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(body)
	if err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	if !regexp.MustCompile(`^\nretry: \d+\n\n$`).Match(rest) {
		t.Errorf("the stream ended with %q, want when to come back", rest)
	}
	p.line(t, `"msg":"stopped"`)
	if code := p.code(t); code != exitOK {
		t.Errorf("it ended with %d", code)
	}
}

func TestNoCommandCreatesATopic(t *testing.T) {
	broker := startBroker(t)
	p, public, _ := startServe(t, broker)
	const topic = "no.such.topic"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"publish", topic, "x", "--brokers", broker.Addr()}, "there is no topic no.such.topic; create it first"},
		{[]string{"tail", topic, "--url", public}, "there is no topic no.such.topic"},
		{[]string{"check", "--auth-mode=none", "--brokers", broker.Addr(), "--topic", topic}, "no.such.topic doesn't exist"},
	} {
		if code, _, stderr := run(t, "", tt.args...); code != exitFailure || !strings.Contains(stderr, tt.want) {
			t.Errorf("streamgw %s ended with %d: %s", tt.args, code, stderr)
		}
	}
	if code, out, stderr := run(t, "", "check", "--auth-mode=none", "--brokers", broker.Addr()); code != exitOK || !strings.Contains(out, "answers, with 1 topic\n") {
		t.Errorf("check ended with %d: %s%s", code, out, stderr)
	}
	for _, name := range []string{topic, readinessTopic} {
		if broker.Cluster().TopicInfo(name) != nil {
			t.Errorf("%s has come to be", name)
		}
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.code(t); code != exitOK {
		t.Errorf("it ended with %d", code)
	}
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	p, public, admin := startServe(t, startBroker(t), "STREAMGW_DRAIN_PERIOD=1h")
	slow := make(chan error, 1)
	go func() { // a request that holds the stop up
		resp, err := http.Get(admin + "/debug/pprof/profile?seconds=600")
		if err == nil {
			err = errors.Join(errors.New("it was answered"), resp.Body.Close())
		}
		slow <- err
	}()
	until(t, "the slow request is under way", func() bool {
		return strings.Contains(get(t, admin+"/debug/pprof/goroutine?debug=2"), "net/http/pprof.Profile(")
	})
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.line(t, `"msg":"stopping"`)
	until(t, "nothing new is taken", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(public, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-slow:
		t.Fatalf("the slow request ended with the first signal: %v", err)
	default:
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.code(t); code != exitFailure {
		t.Errorf("it ended with %d, want %d", code, exitFailure)
	}
	if err := <-slow; err == nil || err.Error() == "it was answered" {
		t.Errorf("the slow request: %v", err)
	}
}

func TestAStopThatTakesTooLongSaysSo(t *testing.T) {
	p, _, admin := startServe(t, startBroker(t), "STREAMGW_DRAIN_PERIOD=200ms")
	go func() {
		if resp, err := http.Get(admin + "/debug/pprof/profile?seconds=600"); err == nil {
			resp.Body.Close()
		}
	}()
	until(t, "the slow request is under way", func() bool {
		return strings.Contains(get(t, admin+"/debug/pprof/goroutine?debug=2"), "net/http/pprof.Profile(")
	})
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.line(t, `^streamgw: drain.period: not all had ended after 200ms and was cut$`)
	if code := p.code(t); code != exitFailure {
		t.Errorf("it ended with %d, want %d", code, exitFailure)
	}
}

func TestCommandLinesThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gw.yaml")
	if err := os.WriteFile(file, []byte("kafka: {brokers: a:9092}\nlisten: 8080\nlimts: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		code int
		want string // how standard error begins
	}{
		"an unknown command": {[]string{"sevre"}, exitUsage, "streamgw: unknown command \"sevre\"; did you mean serve?\nTry 'streamgw --help'."},
		"an unknown flag":    {[]string{"serve", "--lisen=:1"}, exitUsage, "streamgw: unknown flag: --lisen\nTry 'streamgw serve --help'."},
		"a value that doesn't fit": {[]string{"serve", "--limits-memory=lots"}, exitUsage,
			`streamgw: invalid argument "lots" for "--limits-memory" flag: "lots" isn't a size`},
		"a secret as a flag":       {[]string{"serve", "--kafka-sasl-password=x"}, exitUsage, "streamgw: unknown flag: --kafka-sasl-password\n"},
		"an argument too many":     {[]string{"serve", "x"}, exitUsage, "streamgw: unknown command \"x\" for \"streamgw serve\"\n"},
		"tail without a topic":     {[]string{"tail"}, exitUsage, "streamgw: requires at least 1 arg(s)"},
		"tail without a gateway":   {[]string{"tail", "a", "--url", "kafka:9092"}, exitUsage, `streamgw: --url: "kafka:9092" isn't a gateway's address`},
		"publish without a topic":  {[]string{"publish"}, exitUsage, "streamgw: accepts between 1 and 2 arg(s), received 0"},
		"publish, value and file":  {[]string{"publish", "a", "b", "--file", "c"}, exitUsage, "streamgw: give VALUE or --file, not both"},
		"publish, no such file":    {[]string{"publish", "a", "--file", "/no/such"}, exitUsage, "streamgw: --file: open /no/such: "},
		"publish, a header":        {[]string{"publish", "a", "b", "--header", "x"}, exitUsage, `streamgw: --header: "x" isn't name=value`},
		"publish, a partition":     {[]string{"publish", "a", "b", "--partition=-2"}, exitUsage, "streamgw: --partition: -2 isn't a partition"},
		"a tombstone with a value": {[]string{"publish", "a", "b", "--tombstone", "--key=k"}, exitUsage, "streamgw: --tombstone writes no value"},
		"a tombstone of what":      {[]string{"publish", "a", "--tombstone"}, exitUsage, "streamgw: --tombstone needs --key"},
		"serve, not configured": {[]string{"serve"}, exitFailure,
			"streamgw: the configuration has 2 problems\n  kafka.brokers: not set; name a broker or several, as host:port\n  auth.mode: not set; "},
		"serve, open to all by accident": {[]string{"serve", "--brokers=a:9092"}, exitFailure, "streamgw: the configuration has a problem\n  auth.mode: not set; "},
		"serve, all at once": {[]string{"serve", "--config", file}, exitFailure, "streamgw: the configuration has 3 problems\n  " +
			file + ":2: listen: \"8080\" isn't an address to listen on, such as :8080 or 127.0.0.1:8080\n  " +
			file + ":3: limts: unknown setting; did you mean limits?\n  auth.mode: not set; "},
		"check says the same":  {[]string{"check", "--config", file}, exitFailure, "streamgw: the configuration has 3 problems\n"},
		"publish reads it too": {[]string{"publish", "a", "b", "--config", file}, exitFailure, "streamgw: the configuration has 2 problems\n"},
		"a file that isn't there": {[]string{"serve", "--config", "/no/such.yaml", "--auth-mode=none", "--brokers=a:9092"}, exitFailure,
			"streamgw: the configuration has a problem\n  --config: open /no/such.yaml: "},
		"a secret's file that isn't there": {[]string{"check", "--auth-mode=none", "--brokers=a:9092", "--kafka-sasl-mechanism=PLAIN", "--kafka-sasl-username=u", "--kafka-sasl-password-file=/no/such"},
			exitFailure, "streamgw: the configuration has a problem\n  kafka.sasl.passwordFile: "},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := run(t, "", tt.args...)
			if code != tt.code || !strings.HasPrefix(stderr, tt.want) {
				t.Errorf("code %d, want %d; got\n%s\nwant\n%s", code, tt.code, stderr, tt.want)
			}
			if out != "" {
				t.Errorf("on standard output: %s", out)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, command := range []string{"", "dev", "serve", "publish", "tail", "check"} {
		args := strings.Fields(command + " --help")
		if code, out, _ := run(t, "", args...); code != exitOK || !strings.Contains(out, "  streamgw "+command) {
			t.Errorf("streamgw %s ended with %d and has no example:\n%s", strings.Join(args, " "), code, out)
		}
	}
	if code, out, _ := run(t, "", "version"); code != exitOK || !regexp.MustCompile(`^streamgw \S+ go1\.\S+ \S+/\S+\n$`).MatchString(out) {
		t.Errorf("version ended with %d: %s", code, out)
	}
}

func TestSignals(t *testing.T) {
	signals, exits := make(chan os.Signal), make(chan int)
	ctx := untilSignalled(t.Context(), signals, func(code int) { exits <- code })
	if ctx.Err() != nil {
		t.Fatal("it ended without a signal")
	}
	signals <- os.Interrupt
	<-ctx.Done()
	signals <- syscall.SIGTERM
	if code := <-exits; code != exitFailure {
		t.Errorf("it exits with %d", code)
	}
}

// lookups is topics of which only the answer to a look-up matters.
type lookups struct {
	stream.Topics
	err error
}

func (l *lookups) Lookup(context.Context, string) (stream.Topic, error) { return stream.Topic{}, l.err }

func TestReadinessWaitsForKafkaOnce(t *testing.T) {
	kafka := &lookups{err: stream.Errorf(stream.Unavailable, "Kafka can't be reached")}
	ready := onceAnswered(kafka)
	if err := ready(t.Context()); err == nil {
		t.Error("ready before Kafka has answered")
	}
	kafka.err = stream.Errorf(stream.NotFound, "no such topic")
	if err := ready(t.Context()); err != nil {
		t.Errorf("Kafka has answered, and yet: %v", err)
	}
	kafka.err = fmt.Errorf("away")
	if err := ready(t.Context()); err != nil {
		t.Errorf("an outage of Kafka takes the gateway out: %v", err)
	}
}
