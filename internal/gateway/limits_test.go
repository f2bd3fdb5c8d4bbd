package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestWhoTheClientIs takes a proxy's word only where the proxy is trusted.
func TestWhoTheClientIs(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, tt := range map[string]struct {
		limits Limits
		peer   string
		header []string // X-Forwarded-For and so on
		want   string
	}{
		"nobody is trusted":           {Limits{}, "192.0.2.1:5", []string{"X-Forwarded-For", "203.0.113.9"}, "192.0.2.1/32"},
		"the peer isn't trusted":      {Limits{TrustedProxies: proxies}, "192.0.2.1:5", []string{"X-Forwarded-For", "203.0.113.9"}, "192.0.2.1/32"},
		"a trusted one":               {Limits{TrustedProxies: proxies}, "10.1.1.1:5", []string{"X-Forwarded-For", "203.0.113.9"}, "203.0.113.9/32"},
		"a forged one before it":      {Limits{TrustedProxies: proxies}, "10.1.1.1:5", []string{"X-Forwarded-For", "198.51.100.7, 203.0.113.9"}, "203.0.113.9/32"},
		"forged in another header":    {Limits{TrustedProxies: proxies}, "10.1.1.1:5", []string{"X-Forwarded-For", "198.51.100.7", "X-Forwarded-For", "203.0.113.9"}, "203.0.113.9/32"},
		"two proxies":                 {Limits{TrustedProxies: proxies}, "10.1.1.1:5", []string{"X-Forwarded-For", "203.0.113.9, 10.2.2.2"}, "203.0.113.9/32"},
		"garbage counts as the proxy": {Limits{TrustedProxies: proxies}, "10.1.1.1:5", []string{"X-Forwarded-For", "203.0.113.9, ${jndi}"}, "10.1.1.1/32"},
		"none counts as the proxy":    {Limits{TrustedProxies: proxies}, "10.1.1.1:5", nil, "10.1.1.1/32"},
		"IPv6 counts by its /64":      {Limits{}, "[2001:db8:1:2:3:4:5:6]:5", nil, "2001:db8:1:2::/64"},
		"IPv4 in IPv6":                {Limits{}, "[::ffff:192.0.2.1]:5", nil, "192.0.2.1/32"},
		"Forwarded isn't asked for":   {Limits{TrustedProxies: proxies}, "10.1.1.1:5", []string{"Forwarded", "for=198.51.100.7", "X-Forwarded-For", "203.0.113.9"}, "203.0.113.9/32"},
		"Forwarded is": {
			Limits{TrustedProxies: proxies, Forwarded: true}, "10.1.1.1:5",
			[]string{"X-Forwarded-For", "198.51.100.7", "Forwarded", `for=198.51.100.8, For="203.0.113.9:4711";proto=https;by=10.1.1.1`}, "203.0.113.9/32",
		},
		"Forwarded with IPv6": {
			Limits{TrustedProxies: proxies, Forwarded: true}, "10.1.1.1:5",
			[]string{"Forwarded", `for="[2001:db8:1:2::9]:4711", for="[fd00::1]"`}, "2001:db8:1:2::/64",
		},
		"Forwarded of nobody": {
			Limits{TrustedProxies: proxies, Forwarded: true}, "10.1.1.1:5", []string{"Forwarded", `for=198.51.100.7, for=""`}, "10.1.1.1/32",
		},
		"Forwarded of somebody unknown": {
			Limits{TrustedProxies: proxies, Forwarded: true}, "10.1.1.1:5", []string{"Forwarded", `for=203.0.113.9, for=_hidden`}, "10.1.1.1/32",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tt.limits.PerIP = 1
			var got netip.Prefix
			h := http.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = networkOf(r) }))
			around := newLimiter(tt.limits, newMetrics(nil)).clientAddress()
			for i := len(around) - 1; i >= 0; i-- {
				h = around[i](h)
			}
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = tt.peer
			for i := 0; i < len(tt.header); i += 2 {
				r.Header.Add(tt.header[i], tt.header[i+1])
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			if got.String() != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

// TestStreamsOverALimit are refused so that each kind of client comes back, and those that end make room.
func TestStreamsOverALimit(t *testing.T) {
	for name, tt := range map[string]struct {
		limits Limits
		metric string
		status int
	}{
		"connections": {Limits{Connections: 3}, "connections", http.StatusServiceUnavailable},
		"of an IP":    {Limits{PerIP: 3}, "perIP", http.StatusTooManyRequests},
		"rate":        {Limits{ConnectRate: 0.3}, "connectRate", http.StatusTooManyRequests},
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			f := newFace(t, Config{Limits: tt.limits, Metrics: registry})
			var first *http.Response
			for i := range 3 {
				if first = get(t, f.url+"/v1/events?topic=orders"); first.StatusCode != http.StatusOK {
					t.Fatalf("stream %d: %s", i, first.Status)
				}
			}
			for _, path := range []string{"/v1/events?topic=orders", "/v1/ws?topic=orders"} {
				refused := get(t, f.url+path, handshake...)
				if refused.StatusCode != tt.status || refused.Header.Get("Retry-After") == "" {
					t.Errorf("%s: %s, Retry-After %q", path, refused.Status, refused.Header.Get("Retry-After"))
				}
			}
			if body, _ := io.ReadAll(get(t, f.url+"/v1/events?topic=orders", "Sec-Fetch-Mode", "cors").Body); !bytes.HasPrefix(body, []byte("retry: ")) || !strings.Contains(string(body), "event: streamgw.error") {
				t.Errorf("an EventSource got %q", body)
			}
			if got := metric(t, registry, "streamgw_limited_total", tt.metric); got != 3 {
				t.Errorf("%v were counted as over %s", got, tt.metric)
			}
			if tt.limits.ConnectRate > 0 {
				return
			}
			first.Body.Close()
			eventually(t, "there is room again", func() bool {
				return get(t, f.url+"/v1/events?topic=orders").StatusCode == http.StatusOK
			})
		})
	}
}

var handshake = []string{
	"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==",
}

// TestLimiterForgets addresses and subjects that have nothing, so that no crowd of them fills memory.
func TestLimiterForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(Limits{PerIP: 2, PerSubject: 1, ConnectRate: 2}, newMetrics(nil))
		for i := range 1000 {
			v, err := l.enter(netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/32", i/250, i%250)))
			if err == nil {
				err = l.identify(&v, fmt.Sprint("subject-", i))
			}
			if err == nil {
				err = l.identify(&v, fmt.Sprint("subject-", i)) // a renewed token doesn't count again
			}
			if err != nil {
				t.Fatal(err)
			}
			second, err := l.enter(v.network.network)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.identify(&second, fmt.Sprint("subject-", i)); err == nil {
				t.Fatal("a second stream of a subject was let in")
			}
			l.leave(second)
			l.leave(v)
		}
		if len(l.subjects) != 0 || l.all != 0 {
			t.Errorf("%d subjects and %d streams are left", len(l.subjects), l.all)
		}
		time.Sleep(time.Minute)
		if _, err := l.enter(netip.MustParsePrefix("192.0.2.1/32")); err != nil || len(l.networks) != 1 {
			t.Errorf("%v; %d addresses are left", err, len(l.networks))
		}
	})
}

func FuzzForwarded(f *testing.F) {
	f.Add(`for=192.0.2.1;proto=http, for="[2001:db8::1]:80"`)
	f.Add(`for=",;=[`)
	f.Fuzz(func(t *testing.T, s string) {
		trusted := netip.MustParsePrefix("10.0.0.0/8")
		l := newLimiter(Limits{PerIP: 1, Forwarded: true, TrustedProxies: []netip.Prefix{trusted}}, newMetrics(nil))
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "10.1.1.1:5"
		r.Header.Set("Forwarded", s+", for=203.0.113.9") // what the proxy appends wins, whatever stands before it
		var got netip.Prefix
		h := http.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = networkOf(r) }))
		around := l.clientAddress()
		for i := len(around) - 1; i >= 0; i-- {
			h = around[i](h)
		}
		h.ServeHTTP(httptest.NewRecorder(), r)
		if got.String() != "203.0.113.9/32" {
			t.Errorf("%q: %v", s, got)
		}
	})
}
