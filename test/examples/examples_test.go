//go:build integration

// Package examples runs the clients of the examples folder in a real browser, while their gateway is restarted.
package examples

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/goodgo/streamgw/test/harness"
)

// open opens a page in a headless Chromium.
func open(t *testing.T, address string) (tab context.Context) {
	t.Helper()
	harness.Prepare(t, "need", "chromium", "chromium")
	flags := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath("chromium"), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("no-sandbox", true), chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), flags...)
	t.Cleanup(stop)
	tab, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab, chromedp.Navigate(address)); err != nil {
		t.Fatalf("open %s: %v", address, err)
	}
	return tab
}

// shown returns what a page shows: its state and then its events, each a line.
func shown(t *testing.T, tab context.Context) (state string, events []string) {
	t.Helper()
	lines, err := chromedp.Run(tab, chromedp.Evaluate[[]string](`[...document.querySelectorAll('#state, #events li')].map(e => e.textContent)`))
	if err != nil {
		t.Fatal(err)
	}
	return lines[0], lines[1:]
}

func TestExamplesGoOnWhereTheyWere(t *testing.T) {
	kafka := harness.Brokers(t)
	origin := harness.Serve(t, http.FileServer(http.Dir(filepath.Join(harness.Root(t), "examples"))))
	for _, example := range []string{"eventsource", "websocket"} {
		t.Run(example, func(t *testing.T) {
			kafka := kafka.For(t)
			topic := kafka.NewTopic(1)
			producer := kafka.NewProducer(topic)
			gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{Brokers: kafka.Bootstrap, Env: []string{"STREAMGW_CORS_ORIGINS=" + origin}})
			tab := open(t, fmt.Sprintf("%s/%s/?gateway=%s&topic=%s", origin, example, gateway.URL, topic))
			is := func(want string) func() bool {
				return func() bool {
					state, _ := shown(t, tab)
					return state == want
				}
			}
			var want []string
			send := func(values ...string) {
				for _, v := range values {
					producer.SendRaw(0, nil, []byte(v))
				}
				want = append(want, values...)
				harness.Until(t, time.Minute, "the page shows "+strings.Join(want, " "), func() bool {
					_, events := shown(t, tab)
					return slices.Equal(events, want)
				})
			}

			harness.Until(t, time.Minute, "the page is connected", is("open"))
			send(`{"n":1}`, `{"n":2}`)
			gateway.Kill()
			harness.Until(t, time.Minute, "the page has noticed", is("reconnecting"))
			producer.SendRaw(0, nil, []byte(`{"n":3}`))
			want = append(want, `{"n":3}`)
			gateway.Restart()
			harness.Until(t, time.Minute, "the page is back", is("open"))
			send(`{"n":4}`)

			if example == "websocket" { // it keeps its position in the browser
				if err := chromedp.Do(tab, chromedp.Reload()); err != nil {
					t.Fatal(err)
				}
				want = nil
				harness.Until(t, time.Minute, "the page is back", is("open"))
				send(`{"n":5}`)
			}
		})
	}
}
