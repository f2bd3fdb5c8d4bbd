//go:build integration

package auth

import (
	"net/http"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
)

// pageOf returns a page of another origin, and a gateway that lets it in with a ticket.
func pageOf(t *testing.T, kafka *harness.Kafka) (*harness.Page, *harness.Gateway, *harness.Issuer) {
	t.Helper()
	origin := harness.Serve(t, http.HandlerFunc(harness.ServePage))
	issuer := harness.NewIssuer(t, "")
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{
		Brokers: kafka.Bootstrap, Issuer: issuer, Env: []string{"STREAMGW_CORS_ORIGINS=" + origin},
	})
	return harness.OpenPage(t, origin), gateway, issuer
}

// past is a little more than a ticket lives.
const past = 31 * time.Second

// TestAnEventSourceComesBackAfterItsTicketHasRunOut: the browser reconnects by itself with the address that it has, and the
// cookie that it was given lets it in.
func TestAnEventSourceComesBackAfterItsTicketHasRunOut(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	producer := kafka.NewProducer(topic)
	page, gateway, issuer := pageOf(t, kafka)
	ticket := issuer.Gave(page.Ticket(gateway.URL+"/v1/tickets?topic="+topic, issuer.Token("ann", time.Hour, "all", true), "include"))
	page.ListenWithCookies(gateway.URL + "/v1/events?topic=" + topic + "&ticket=" + ticket)
	l := harness.NewLedger()
	producer.SendAll(50, 0, 1, 2)
	page.TakeTo(l, 150)
	time.Sleep(past) // the ticket's own time, in a real browser
	gateway.Kill()
	producer.SendAll(50, 0, 1, 2)
	gateway.Restart()
	if opened := page.TakeTo(l, 300); opened != 2 {
		t.Errorf("the EventSource opened %d times", opened)
	}
}

// TestWithoutItsCookieAPageTakesANewTicket: the reconnect is a 204, which closes the EventSource for good and fires no error
// that would be repeated; the page goes on where it was.
func TestWithoutItsCookieAPageTakesANewTicket(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	producer := kafka.NewProducer(topic)
	page, gateway, issuer := pageOf(t, kafka)
	token := issuer.Token("ann", time.Hour, "all", true)
	address := func(ticket string) string { return gateway.URL + "/v1/events?topic=" + topic + "&ticket=" + ticket }
	page.Listen(address(issuer.Gave(page.Ticket(gateway.URL+"/v1/tickets", token, "omit"))))
	l := harness.NewLedger()
	producer.SendAll(50, 0, 1, 2)
	page.TakeTo(l, 150)
	last := page.LastID()
	time.Sleep(past)
	gateway.Kill()
	producer.SendAll(50, 0, 1, 2)
	gateway.Restart()
	harness.Until(t, time.Minute, "the EventSource has closed for good", func() bool { return page.Take().State == 2 })
	page.Listen(address(issuer.Gave(page.Ticket(gateway.URL+"/v1/tickets", token, "omit"))) + "&lastEventId=" + last)
	page.TakeTo(l, 300)
}
