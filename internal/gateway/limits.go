package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/goodgo/streamgw/internal/stream"
	"golang.org/x/time/rate"
)

// Limits bounds what clients may take of a gateway. A zero field is no bound. Who is over one is answered with 429 and
// Retry-After, an EventSource with a stream that tells it to come back.
type Limits struct {
	// Connections bounds the streams of this replica at once.
	Connections int

	// PerSubject bounds the streams of one subject, whichever of its tokens they came with. Without tokens there is none.
	PerSubject int

	// PerIP bounds the streams of one address; of IPv6 it is the /64 that counts, which one household has. Behind a
	// proxy that TrustedProxies doesn't name, all clients have the proxy's.
	PerIP int

	// ConnectRate bounds the streams that one address opens in a second, and the topics and tickets that it asks for, after
	// a first burst of ten seconds' worth.
	ConnectRate float64

	// TrustedProxies are the proxies whose word is taken on who the client is. The rightmost address of X-Forwarded-For
	// that isn't one of theirs is the client's.
	TrustedProxies []netip.Prefix

	// Forwarded takes that from the Forwarded header (RFC 7239) instead: for proxies that write this one. A proxy passes
	// on the other as the client sent it.
	Forwarded bool
}

// limiter counts streams against the limits.
type limiter struct {
	limits  Limits
	metrics *metrics

	mu       sync.Mutex // guards what follows
	all      int
	subjects map[string]*tally
	networks map[netip.Prefix]*tally
	swept    time.Time
}

// tally is what one subject or one address has.
type tally struct {
	streams int
	subject string        // of one
	network netip.Prefix  // or of the other
	rate    *rate.Limiter // nil: not bounded
}

// visit is the place of one stream under the limits.
type visit struct{ network, subject *tally }

func newLimiter(limits Limits, m *metrics) *limiter {
	return &limiter{limits: limits, metrics: m, subjects: map[string]*tally{}, networks: map[netip.Prefix]*tally{}}
}

// burst is how many seconds of ConnectRate may come at once.
const burst = 10

// enter counts a stream in that comes from an address.
func (l *limiter) enter(from netip.Prefix) (v visit, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limits.Connections > 0 && l.all >= l.limits.Connections {
		return v, l.over("connections", stream.Errorf(stream.Overloaded, "this gateway has all the streams that it may have"))
	}
	if from.IsValid() && (l.limits.PerIP > 0 || l.limits.ConnectRate > 0) {
		n := l.networkLocked(from)
		if err := l.paceLocked(n); err != nil {
			return v, err
		}
		if l.limits.PerIP > 0 && n.streams >= l.limits.PerIP {
			return v, l.over("perIP", stream.Errorf(stream.TooMany, "your address has %d streams, which is the most", n.streams))
		}
		n.streams++
		v.network = n
	}
	l.all++
	return v, nil
}

// ask counts what is no stream, and comes from an address, against its rate.
func (l *limiter) ask(from netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !from.IsValid() || l.limits.ConnectRate == 0 {
		return nil
	}
	return l.paceLocked(l.networkLocked(from))
}

// paceLocked holds an address against its rate.
func (l *limiter) paceLocked(n *tally) error {
	if n.rate == nil || n.rate.Allow() {
		return nil
	}
	return l.over("connectRate", stream.Errorf(stream.TooMany, "your address opens streams, or asks for what is no stream, too fast"))
}

func (l *limiter) networkLocked(from netip.Prefix) *tally {
	n := l.networks[from]
	if n == nil {
		l.sweepLocked(time.Now())
		n = &tally{network: from}
		if r := l.limits.ConnectRate; r > 0 {
			n.rate = rate.NewLimiter(rate.Limit(r), max(1, int(burst*r)))
		}
		l.networks[from] = n
	}
	return n
}

// sweepLocked forgets the addresses that nothing is to be known of any more.
func (l *limiter) sweepLocked(now time.Time) {
	if now.Sub(l.swept) < burst*time.Second {
		return
	}
	l.swept = now
	for from, n := range l.networks {
		if n.streams == 0 && (n.rate == nil || n.rate.TokensAt(now) >= float64(n.rate.Burst())) {
			delete(l.networks, from)
		}
	}
}

// identify counts the stream of a visit in as its subject's.
func (l *limiter) identify(v *visit, subject string) error {
	if subject == "" || l.limits.PerSubject == 0 || v.subject != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.subjects[subject]
	if n == nil {
		n = &tally{subject: subject}
		l.subjects[subject] = n
	}
	if n.streams >= l.limits.PerSubject {
		return l.over("perSubject", stream.Errorf(stream.TooMany, "this token's subject has %d streams, which is the most", n.streams))
	}
	n.streams++
	v.subject = n
	return nil
}

func (l *limiter) over(limit string, err error) error {
	l.metrics.limited.WithLabelValues(limit).Inc()
	return err
}

// count returns how many streams there are.
func (l *limiter) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// leave counts a stream out.
func (l *limiter) leave(v visit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if n := v.network; n != nil {
		if n.streams--; n.streams == 0 && n.rate == nil {
			delete(l.networks, n.network)
		}
	}
	if n := v.subject; n != nil {
		if n.streams--; n.streams == 0 {
			delete(l.subjects, n.subject)
		}
	}
}

// clientAddress has a request's context know the client's address, as far as the limits need it.
func (l *limiter) clientAddress() []func(http.Handler) http.Handler {
	if l.limits.PerIP == 0 && l.limits.ConnectRate == 0 {
		return nil
	}
	if len(l.limits.TrustedProxies) == 0 {
		return []func(http.Handler) http.Handler{middleware.ClientIPFromRemoteAddr}
	}
	var trusted []string
	for _, p := range l.limits.TrustedProxies {
		trusted = append(trusted, p.String())
	}
	fromXFF := middleware.ClientIPFromXFF(trusted...)
	if l.limits.Forwarded {
		return []func(http.Handler) http.Handler{forwardedAsXFF, fromXFF}
	}
	return []func(http.Handler) http.Handler{fromXFF}
}

// networkOf returns what a request's address counts as. Where a trusted proxy doesn't say who the client is, it is the
// proxy's own.
func networkOf(r *http.Request) netip.Prefix {
	addr := middleware.GetClientIPAddr(r.Context())
	if !addr.IsValid() {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		addr, _ = netip.ParseAddr(host)
	}
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // of no address: none
	return p
}

// forwardedAsXFF writes what a Forwarded header says (RFC 7239) as X-Forwarded-For would.
func forwardedAsXFF(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var list []string
		for _, v := range r.Header.Values("Forwarded") {
			for element := range strings.SplitSeq(v, ",") { // no address has a comma
				list = append(list, forwardedFor(element))
			}
		}
		r.Header.Set("X-Forwarded-For", strings.Join(list, ","))
		next.ServeHTTP(w, r)
	})
}

// forwardedFor returns the address of one element of a Forwarded header, "unknown" where it has none.
func forwardedFor(element string) string {
	for pair := range strings.SplitSeq(element, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if !strings.EqualFold(name, "for") {
			continue
		}
		value = strings.Trim(value, `"`)
		if at, err := netip.ParseAddrPort(value); err == nil {
			return at.Addr().String()
		}
		if value = strings.Trim(value, "[]"); value != "" {
			return value
		}
	}
	return "unknown" // of an empty one the look-out for the client would go on to what the client has written
}
