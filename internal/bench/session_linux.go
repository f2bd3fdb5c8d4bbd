package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// session is a run under way.
type session struct {
	cfg     Config
	run     uint32
	crowd   *crowd
	source  source
	watched *watched
	result  *Result
	sum     *tally // of all readers, once it is over
	dialed  int    // connections that were asked for
}

// begin checks cfg, starts readers and samplers, has the work done and ends all that it started.
func begin(ctx context.Context, mode string, cfg Config, work func(ctx context.Context, s *session) error) (*Result, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &session{cfg: cfg, run: cfg.run, watched: watch(cfg.Processes)}
	if err := enoughFiles(cfg.Conns + cfg.later); err != nil {
		return nil, err
	}
	s.result = &Result{
		Mode: mode, Transport: cfg.Transport, Time: time.Now().UTC().Truncate(time.Second), Conns: cfg.Conns, First: cfg.First,
		Rate: cfg.Rate, Size: cfg.Size, Seconds: cfg.Duration.Seconds(),
	}
	for s.run == 0 {
		s.run = rand.Uint32()
	}
	var err error
	if s.crowd, err = newCrowd(ctx, cfg, s.run); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.crowd.run(ctx); err != nil {
			cancel(err)
		}
	})
	running.Go(func() { s.watched.sample(ctx) })
	running.Go(func() { s.progress(ctx) })
	defer running.Wait()
	defer cancel(nil)
	before, err := s.watched.memory()
	if err != nil {
		return nil, err
	}
	for i, p := range cfg.Processes {
		s.result.Processes = append(s.result.Processes, Usage{Name: p.Name, PID: p.PID, Before: before[i], Connected: before[i]})
	}
	if err := work(ctx, s); err != nil {
		return nil, err
	}
	return s.result, nil
}

// dial returns what it takes to make n connections.
func (s *session) dial(n int, fill func(i int, d *dialing)) []dialing {
	all := make([]dialing, n)
	for i := range all {
		d := &all[i]
		d.to, d.from = i%len(s.crowd.to), -1
		if len(s.crowd.from) > 0 {
			d.from = i % len(s.crowd.from)
		}
		fill(i, d)
	}
	return all
}

// connect opens connections and notes how that went. Nothing is amiss yet when some couldn't be.
func (s *session) connect(ctx context.Context, all []dialing) error {
	u, err := s.watched.usage()
	if err != nil {
		return err
	}
	s.dialed += len(all)
	earlier := int(s.crowd.opened.Load())
	if err := s.crowd.open(ctx, all, s.cfg.ConnectRate); err != nil {
		return err
	}
	v, err := s.watched.usage()
	if err != nil {
		return err
	}
	c := &s.result.Connect
	c.Opened, c.Seconds = int(s.crowd.opened.Load()), v.at.Sub(u.at).Seconds()
	c.Failed, c.Reasons = s.dialed-c.Opened, s.whyFailed()
	if len(u.each) > 0 && c.Opened > earlier {
		c.ServerMicros = micros(v.each[0]-u.each[0]) / float64(c.Opened-earlier)
	}
	connected, err := s.watched.memory()
	if err != nil {
		return err
	}
	for i := range connected {
		s.result.Processes[i].Connected = connected[i]
	}
	if c.Opened == 0 {
		return fmt.Errorf("no connection came to be open: %v", c.Reasons)
	}
	return nil
}

// whyFailed returns why connections aren't open.
func (s *session) whyFailed() []string {
	reasons := s.crowd.whyFailed()
	if silent := int64(s.dialed) - s.crowd.opened.Load() - s.crowd.failed.Load(); silent > 0 {
		reasons = append(reasons, fmt.Sprintf("%d × %q didn't come (--ready)", silent, s.cfg.Ready))
	}
	return reasons
}

// quiet is how long nothing happens between the last connection and the first event: a server may subscribe a client a moment
// after it has answered it.
const quiet = 300 * time.Millisecond

// measure has events made, and takes what is counted at the beginning and at the end of the time that counts.
func (s *session) measure(ctx context.Context) error {
	if err := sleep(ctx, quiet); err != nil {
		return err
	}
	start := time.Now().Add(s.cfg.Warmup)
	end := start.Add(s.cfg.Duration)
	s.crowd.observe([periods]period{{nanoseconds(start), nanoseconds(end)}})
	made := make(chan error, 1)
	go func() { made <- s.source.steadily(ctx, s.cfg.Rate, s.cfg.Warmup+s.cfg.Duration) }()
	first, err := s.countAt(ctx, start)
	if err == nil {
		var last counted
		if last, err = s.countAt(ctx, end); err == nil {
			s.between(first, last)
		}
	}
	if failed := <-made; failed != nil {
		return failed
	}
	return err
}

// counted is what stood at one moment.
type counted struct {
	usage
	received, published int64
}

// countAt waits for a moment and counts.
func (s *session) countAt(ctx context.Context, at time.Time) (counted, error) {
	if err := sleep(ctx, time.Until(at)); err != nil {
		return counted{}, err
	}
	return s.count()
}

func (s *session) count() (c counted, err error) {
	c.received, c.published = s.crowd.received.Load(), s.source.total()
	c.usage, err = s.watched.usage()
	return c, err
}

// between notes what went on between two moments.
func (s *session) between(a, b counted) {
	seconds := b.at.Sub(a.at).Seconds()
	events, deliveries := float64(b.published-a.published), float64(b.received-a.received)
	r := s.result
	r.Published = &Published{PerSecond: events / seconds}
	r.Deliveries = &Deliveries{Counted: uint64(deliveries), PerSecond: deliveries / seconds}
	s.take(a.usage, b.usage)
	for i := range r.Processes {
		p := &r.Processes[i]
		if events > 0 && deliveries > 0 {
			p.MicrosPerEvent, p.MicrosPerDelivery = p.CPUSeconds*1e6/events, p.CPUSeconds*1e6/deliveries
		}
		if i == 0 && p.CPUSeconds > 0 {
			r.Deliveries.PerCPUSecond = deliveries / p.CPUSeconds
		}
	}
}

// take notes the CPU time that was taken between two moments.
func (s *session) take(a, b usage) {
	r, seconds := s.result, b.at.Sub(a.at).Seconds()
	known := b.own - a.own
	for i := range r.Processes {
		cpu := b.each[i] - a.each[i]
		known += cpu
		r.Processes[i].CPUSeconds, r.Processes[i].Cores = cpu.Seconds(), cpu.Seconds()/seconds
	}
	machine := b.machine - a.machine
	r.Client = ClientUsage{
		CPUSeconds: (b.own - a.own).Seconds(), OthersCPU: max(0, (machine - known).Seconds()), MachineCores: machine.Seconds() / seconds,
	}
}

// drain waits until everything has come that was published, or nothing comes any more.
func (s *session) drain(ctx context.Context) error {
	published := s.source.published()
	var expected uint64
	s.crowd.connections(func(c *connection) {
		if !c.over {
			expected += c.expect.expectedOf(published)
		}
	})
	_, err := settle(ctx, s.cfg.Drain, func() (int64, bool) {
		n := s.crowd.received.Load()
		return n, uint64(n) >= expected
	})
	return err
}

// conclude adds up what the readers have counted, and judges it.
func (s *session) conclude() error {
	published := s.source.published()
	sum := s.crowd.total(s.run)
	s.sum = sum
	var expected uint64
	s.crowd.connections(func(c *connection) {
		if c.opening != nil {
			return
		}
		sum.missed(c, published)
		expected += c.expect.expectedOf(published)
	})
	r := s.result
	r.Exactness, r.Faults = sum.Exactness, sum.faults[:min(len(sum.faults), maxFaults)]
	if r.Deliveries == nil {
		r.Deliveries = &Deliveries{}
	}
	if r.Published == nil {
		r.Published = &Published{}
	}
	r.Deliveries.Received, r.Deliveries.Expected = sum.received, expected
	r.Published.Events, r.Published.MaxLateMs = s.source.total(), float64(s.source.maxLate())/1e6
	latency := sum.latency[live][0].summary()
	r.Latency = &latency
	end, err := s.watched.memory()
	if err != nil {
		return err
	}
	peaks := s.watched.peaks()
	for i := range r.Processes {
		r.Processes[i].End, r.Processes[i].PeakRSS = end[i], max(peaks[i], end[i].RSS)
	}
	r.judge(s.dialed)
	r.remark(runtime.NumCPU())
	return nil
}

// progress tells how it goes, once a second.
func (s *session) progress(ctx context.Context) {
	if s.cfg.Progress == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	begun, last := time.Now(), int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		received := s.crowd.received.Load()
		fmt.Fprintf(s.cfg.Progress, "%4.0fs  %d of %d open  %s deliveries/s\n",
			time.Since(begun).Seconds(), s.crowd.opened.Load(), s.cfg.Conns, thousands(float64(received-last)))
		last = received
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// counting returns what notes, once it is called, by how much the server's counters have grown since now.
func (s *session) counting(ctx context.Context) (grown func() error, err error) {
	before, err := countersAt(ctx, s.cfg.MetricsURL)
	return func() error {
		after, err := countersAt(ctx, s.cfg.MetricsURL)
		s.result.Metrics = before.grown(after)
		return err
	}, err
}

// enoughFiles checks that this process may have so many connections.
func enoughFiles(conns int) error {
	const besides = 64
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("ask for the limit of open files: %w", err)
	}
	if uint64(conns)+besides > limit.Cur {
		return fmt.Errorf("--conns: %d connections are more than this process may have files open (ulimit -n is %d)", conns, limit.Cur)
	}
	return nil
}
