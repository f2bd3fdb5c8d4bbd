package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// page keeps what its EventSource is given until the test takes it.
const page = `<!doctype html><title>events</title><script>
let got = [], others = [], opened = 0, source, ticket, last
function listen(url, options) {
  source = new EventSource(url, options)
  source.onopen = () => opened++
  source.onmessage = e => { last = e.lastEventId; got.push({id: last, data: e.data}) }
  for (const name of ['streamgw.gap', 'forged']) source.addEventListener(name, e => others.push(name + ' ' + e.data))
}
async function take_ticket(url, token, credentials) {
  ticket = ''
  const r = await fetch(url, {method: 'POST', headers: {Authorization: 'Bearer ' + token}, credentials})
  ticket = (await r.json()).ticket
}
function converse(url, frame) {
  source = new WebSocket(url, ['streamgw.v1'])
  source.onopen = () => { opened++; source.send(frame) }
  source.onmessage = e => {
    const f = JSON.parse(e.data)
    if (f.type === 'event') got.push({id: f.position, data: JSON.stringify(f.event)})
    else if (f.type !== 'position') others.push(e.data)
  }
}
function take() { return {got: got.splice(0), others: others.splice(0), opened, state: source.readyState} }
</script>`

// ServePage answers with the page that a Page shows.
func ServePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, page)
}

// Serve serves h on an address of its own until the test ends, and returns it: an origin.
func Serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// Page is a page in a headless Chromium, with an EventSource.
type Page struct {
	t   testing.TB
	tab context.Context
}

// Taken is what a page was given since it was last asked.
type Taken struct {
	Got []struct {
		ID   string `json:"id"`
		Data string `json:"data"`
	} `json:"got"`
	Others []string `json:"others"` // gaps, and events that no one sent
	Opened int      `json:"opened"` // how often the EventSource has opened in all
	State  int      `json:"state"`  // its readyState: 2 is closed for good
}

// OpenPage opens the page that is served at an address.
func OpenPage(t testing.TB, address string) *Page {
	t.Helper()
	Prepare(t, "need", "chromium", "chromium")
	flags := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath("chromium"), chromedp.UserDataDir(t.TempDir()))
	for _, name := range []string{"no-sandbox", "disable-gpu", "disable-quic", "disable-component-update"} {
		flags = append(flags, chromedp.Flag(name, true))
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), flags...)
	t.Cleanup(stop)
	tab, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab, chromedp.Navigate(address)); err != nil {
		t.Fatalf("open %s in Chromium: %v", address, err)
	}
	return &Page{t, tab}
}

func evaluate[T any](p *Page, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.tab, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// Listen opens an EventSource, and waits until it is open.
func (p *Page) Listen(address string) {
	p.t.Helper()
	p.listen(address, "{}")
}

// ListenWithCookies is Listen with the gateway's cookies sent and kept.
func (p *Page) ListenWithCookies(address string) {
	p.t.Helper()
	p.listen(address, "{withCredentials: true}")
}

// listen does so with options of EventSource's, in JavaScript.
func (p *Page) listen(address, options string) {
	p.t.Helper()
	quoted, err := json.Marshal(address)
	if err != nil {
		p.t.Fatal(err)
	}
	evaluate[bool](p, fmt.Sprintf("listen(%s, %s), true", quoted, options))
	Until(p.t, patience, "the EventSource is open", func() bool { return evaluate[int](p, "source.readyState") == 1 })
}

// Ticket has the page get a ticket with a token, and returns it. credentials is fetch's: whether the answer's cookie is
// kept.
func (p *Page) Ticket(address, token, credentials string) string {
	p.t.Helper()
	quoted, err := json.Marshal([]string{address, token, credentials})
	if err != nil {
		p.t.Fatal(err)
	}
	evaluate[bool](p, fmt.Sprintf("take_ticket(...%s), true", quoted))
	Until(p.t, patience, "the page has a ticket", func() bool { return evaluate[string](p, "ticket") != "" })
	return evaluate[string](p, "ticket")
}

// LastID returns the last event id that the page has seen.
func (p *Page) LastID() string { return evaluate[string](p, "last") }

// Converse opens a WebSocket instead, sends a frame, and waits until that is answered.
func (p *Page) Converse(address, frame string) {
	p.t.Helper()
	quoted, err := json.Marshal([]string{address, frame})
	if err != nil {
		p.t.Fatal(err)
	}
	evaluate[bool](p, fmt.Sprintf("converse(...%s), true", quoted))
	Until(p.t, patience, "the frame is answered", func() bool { return len(p.Take().Others) > 0 })
}

// Extensions returns what the page's WebSocket has agreed on.
func (p *Page) Extensions() string { return evaluate[string](p, "source.extensions") }

// Take returns what has come since the last Take.
func (p *Page) Take() Taken {
	p.t.Helper()
	return evaluate[Taken](p, "take()")
}

// TakeTo enters what comes into a ledger until that has count numbers, and returns how often the EventSource has opened.
func (p *Page) TakeTo(l *Ledger, count int64) (opened int) {
	p.t.Helper()
	Until(p.t, time.Minute, fmt.Sprintf("the page has %d numbers", count), func() bool {
		taken := p.Take()
		for _, e := range taken.Got {
			n, err := ParseNumber([]byte(e.Data))
			if err == nil {
				err = l.Take(n)
			}
			if err == nil && e.ID == "" {
				err = fmt.Errorf("%s has no last event id", e.Data)
			}
			if err != nil {
				p.t.Fatal(err)
			}
		}
		if len(taken.Others) > 0 {
			p.t.Fatalf("the page was given %q", taken.Others)
		}
		if taken.State == 2 {
			p.t.Fatalf("the EventSource has closed for good, after %d numbers", l.Count())
		}
		opened = taken.Opened
		return l.Count() >= count
	})
	return opened
}
