package gateway

import (
	"context"
	"errors"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// fakeHubs hands out subscriptions that a test fills by hand.
type fakeHubs struct {
	mu       sync.Mutex // guards what follows
	refusal  error      // what Subscribe answers
	requests []fanout.Request
	subs     []*fakeSub
	budget   int64 // what Reserve may give
	taken    int64
	most     int64 // the highest taken was
}

func newFakeHubs() *fakeHubs { return &fakeHubs{budget: 1 << 30} }

func (h *fakeHubs) subscribe(ctx context.Context, req fanout.Request) (subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, req)
	if h.refusal != nil {
		return nil, h.refusal
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s := &fakeSub{req: req, position: "P0", closed: make(chan struct{})}
	h.subs = append(h.subs, s)
	return s, nil
}

func (h *fakeHubs) Reserve(n int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken+n > h.budget {
		return false
	}
	h.taken += n
	h.most = max(h.most, h.taken)
	return true
}

func (h *fakeHubs) Release(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken -= n
}

func (h *fakeHubs) Stats() []fanout.HubStats {
	return []fanout.HubStats{{Topic: "orders", Subscribers: 3, Channels: 1, Messages: 7, Bytes: 700}}
}

// sub returns the n-th subscription that was asked for, or nil.
func (h *fakeHubs) sub(n int) *fakeSub {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n >= len(h.subs) {
		return nil
	}
	return h.subs[n]
}

func (h *fakeHubs) request(n int) fanout.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[n]
}

// fakeSub is a subscription that yields what a test pushes.
type fakeSub struct {
	req fanout.Request

	mu       sync.Mutex // guards what follows
	batches  [][]fanout.Item
	polls    int
	position string
	told     string
	err      error
	closed   chan struct{}
	isClosed bool
}

// push makes a batch come with the next Poll.
func (s *fakeSub) push(items ...fanout.Item) {
	s.mu.Lock()
	s.batches = append(s.batches, items)
	s.mu.Unlock()
	s.req.Waker.Wake()
}

// errPanic makes Poll panic instead.
var errPanic = errors.New("a fault of ours")

// fail makes Poll fail once it has yielded what was pushed.
func (s *fakeSub) fail(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	s.req.Waker.Wake()
}

// pass moves the subscription past messages that its filter leaves out.
func (s *fakeSub) pass(position string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = position
}

func (s *fakeSub) Prefetch() {}

func (s *fakeSub) Poll(b *fanout.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.polls++
	b.Reset()
	if len(s.batches) == 0 && s.err == errPanic {
		panic(s.err)
	}
	if len(s.batches) == 0 {
		return s.err
	}
	b.Items = append(b.Items, s.batches[0]...)
	s.batches = slices.Delete(s.batches, 0, 1)
	b.More = len(s.batches) > 0 || s.err != nil
	s.position = b.Items[len(b.Items)-1].ID
	s.told = s.position
	return nil
}

func (s *fakeSub) Progress() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := s.told != "" && s.position != s.told || s.told == "" && s.position != "P0"
	s.told = s.position
	return s.position, moved
}

func (s *fakeSub) Position() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position
}

func (s *fakeSub) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed {
		close(s.closed)
	}
	s.isClosed = true
}

func (s *fakeSub) Unread(run fanout.Run, written int) (rest []byte, count int) {
	panic("no run was yielded")
}

// item is a message that isn't shared.
func item(value string, n int) fanout.Item {
	m := message(value)
	m.Topic = "orders"
	return fanout.Item{Message: m, ID: "P" + strconv.Itoa(n)}
}

// sharedItem is one with the frame that a hub would have encoded.
func sharedItem(f fanout.Format, value string, n int) fanout.Item {
	i := item(value, n)
	i.Frame = f.AppendMessage(nil, i.Message, i.ID)
	return i
}

// fakeTopics is a broker with a few topics.
type fakeTopics struct {
	topics []stream.Topic
	err    error
	asked  int
}

func (f *fakeTopics) List(context.Context) ([]stream.Topic, error) {
	f.asked++
	return f.topics, f.err
}

func (f *fakeTopics) Lookup(context.Context, string) (stream.Topic, error) {
	panic("the gateway doesn't look topics up")
}

func openAccess(t testing.TB) *auth.Access {
	t.Helper()
	access, err := auth.New(auth.Config{Mode: auth.None})
	if err != nil {
		t.Fatal(err)
	}
	return access
}

// face is a gateway on fake hubs behind a real HTTP server.
type face struct {
	*Gateway
	hubs   *fakeHubs
	topics *fakeTopics
	url    string
	admin  string
}

// newFace returns a gateway that runs: it takes connections over.
func newFace(t *testing.T, cfg Config) *face {
	t.Helper()
	f := newPlainFace(t, cfg)
	f.running(t)
	return f
}

// running runs the gateway until the test's end.
func (g *Gateway) running(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		deadline, stop := context.WithTimeout(context.Background(), 10*time.Second)
		defer stop()
		if err := g.Shutdown(deadline); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	for runtime.GOOS == "linux" && g.writers.Load() == nil {
		time.Sleep(time.Millisecond) // between two looks
	}
}

// faces are the ways to drive connections.
var faces = map[string]func(*testing.T, Config) *face{"taken over": newFace, "by loops": newPlainFace}

// newPlainFace returns a gateway that doesn't run: each connection has a loop.
func newPlainFace(t *testing.T, cfg Config) *face {
	t.Helper()
	return faceOf(t, cfg, openAccess(t))
}

// faceOf returns a gateway with somebody at its door, that doesn't run.
func faceOf(t *testing.T, cfg Config, access *auth.Access) *face {
	t.Helper()
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	f := &face{hubs: newFakeHubs(), topics: &fakeTopics{}}
	f.Gateway = newGateway(cfg, f.hubs, f.topics, access)
	serve := func(s *httptest.Server) string {
		s.Start()
		t.Cleanup(s.Close)
		return s.URL
	}
	public, admin := httptest.NewUnstartedServer(nil), httptest.NewUnstartedServer(nil)
	public.Config, admin.Config = Server(f.Public(), nil), Server(f.Admin(), nil)
	f.url, f.admin = serve(public), serve(admin)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return f
}

// eventually waits until what is true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond) // between two looks at the condition
	}
}

// subscription returns the n-th subscription of the gateway's clients, once it is there.
func (f *face) sub(t *testing.T, n int) *fakeSub {
	t.Helper()
	eventually(t, "a subscription", func() bool { return f.hubs.sub(n) != nil })
	return f.hubs.sub(n)
}

// metric returns the value of a metric with these label values, in the order of the labels' names; of a histogram its
// count.
func metric(t *testing.T, registry *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var values []string
			for _, pair := range m.GetLabel() {
				values = append(values, pair.GetValue())
			}
			if family.GetName() == name && slices.Equal(values, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}
