package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Cluster is a Kafka whose brokers the test may kill, stop and start, numbered from 1.
type Cluster struct {
	*Kafka
	t   testing.TB
	dir string

	reviving bool // at the test's end
}

// StartCluster returns a Kafka of three brokers with all of them up: the one in $STREAMGW_TEST_CLUSTER, which test/run
// started for all scenarios, else one of the test's own.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: os.Getenv("STREAMGW_TEST_CLUSTER")}
	if c.dir == "" {
		c.dir = t.TempDir()
		t.Cleanup(func() { c.script("stop", c.dir) })
		c.script("start", c.dir, "3", strconv.Itoa(freeRun(t, 6)))
	}
	bootstrap, err := os.ReadFile(filepath.Join(c.dir, "bootstrap"))
	if err != nil {
		t.Fatal(err)
	}
	c.Kafka = OpenKafka(t, string(bootstrap))
	c.WaitBrokers(3)
	return c
}

// KillBroker ends a broker with SIGKILL. It is started again when the test ends, if not before.
func (c *Cluster) KillBroker(i int) {
	c.t.Helper()
	c.script("kill", c.dir, strconv.Itoa(i))
	c.reviveAtEnd()
}

// StopBroker ends a broker with SIGTERM, so that it hands over its leadership first. It is started again when the
// test ends, if not before.
func (c *Cluster) StopBroker(i int) {
	c.t.Helper()
	c.script("stop", c.dir, strconv.Itoa(i))
	c.reviveAtEnd()
}

// StartBrokers starts brokers that were killed or stopped on their data.
func (c *Cluster) StartBrokers(brokers ...int) {
	c.t.Helper()
	args := []string{"restart", c.dir}
	for _, i := range brokers {
		args = append(args, strconv.Itoa(i))
	}
	c.script(args...)
}

// reviveAtEnd starts whatever is down, all at once: without a majority none comes up.
func (c *Cluster) reviveAtEnd() {
	if c.reviving {
		return
	}
	c.reviving = true
	c.t.Cleanup(func() {
		var down []int
		for i := 1; i <= 3; i++ {
			pid, err := os.ReadFile(filepath.Join(c.dir, strconv.Itoa(i)+".pid"))
			if err == nil {
				_, err = os.Stat("/proc/" + strings.TrimSpace(string(pid)))
			}
			if err != nil {
				down = append(down, i)
			}
		}
		if len(down) > 0 {
			c.StartBrokers(down...)
		}
	})
}

func (c *Cluster) script(args ...string) {
	c.t.Helper()
	cmd := exec.Command(Script(c.t, "kafka"), args...)
	cmd.Env = append(os.Environ(), "STREAMGW_TEST_CACHE="+Cache(c.t))
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Errorf("platform/kafka %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
