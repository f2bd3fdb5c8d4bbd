package auth

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// ticket returns one for a token.
func (d *door) ticket(t *testing.T, token string, topics ...string) string {
	t.Helper()
	ticket, err := d.Ticket(d.mustAdmit(t, token), topics)
	if err != nil {
		t.Fatal(err)
	}
	return ticket.Text
}

func (d *door) session(t *testing.T, token string) *http.Cookie {
	t.Helper()
	c, err := d.Session(d.mustAdmit(t, token))
	if err != nil || c == nil {
		t.Fatal(c, err)
	}
	return c
}

func allOf(topics ...string) map[string]any {
	var rules []map[string]any
	for _, topic := range topics {
		rules = append(rules, map[string]any{"topic": topic, "keys": []string{"{sub}"}})
	}
	return subscribe(rules...)
}

func TestATicketOpensForItsTime(t *testing.T) {
	d := newDoor(t, nil)
	ticket := d.ticket(t, d.token(t, "sub", "ann", "big", int64(1)<<60+1, "streamgw", allOf("a", "b")))
	for at, want := range map[time.Duration]error{0: nil, 29 * time.Second: nil, 30 * time.Second: ErrTicketExpired, time.Hour / 2: ErrTicketExpired} {
		d.now = noon().Add(at)
		g, err := d.Admit(request("/v1/events?topic=a&ticket=" + ticket))
		if err != want {
			t.Errorf("after %s: %v, want %v", at, err, want)
		}
		if err != nil {
			continue
		}
		if !mayReadKey(g, "a", "ann", "") || mayReadKey(g, "a", "bob", "") || !g.MayRead("b") || g.MayRead("c") {
			t.Error("the ticket grants other than its token")
		}
		if who := g.Identity(); who.Subject != "ann" || who.TokenID != "id-1" || !who.Ends.Equal(noon().Add(time.Hour)) || !g.ticket || !g.FreshTicket() {
			t.Errorf("the ticket is %+v", who)
		}
		if got := g.token.Claims["big"]; got != int64(1)<<60+1 {
			t.Errorf("a large number came back as %v", got)
		}
	}
}

func TestATicketIsForItsTopics(t *testing.T) {
	d := newDoor(t, nil)
	token := d.token(t, "streamgw", allOf("a", "b"))
	g, err := d.Admit(request("/v1/events?topic=a&ticket=" + d.ticket(t, token, "a")))
	if err != nil {
		t.Fatal(err)
	}
	if !g.MayRead("a") || g.MayRead("b") {
		t.Error("it is for other topics")
	}
	if _, err := d.Ticket(d.mustAdmit(t, token), []string{"a", "c"}); err == nil {
		t.Error("a ticket for a topic that isn't granted")
	}
	if _, err := d.Ticket(g, nil); err == nil {
		t.Error("a ticket for a ticket")
	}
	if _, _, ok := g.MayPublish("a", "", ""); ok {
		t.Error("a ticket publishes")
	}
}

func TestATicketEndsWithItsToken(t *testing.T) {
	d := newDoor(t, nil)
	ticket, err := d.Ticket(d.mustAdmit(t, d.token(t, "exp", noon().Add(10*time.Second).Unix())), nil)
	if err != nil || !ticket.Expires.Equal(noon().Add(10*time.Second)) {
		t.Errorf("%+v, %v", ticket, err)
	}
}

// TestATicketSaysWhatItsTokenSays, letter for letter: a number that is written otherwise could stand for another key.
func TestATicketSaysWhatItsTokenSays(t *testing.T) {
	d := newDoor(t, nil)
	claims := `{"iss":"` + issuerName + `","aud":"` + audience + `","sub":"ann","exp":` + fmt.Sprint(noon().Add(time.Hour).Unix()) +
		`,"level":5.0,"huge":1e20,"tag":"<a&b>","streamgw":{"subscribe":[{"topic":"a","keys":["{level}","{huge}","{tag}"]}]}}`
	token := d.signer.raw(t, `{"alg":"HS256"}`, claims)
	g, err := d.Admit(request("/?ticket=" + d.ticket(t, token)))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"5": false, "<a&b>": true} {
		if of, as := mayReadKey(d.mustAdmit(t, token), "a", key, ""), mayReadKey(g, "a", key, ""); of != want || as != want {
			t.Errorf("key %q: the token reads it: %v, the ticket: %v", key, of, as)
		}
	}
}

// TestATicketEndsWithItsKey, as the token does, and with what the issuer may sign for.
func TestATicketEndsWithItsKey(t *testing.T) {
	var path string
	d := newDoor(t, func(c *Config) { path = c.Issuers[0].SecretFile })
	token := d.token(t, "sub", "ann", "streamgw", allOf("a"))
	ticket, cookie := d.ticket(t, token), d.session(t, token)
	admit := func(a *Access) error {
		r := request("/?ticket=" + ticket)
		r.AddCookie(cookie)
		_, err := a.Admit(r)
		return err
	}
	if err := admit(d.Access); err != nil {
		t.Fatal(err)
	}
	cfg := d.cfg
	cfg.Issuers[0].Audience = []string{"another"}
	other, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := admit(other); err == nil || !strings.Contains(err.Error(), "audience") {
		t.Errorf("for another audience: %v", err)
	}
	write(t, path, strings.Repeat("another secret ", 5))
	d.verifier.files[0].reload(slog.New(slog.DiscardHandler))
	if err := admit(d.Access); err == nil || !strings.Contains(err.Error(), "no longer has") {
		t.Errorf("its key is gone: %v", err)
	}
}

func TestASessionRevivesATicketOfTheSameSubject(t *testing.T) {
	d := newDoor(t, nil)
	ann, bob := d.token(t, "sub", "ann", "streamgw", allOf("a")), d.token(t, "sub", "bob", "streamgw", allOf("a"))
	ticket, cookie, bobs := d.ticket(t, ann), d.session(t, ann), d.session(t, bob)
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || !cookie.Expires.Equal(noon().Add(time.Hour)) {
		t.Errorf("the cookie is %+v", cookie)
	}
	admit := func(after time.Duration, ticket string, cookies ...*http.Cookie) error {
		d.now = noon().Add(after)
		r := request("/v1/events?topic=a")
		if ticket != "" {
			r = request("/v1/events?topic=a&ticket=" + ticket)
		}
		for _, c := range cookies {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
		_, err := d.Admit(r)
		return err
	}
	for name, tt := range map[string]struct{ got, want error }{
		"with its cookie":       {admit(31*time.Second, ticket, cookie), nil},
		"much later":            {admit(59*time.Minute, ticket, cookie), nil},
		"with another's cookie": {admit(31*time.Second, ticket, bobs), ErrTicketExpired},
		"with both":             {admit(31*time.Second, ticket, bobs, cookie), nil},
		"without":               {admit(31*time.Second, ticket), ErrTicketExpired},
		"a cookie alone":        {admit(0, "", cookie), ErrNoToken},
		"a cookie as a ticket":  {admit(0, cookie.Value), errBadTicket},
		"a ticket as a cookie":  {admit(31*time.Second, ticket, &http.Cookie{Name: SessionCookie, Value: ticket}), ErrTicketExpired},
		"garbage as a cookie":   {admit(31*time.Second, ticket, &http.Cookie{Name: SessionCookie, Value: "x"}), ErrTicketExpired},
		"after the token's exp": {admit(time.Hour+10*time.Second, ticket, cookie), ErrTicketExpired},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", name, tt.got, tt.want)
		}
	}
	if err := admit(2*time.Hour, ticket, cookie); err == nil {
		t.Error("admitted after exp and skew")
	}
}

func TestTicketsThatArentOnes(t *testing.T) {
	d, other := newDoor(t, nil), newDoor(t, func(c *Config) { c.TicketSecretFile = secretFile(t, strings.Repeat("o", 32)) })
	good := d.ticket(t, d.token(t))
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	for name, ticket := range map[string]string{
		"another gateway's": other.ticket(t, other.token(t)), "cut": good[:len(good)-2], "flipped": string(flipped), "padded": good + "==", "empty seal": "AAAA",
		"long": strings.Repeat("A", maxTicketBytes+1), "a token": d.token(t), "spaces": " " + good,
	} {
		r := request("/v1/events")
		r.URL.RawQuery = "ticket=" + strings.ReplaceAll(ticket, " ", "%20")
		if _, err := d.Admit(r); err != errBadTicket {
			t.Errorf("%s: %v", name, err)
		} else {
			wantNothingOf(t, good, err.Error())
		}
	}
}

func TestTheTicketSecretChanges(t *testing.T) {
	was, will := strings.Repeat("w", 32), strings.Repeat("n", 40)
	before := newDoor(t, func(c *Config) { c.TicketSecretFile = secretFile(t, was) })
	signer := before.signer
	between := newDoor(t, func(c *Config) {
		c.TicketSecretFile, c.Issuers = secretFile(t, will, was), []Issuer{issuerOf(t, signer)}
	})
	after := newDoor(t, func(c *Config) {
		c.TicketSecretFile, c.Issuers = secretFile(t, will), []Issuer{issuerOf(t, signer)}
	})
	between.signer = signer
	old, fresh := before.ticket(t, before.token(t)), between.ticket(t, between.token(t))
	for name, tt := range map[string]struct {
		at     *door
		ticket string
		want   error
	}{
		"old between": {between, old, nil}, "new between": {between, fresh, nil}, "old after": {after, old, errBadTicket}, "new after": {after, fresh, nil},
	} {
		if _, err := tt.at.Admit(request("/?ticket=" + tt.ticket)); err != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, file := range map[string]string{"short": secretFile(t, "short"), "empty": secretFile(t, ""), "missing": "/nowhere"} {
		if _, err := newSealer(file); err == nil {
			t.Errorf("a %s secret is taken", name)
		}
	}
}

func TestTicketsThatCantBeGiven(t *testing.T) {
	d := newDoor(t, nil)
	_, err := d.Ticket(d.mustAdmit(t, d.token(t, "much", strings.Repeat("x", maxTicketBytes))), nil)
	if e, ok := err.(*stream.Error); !ok || e.Kind != stream.TooLarge {
		t.Errorf("claims beyond the bound: %v", err)
	}
	none := newDoor(t, func(c *Config) { c.TicketSecretFile = "" })
	if _, err := none.Ticket(none.mustAdmit(t, none.token(t)), nil); err != ErrNoTickets {
		t.Errorf("without a secret: %v", err)
	}
	if _, err := none.Admit(request("/?ticket=x")); err != ErrNoTickets {
		t.Errorf("a ticket without a secret: %v", err)
	}
}
