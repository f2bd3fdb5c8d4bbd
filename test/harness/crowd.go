package harness

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Crowd is a number of clients that run together.
type Crowd struct {
	t       testing.TB
	stop    func()
	Clients []*Client
}

// StartCrowd runs clients until the test ends, or Stop.
func StartCrowd(t testing.TB, clients ...*Client) *Crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() { c.Run(ctx) })
	}
	c := &Crowd{t, func() { cancel(); wg.Wait() }, clients}
	t.Cleanup(c.Stop)
	return c
}

// Stop ends all clients.
func (c *Crowd) Stop() { c.stop() }

// Check fails the test if a client was wronged.
func (c *Crowd) Check() {
	c.t.Helper()
	wronged := 0
	for _, client := range c.Clients {
		if err := client.Fault(); err != nil {
			if wronged++; wronged <= 5 {
				c.t.Error(err)
			}
		}
	}
	if wronged > 0 {
		c.t.Fatalf("%d of %d clients were wronged", wronged, len(c.Clients))
	}
}

// WaitConnected waits until every client has a stream open, or has had one.
func (c *Crowd) WaitConnected(within time.Duration) {
	c.t.Helper()
	Until(c.t, within, fmt.Sprintf("%d clients are connected", len(c.Clients)), func() bool {
		c.Check()
		for _, client := range c.Clients {
			if client.Tally().Connected == 0 {
				return false
			}
		}
		return true
	})
}

// WaitStanding waits until every client knows a position.
func (c *Crowd) WaitStanding(within time.Duration) {
	c.t.Helper()
	Until(c.t, within, fmt.Sprintf("%d clients have a position", len(c.Clients)), func() bool {
		c.Check()
		for _, client := range c.Clients {
			if client.Position() == "" {
				return false
			}
		}
		return true
	})
}

// WaitCount waits until every client has received this many numbers. As each ledger takes the numbers of a partition in
// order only, that is every number exactly once when it is how many were written.
func (c *Crowd) WaitCount(count int64, within time.Duration) {
	c.t.Helper()
	deadline := time.Now().Add(within)
	Until(c.t, within+time.Minute, "", func() bool {
		c.Check()
		late := 0
		var first *Client
		for _, client := range c.Clients {
			if n := client.Ledger.Count(); n > count {
				c.t.Fatalf("%s: %d numbers came, %d were written", client.Name, n, count)
			} else if n < count {
				if late++; first == nil {
					first = client
				}
			}
		}
		if late > 0 && time.Now().After(deadline) {
			first.mu.Lock()
			defer first.mu.Unlock()
			c.t.Fatalf("after %v %d of %d clients lack numbers; %s has %d of %d (%+v), stands at %q; its last connection ended with: %v",
				within, late, len(c.Clients), first.Name, first.Ledger.Count(), count, first.tally, first.position, first.trouble)
		}
		return late == 0
	})
}

// Tally adds what became of all clients' connections.
func (c *Crowd) Tally() (sum Tally) {
	for _, client := range c.Clients {
		sum.add(client.Tally())
	}
	return sum
}

// Deliveries returns how many numbers all clients have received.
func (c *Crowd) Deliveries() (sum int64) {
	for _, client := range c.Clients {
		sum += client.Ledger.Count()
	}
	return sum
}
