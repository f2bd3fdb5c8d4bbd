package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// server is an event stream of what is published to it, with the faults that a test asks for. It knows positions: the
// number of events before one.
type server struct {
	fault func(client, event int, block string) []string // what a client gets for an event; nil: the block

	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	clients int
	log     []Event
	ended   bool
}

func startServer(t *testing.T) (*server, Config) {
	t.Helper()
	t.Parallel()
	s := &server{}
	s.changed = sync.NewCond(&s.mu)
	http := httptest.NewServer(s)
	t.Cleanup(func() {
		s.mu.Lock()
		s.ended = true
		s.changed.Broadcast()
		s.mu.Unlock()
		http.Close()
	})
	return s, Config{
		URLs: []string{http.URL}, Topic: "t", Conns: 20, Rate: 200, Publisher: s, Readers: 2,
		Warmup: 50 * time.Millisecond, Duration: 400 * time.Millisecond, Drain: 300 * time.Millisecond,
	}
}

func (s *server) Lanes() int { return 1 }

func (s *server) Publish(_ context.Context, _ int, events []Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		s.log = append(s.log, Event{Key: slices.Clone(e.Key), Value: slices.Clone(e.Value)})
	}
	s.changed.Broadcast()
	return nil
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	client, at, key := s.clients, len(s.log), r.URL.Query().Get("key")
	s.clients++
	s.mu.Unlock()
	if _, err := fmt.Sscan(r.URL.Query().Get("lastEventId"), &at); err != nil && err != io.EOF {
		http.Error(w, "no such position", http.StatusBadRequest)
		return
	}
	defer context.AfterFunc(r.Context(), s.wake)()
	fmt.Fprintf(w, "retry: 1\n\nid: %d\n\n", at)
	for {
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		s.mu.Lock()
		for at == len(s.log) && !s.ended && r.Context().Err() == nil {
			s.changed.Wait()
		}
		news := s.log[at:]
		over := s.ended || r.Context().Err() != nil
		s.mu.Unlock()
		if over {
			return
		}
		for _, e := range news {
			at++
			if key != "" && key != string(e.Key) {
				continue
			}
			blocks := []string{fmt.Sprintf("data: %s\nid: %d\n\n", e.Value, at)}
			if s.fault != nil {
				blocks = s.fault(client, at-1, blocks[0])
			}
			for _, b := range blocks {
				if b == "" {
					return
				}
				if _, err := io.WriteString(w, b); err != nil {
					return
				}
			}
		}
	}
}

// slowly is a publisher that takes its time.
type slowly struct{ Publisher }

func (s slowly) Publish(ctx context.Context, lane int, events []Event) error {
	if err := sleep(ctx, 5*time.Millisecond); err != nil {
		return err
	}
	return s.Publisher.Publish(ctx, lane, events)
}

func (s *server) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

func TestAServerWithoutFault(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"all get all":       func(*Config) {},
		"a key each":        func(c *Config) { c.Keyed = true },
		"it is measured":    func(c *Config) { c.Processes = []Process{{"self", os.Getpid()}} },
		"at its full speed": func(c *Config) { c.Rate, c.Batch, c.Publisher = 0, 3, slowly{c.Publisher} },
		"another's values":  func(c *Config) { c.Path = "/events" },
		"from addresses":    func(c *Config) { c.Local = []string{"127.0.0.1", "127.0.0.7"} },
	} {
		t.Run(name, func(t *testing.T) {
			_, cfg := startServer(t)
			change(&cfg)
			r, err := Live(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if r.Err() != nil {
				t.Fatal(r.Err(), r.Faults)
			}
			want := uint64(r.Published.Events)
			if !cfg.Keyed {
				want *= uint64(cfg.Conns)
			}
			if d := r.Deliveries; want == 0 || d.Received != want || d.Expected != want {
				t.Errorf("%d of %d deliveries, want %d", d.Received, d.Expected, want)
			}
			if counted := r.Deliveries.Counted > uint64(cfg.Conns); counted && (r.Latency.Count == 0 || r.Latency.P50 <= 0) || r.Latency.Max > 10_000 {
				t.Errorf("latency %+v", r.Latency)
			}
			if len(cfg.Processes) > 0 && (r.Processes[0].CPUSeconds <= 0 || r.Processes[0].Before.RSS == 0 || r.Processes[0].PeakRSS < r.Processes[0].Before.RSS/2) {
				t.Errorf("of this process: %+v", r.Processes[0])
			}
			var table bytes.Buffer
			if err := r.WriteTable(&table); err != nil || !strings.Contains(table.String(), "0 lost") {
				t.Errorf("%v, %s", err, table.String())
			}
		})
	}
}

func TestSomeComeFirst(t *testing.T) {
	for name, tt := range map[string]struct {
		keyed bool
		lose  bool // the last one's first event
	}{
		"all get all after they came": {}, "a key each": {keyed: true}, "one loses the first after it came": {lose: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, cfg := startServer(t)
			cfg.First, cfg.Keyed, cfg.Processes = 2, tt.keyed, []Process{{"self", os.Getpid()}}
			cfg.Warmup, cfg.rest = 300*time.Millisecond, 100*time.Millisecond
			lost := false
			s.fault = func(client, _ int, block string) []string {
				if tt.lose && client == cfg.Conns-1 && !lost {
					lost = true
					return nil
				}
				return []string{block}
			}
			r, err := Live(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if tt.lose {
				if r.Exactness != (Exactness{Lost: 1}) || r.Err() == nil {
					t.Errorf("got %+v and %v", r.Exactness, r.Err())
				}
				return
			}
			if r.Err() != nil {
				t.Fatal(r.Err(), r.Faults)
			}
			d, all := r.Deliveries, uint64(r.Published.Events)*uint64(cfg.Conns)
			if tt.keyed {
				all = uint64(r.Published.Events)
			}
			if d.Received != d.Expected || d.Expected == 0 || d.Expected >= all || r.Connect.Opened != cfg.Conns || r.First != 2 {
				t.Errorf("%d of %d deliveries, %d if all were there from the beginning; %+v", d.Received, d.Expected, all, r.Connect)
			}
			p := r.Processes[0]
			if got := p.KBPerConn * 1024 * float64(cfg.Conns-cfg.First); p.Before.RSS == 0 || math.Abs(got-float64(p.End.RSS-p.Before.RSS)) > 1 {
				t.Errorf("%+v", p)
			}
		})
	}
}

// victim is the client that faults meet, and which the event.
const victim, which = 3, 20

func TestAServerThatFails(t *testing.T) {
	for name, tt := range map[string]struct {
		fault func(client, event int, block string) []string
		want  Exactness
	}{
		"loses one event of one client": {func(_, _ int, b string) []string { return nil }, Exactness{Lost: 1}},
		"repeats one":                   {func(_, _ int, b string) []string { return []string{b, b} }, Exactness{Duplicated: 1}},
		"tears a value":                 {func(_, _ int, b string) []string { return []string{b[:200] + b[201:]} }, Exactness{Damaged: 1}},
		"ends a connection":             {func(_, _ int, b string) []string { return []string{""} }, Exactness{Ended: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s, cfg := startServer(t)
			s.fault = func(client, event int, block string) []string {
				if client == victim && event == which {
					return tt.fault(client, event, block)
				}
				return []string{block}
			}
			r, err := Live(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			got := r.Exactness
			if tt.want.Ended > 0 {
				if got.Lost == 0 {
					t.Error("what a client no longer got isn't lost")
				}
				got.Lost = 0
			}
			if got != tt.want || r.Err() == nil {
				t.Errorf("got %+v and %v, want %+v", r.Exactness, r.Err(), tt.want)
			}
			if tt.want.Ended+tt.want.Damaged == 0 && (len(r.Faults) != 1 || !strings.Contains(r.Faults[0], fmt.Sprintf(" %d to %d", which, which))) {
				t.Errorf("told as %q", r.Faults)
			}
		})
	}
}

func TestAServerThatFailsInLargerWays(t *testing.T) {
	t.Run("lets the last events go", func(t *testing.T) {
		s, cfg := startServer(t)
		s.fault = func(client, event int, block string) []string {
			if client == victim && event >= which {
				return nil
			}
			return []string{block}
		}
		r, err := Live(t.Context(), cfg)
		if err != nil || r.Err() == nil || r.Exactness.Lost != uint64(r.Published.Events-which) {
			t.Errorf("%v, %+v of %d", err, r.Exactness, r.Published.Events)
		}
	})
	t.Run("changes an order", func(t *testing.T) {
		s, cfg := startServer(t)
		held := ""
		s.fault = func(client, event int, block string) []string {
			switch {
			case client == victim && event == which:
				held = block
				return nil
			case client == victim && event == which+1:
				return []string{block, held}
			}
			return []string{block}
		}
		if r, err := Live(t.Context(), cfg); err != nil || r.Exactness != (Exactness{Reordered: 1}) || r.Err() == nil {
			t.Errorf("%v, %+v", err, r)
		}
	})
	t.Run("gives a client another's key", func(t *testing.T) {
		s, cfg := startServer(t)
		cfg.Keyed = true
		first := ""
		s.fault = func(client, event int, block string) []string {
			s.mu.Lock()
			defer s.mu.Unlock()
			if first == "" {
				first = block
			} else if client == victim && event > which && first != "told" && !strings.Contains(block, first[40:56]) {
				block, first = first+block, "told"
			}
			return []string{block}
		}
		if r, err := Live(t.Context(), cfg); err != nil || r.Exactness.Foreign+r.Exactness.Duplicated != 1 || r.Err() == nil {
			t.Errorf("%v, %+v", err, r)
		}
	})
	t.Run("refuses some", func(t *testing.T) {
		_, cfg := startServer(t)
		refusing := httptest.NewServer(http.NotFoundHandler())
		defer refusing.Close()
		cfg.URLs = append(cfg.URLs, refusing.URL)
		r, err := Live(t.Context(), cfg)
		if err != nil || r.Err() == nil || !strings.Contains(r.Err().Error(), "only 10 of 20 connections came to be open: 10 × answered \"HTTP/1.1 404 Not Found\"") {
			t.Errorf("%v, %v", err, r.Err())
		}
	})
}

func TestClientsThatComeBack(t *testing.T) {
	_, cfg := startServer(t)
	cfg.ConnectRate = 0
	r, err := Comeback(t.Context(), cfg, Behind{Events: 200})
	if err != nil || r.Err() != nil {
		t.Fatal(err, r)
	}
	if c := r.Resume; c.Completed != 20 || c.Seconds <= 0 || c.EachMs.Count != 20 || r.Deliveries.Received != r.Deliveries.Expected || r.Deliveries.Expected < 20*200 {
		t.Errorf("%+v, %+v", c, r.Deliveries)
	}
}

func TestClientsThatComeBackInASecondRun(t *testing.T) {
	s, cfg := startServer(t)
	file := filepath.Join(t.TempDir(), "left.json")
	if r, err := Comeback(t.Context(), cfg, Behind{Events: 50, Save: file}); err != nil || r.Err() != nil {
		t.Fatal(err, r)
	}
	r, err := Comeback(t.Context(), cfg, Behind{Events: 50, From: file, Cold: true})
	if err != nil || r.Err() != nil {
		t.Fatal(err, r)
	}
	if c := r.Resume; c.Completed != 20 || !c.Cold || c.Behind != 50 || r.Deliveries.Received != 20*50 {
		t.Errorf("%+v, %+v", c, r.Deliveries)
	}
	s.fault = func(client, event int, block string) []string {
		if event == 30 {
			return nil
		}
		return []string{block}
	}
	r, err = Comeback(t.Context(), cfg, Behind{Events: 50, From: file})
	if err != nil || r.Err() == nil || r.Exactness.Lost != 20 {
		t.Errorf("a server that forgot an event: %v, %+v", err, r)
	}
}

func TestAStorm(t *testing.T) {
	_, cfg := startServer(t)
	cfg.Duration = time.Second
	r, err := Returning(t.Context(), cfg, 30, 100)
	if err != nil || r.Err() != nil {
		t.Fatal(err, r)
	}
	s := r.Storm
	if s.Completed != 30 || s.Behind < 80 || s.Behind > 200 || s.Before.Count == 0 || s.During.Count == 0 || s.EachMs.Count != 30 || s.Seconds <= 0.9 {
		t.Errorf("%+v", s)
	}
}

func TestIdleConnections(t *testing.T) {
	_, cfg := startServer(t)
	cfg.Processes = []Process{{"self", os.Getpid()}}
	r, err := Idle(t.Context(), cfg, 300*time.Millisecond)
	if err != nil || r.Err() != nil {
		t.Fatal(err, r)
	}
	if r.Idle.KBPerConn == 0 || r.Idle.SettledAfter < 0.2 || r.Connect.Opened != 20 {
		t.Errorf("%+v, %+v", r.Idle, r.Connect)
	}
}

func TestASourceThatIsNotThere(t *testing.T) {
	cfg := Config{URLs: []string{"http://127.0.0.1:1"}, Conns: 3, Publisher: &memoryPublisher{lanes: 1}}
	if _, err := Live(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "3 × connect: connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestProcessesThatCannotBeMeasured(t *testing.T) {
	for _, text := range []string{"", "x", "gateway=", "=1", "-5", "gateway=4194999"} {
		if p, err := ParseProcess(text); err == nil || !strings.HasPrefix(err.Error(), "--pid: ") {
			t.Errorf("%q: got %+v and %v", text, p, err)
		}
	}
	if p, err := ParseProcess(fmt.Sprintf("gateway=%d", os.Getpid())); err != nil || p.Name != "gateway" {
		t.Errorf("%+v, %v", p, err)
	}
}
