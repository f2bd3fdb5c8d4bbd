package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// crowd is many clients and the readers that read for them. Run starts the readers and waits for them.
type crowd struct {
	cfg     Config
	to      []syscall.Sockaddr
	bases   []*url.URL // of cfg.URLs, in the order of to
	from    []syscall.Sockaddr
	readers []*reader

	opened, failed, completed, received atomic.Int64

	lastCompletion atomic.Int64 // when, in nanoseconds since 1970

	mu      sync.Mutex // guards what follows
	reasons map[string]int
}

// portsPerAddress is how many connections one local address makes: what Linux has of ephemeral ports, less a reserve.
const portsPerAddress = 10_000

func newCrowd(ctx context.Context, cfg Config, run uint32) (*crowd, error) {
	c := &crowd{cfg: cfg, reasons: map[string]int{}}
	for _, raw := range cfg.URLs {
		base, err := url.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("--url: %w", err)
		}
		addr, err := resolve(ctx, base)
		if err != nil {
			return nil, fmt.Errorf("--url: %w", err)
		}
		c.to, c.bases = append(c.to, addr), append(c.bases, base)
	}
	if err := c.localAddresses(); err != nil {
		return nil, err
	}
	after := int32(0)
	if !cfg.foreign() {
		after = int32(afterMark(cfg.Size))
	}
	for range cfg.Readers {
		r, err := newReader(c, newTally(run), after)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.readers = append(c.readers, r)
	}
	return c, nil
}

// resolve returns the address that a base URL names.
func resolve(ctx context.Context, base *url.URL) (syscall.Sockaddr, error) {
	host, port := base.Hostname(), base.Port()
	if port == "" {
		port = "80"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%s has no port that can be dialled", base)
	}
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(ips, func(a, b net.IP) int { return len(b.To4()) - len(a.To4()) })
	return sockaddr(ips[0], int(n)), nil
}

func sockaddr(ip net.IP, port int) syscall.Sockaddr {
	if v4 := ip.To4(); v4 != nil {
		return &syscall.SockaddrInet4{Port: port, Addr: [4]byte(v4)}
	}
	return &syscall.SockaddrInet6{Port: port, Addr: [16]byte(ip.To16())}
}

// localAddresses decides where connections come from.
func (c *crowd) localAddresses() error {
	local, conns := c.cfg.Local, c.cfg.Conns+c.cfg.later
	if v4, ok := c.to[0].(*syscall.SockaddrInet4); ok && len(local) == 0 && v4.Addr[0] == 127 && conns > portsPerAddress {
		for i := range (conns + portsPerAddress - 1) / portsPerAddress {
			local = append(local, fmt.Sprintf("127.0.0.%d", 1+i%250))
		}
	}
	for _, text := range local {
		ip := net.ParseIP(text)
		if ip == nil {
			return fmt.Errorf("--local: %q isn't an address", text)
		}
		c.from = append(c.from, sockaddr(ip, 0))
	}
	return nil
}

// run reads until ctx ends, then closes every connection. When one reader fails the others end too.
func (c *crowd) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(c.readers))
	for _, r := range c.readers {
		go func() {
			failed <- r.run(ctx)
			cancel()
		}()
	}
	var err error
	for range c.readers {
		err = errors.Join(err, <-failed)
	}
	return errors.Join(err, c.close())
}

func (c *crowd) close() (err error) {
	for _, r := range c.readers {
		err = errors.Join(err, r.close())
	}
	return err
}

// fail notes a connection that couldn't be opened.
func (c *crowd) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.reasons) < 10 || c.reasons[err.Error()] > 0 {
		c.reasons[err.Error()]++
	}
	c.failed.Add(1)
}

// whyFailed returns the reasons of failures, the most frequent first.
func (c *crowd) whyFailed() (reasons []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	type reason struct {
		text string
		n    int
	}
	var all []reason
	for text, n := range c.reasons {
		all = append(all, reason{text, n})
	}
	slices.SortFunc(all, func(a, b reason) int { return b.n - a.n })
	for _, r := range all {
		reasons = append(reasons, fmt.Sprintf("%d × %s", r.n, r.text))
	}
	return reasons
}

// start has connections made, rate a second (0: as fast as they can be), and returns at once.
func (c *crowd) start(all []dialing, rate float64) {
	for i, r := range c.readers {
		var own []dialing
		for k := i; k < len(all); k += len(c.readers) {
			own = append(own, all[k])
		}
		r.do(func() { r.schedule(own, rate/float64(len(c.readers))) })
	}
}

// openingPatience is how long no connection may come to be open before those that are missing have failed.
const openingPatience = 15 * time.Second

// open makes connections and returns once all are open, or no more will be.
func (c *crowd) open(ctx context.Context, all []dialing, rate float64) error {
	want := c.opened.Load() + c.failed.Load() + int64(len(all))
	c.start(all, rate)
	return c.awaitOpen(ctx, want)
}

func (c *crowd) awaitOpen(ctx context.Context, want int64) error {
	_, err := settle(ctx, openingPatience, func() (int64, bool) {
		n := c.opened.Load() + c.failed.Load()
		return n, n >= want
	})
	return err
}

// settle waits until a count is what it should be, or hasn't moved for so long.
func settle(ctx context.Context, patience time.Duration, count func() (n int64, enough bool)) (reached bool, err error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	last, moved := int64(-1), time.Now()
	for {
		n, enough := count()
		if enough {
			return true, nil
		}
		if n != last {
			last, moved = n, time.Now()
		} else if time.Since(moved) > patience {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// observe sets the periods that latencies are told apart by.
func (c *crowd) observe(p [periods]period) {
	c.each(func(r *reader) { r.arrival.periods = p })
}

// each has something done by each reader, on its thread, and waits for it.
func (c *crowd) each(act func(r *reader)) {
	var wait sync.WaitGroup
	for _, r := range c.readers {
		wait.Add(1)
		r.do(func() {
			act(r)
			wait.Done()
		})
	}
	wait.Wait()
}

// total returns what all readers have counted so far.
func (c *crowd) total(run uint32) *tally {
	sum := newTally(run)
	var mu sync.Mutex
	c.each(func(r *reader) {
		mu.Lock()
		defer mu.Unlock()
		sum.add(r.tally)
	})
	return sum
}

// connections calls act with each connection, on its reader's thread, never two at once.
func (c *crowd) connections(act func(*connection)) {
	var mu sync.Mutex
	c.each(func(r *reader) {
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range r.conns {
			act(conn)
		}
	})
}

// ready returns what a client must have got before it counts as open; "": nothing.
func (c *crowd) ready() string {
	if c.cfg.Ready == "-" {
		return ""
	}
	return c.cfg.Ready
}

// sinceLastCompletion returns the seconds from start until the last client was complete.
func (c *crowd) sinceLastCompletion(start time.Time) float64 {
	return max(0, time.Duration(c.lastCompletion.Load()-nanoseconds(start)).Seconds())
}
