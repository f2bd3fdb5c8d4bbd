package harness

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Gateway is a streamgw process: one replica.
type Gateway struct {
	*Process
	URL   string // of the public listener
	Admin string // of the admin listener
}

// GatewayOptions are what differs between the gateways of scenarios.
type GatewayOptions struct {
	Brokers string   // bootstrap list
	Config  string   // content of a configuration file; "" starts without one
	Issuer  *Issuer  // whose tokens it asks for; what it has written down by the end is searched for them. Nil: it asks for none
	Env     []string // further environment, NAME=value
}

// SmallWindows is a configuration whose windows hold seconds only, so that clients that stay away come back to find
// what they lack gone from memory, and read it from Kafka.
const SmallWindows = `
topics:
  - match: "**"
    window: {bytes: 256KiB, age: 10m}
`

// StartGateway starts a gateway and waits until it is ready.
func StartGateway(t testing.TB, name string, o GatewayOptions) *Gateway {
	t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	admin := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	args := []string{Binary(t), "serve"}
	env := []string{
		"STREAMGW_LISTEN=" + listen,
		"STREAMGW_ADMIN_LISTEN=" + admin,
		"STREAMGW_KAFKA_BROKERS=" + o.Brokers,
		"STREAMGW_AUTH_MODE=none",
	}
	if o.Issuer != nil {
		o.Config += "\n" + o.Issuer.config
		env = append(env, "STREAMGW_AUTH_MODE=jwt", "STREAMGW_LOG_LEVEL=debug")
	}
	if o.Config != "" {
		file := filepath.Join(t.TempDir(), "streamgw.yaml")
		if err := os.WriteFile(file, []byte(o.Config), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", file)
	}
	g := &Gateway{Process: StartProcess(t, name, append(env, o.Env...), args...), URL: "http://" + listen, Admin: "http://" + admin}
	if o.Issuer != nil {
		t.Cleanup(func() { g.keepsSecret(o.Issuer.Secrets()) })
	}
	g.WaitReady()
	return g
}

// keepsSecret fails the test if the gateway has written down one of some secrets.
func (g *Gateway) keepsSecret(secrets []string) {
	told := g.Log()
	for _, path := range []string{"/metrics", "/v1/connections", "/v1/hubs"} {
		if _, body, err := Get(g.Admin + path); err == nil { // else it has ended
			told = append(told, body...)
		}
	}
	if leaks := Leaks(told, secrets); len(leaks) > 0 {
		g.t.Errorf("%s has written down %d of %d secrets: %q", g.name, len(leaks), len(secrets), leaks[:min(len(leaks), 10)])
	}
	g.t.Logf("%d secrets, in %d bytes that %s has written", len(secrets), len(told), g.name)
}

// Restart runs the gateway again, on the same ports, and waits until it is ready.
func (g *Gateway) Restart() {
	g.t.Helper()
	g.Start()
	g.WaitReady()
}

// WaitReady waits until the gateway says that it can serve.
func (g *Gateway) WaitReady() {
	g.t.Helper()
	Until(g.t, 30*time.Second, g.name+" is ready", func() bool {
		if !g.Running() {
			g.t.Fatalf("%s ended before it was ready", g.name)
		}
		status, _, err := Get(g.Admin + "/readyz")
		return err == nil && status == http.StatusOK
	})
}

// Get returns the status and body of a short answer.
func Get(url string) (status int, body []byte, err error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// Binary returns the gateway's program: $STREAMGW_TEST_BINARY, else one built from the repository as it is.
func Binary(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("STREAMGW_TEST_BINARY"); bin != "" {
		return bin
	}
	bin := filepath.Join(Cache(t), "bin", "streamgw")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/streamgw")
	cmd.Dir = Root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the gateway: %v\n%s", err, strings.TrimSpace(string(out)))
	}
	return bin
}
