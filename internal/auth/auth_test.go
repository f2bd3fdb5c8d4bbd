package auth

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

func TestModeMustBeChosen(t *testing.T) {
	for mode, want := range map[Mode]string{
		"":      "isn't set",
		"jwt":   "auth.issuers",
		"None":  `is "None"`,
		"false": `is "false"`,
	} {
		if _, err := New(Config{Mode: mode}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %q: error %v, want one with %q", mode, err, want)
		}
	}
}

func TestModeNoneReadsEverythingButInternalTopics(t *testing.T) {
	access, err := New(Config{Mode: None})
	if err != nil {
		t.Fatal(err)
	}
	grant, err := access.Admit(httptest.NewRequest("GET", "/v1/events?topic=orders", nil))
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]bool{"orders.order.placed": true, "_private": true, "__consumer_offsets": false} {
		if got := grant.MayRead(topic); got != want {
			t.Errorf("MayRead(%q) = %v, want %v", topic, got, want)
		}
	}
}

func TestZeroGrantAllowsNothing(t *testing.T) {
	for name, g := range map[string]*Grant{"zero": {}, "nil": nil} {
		if g.MayRead("orders.order.placed") {
			t.Errorf("the %s grant may read a topic", name)
		}
	}
	if _, _, ok := new(Grant).MayPublish("orders", "", ""); ok {
		t.Error("the zero grant may publish")
	}
}

// door is an access that knows one issuer.
type door struct {
	*Access
	signer signer
	now    time.Time
}

// newDoor returns one with changes to its configuration. Its clock is the field now.
func newDoor(t *testing.T, change func(*Config)) *door {
	t.Helper()
	d := &door{signer: newSigner(t, "HS256", ""), now: noon()}
	cfg := Config{
		Mode:             JWT,
		Issuers:          []Issuer{issuerOf(t, d.signer)},
		Verifier:         VerifierConfig{Now: func() time.Time { return d.now }},
		TicketSecretFile: secretFile(t, strings.Repeat("s", 32)),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if d.Access, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return d
}

func secretFile(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tickets")
	write(t, name, strings.Join(lines, "\n")+"\n")
	return name
}

// token returns a good one with more claims.
func (d *door) token(t *testing.T, more ...any) string {
	t.Helper()
	c := goodClaims()
	for i := 0; i+1 < len(more); i += 2 {
		c = c.with(more[i].(string), more[i+1])
	}
	return d.signer.token(t, c)
}

func (d *door) mustAdmit(t *testing.T, token string) *Grant {
	t.Helper()
	g, err := d.AdmitToken(context.Background(), token)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// subscribe is the claim of a token with read rules.
func subscribe(rules ...map[string]any) map[string]any {
	return map[string]any{"subscribe": rules}
}

func request(target string, headers ...string) *http.Request {
	r := httptest.NewRequest("GET", target, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestWhereATokenComesFrom(t *testing.T) {
	d := newDoor(t, func(c *Config) { c.Query, c.Cookie, c.Origins = true, "token", []string{"https://app.example"} })
	good, other := d.token(t, "sub", "ann"), d.token(t, "sub", "bob")
	const page, evil = "https://app.example", "https://evil.example"
	for name, tt := range map[string]struct {
		r    *http.Request
		want string // the subject, or a part of the error
	}{
		"header":                          {request("/", "Authorization", "Bearer "+good), "ann"},
		"scheme in any case":              {request("/", "Authorization", "bearer "+good), "ann"},
		"header wins over all":            {request("/?access_token="+other, "Authorization", "Bearer "+good, "Cookie", "token="+other, "Origin", page), "ann"},
		"another scheme":                  {request("/", "Authorization", "Basic YTpi"), "Bearer TOKEN"},
		"no token in the header":          {request("/?access_token="+good, "Authorization", "Bearer"), "Bearer TOKEN"},
		"two headers":                     {request("/", "Authorization", "Bearer "+good, "Authorization", "Bearer "+good), "several Authorization"},
		"a bad header isn't passed over":  {request("/?access_token="+good, "Authorization", "Bearer x"), "JWT"},
		"subprotocol":                     {request("/", "Sec-WebSocket-Protocol", "streamgw.v1, bearer."+good), "ann"},
		"two subprotocols":                {request("/", "Sec-WebSocket-Protocol", "bearer."+good+", bearer."+other), "isn't one token"},
		"an empty subprotocol":            {request("/", "Sec-WebSocket-Protocol", "bearer."), "isn't one token"},
		"query":                           {request("/?access_token=" + good), "ann"},
		"cookie of a listed page":         {request("/", "Cookie", "token="+good, "Origin", page), "ann"},
		"cookie of the gateway's page":    {request("/", "Cookie", "token="+good, "Origin", "http://example.com"), "ann"},
		"cookie within the origin":        {request("/", "Cookie", "token="+good, "Sec-Fetch-Site", "same-origin"), "ann"},
		"cookie by another scheme":        {request("/", "Cookie", "token="+good, "Origin", "http://example.com", "Sec-Fetch-Site", "cross-site"), "origin may not"},
		"two in the query":                {request("/?access_token=" + good + "&access_token=" + other), "more than once"},
		"two tickets":                     {request("/?ticket=a&ticket=b"), "more than once"},
		"cookie of a sibling":             {request("/", "Cookie", "token="+good, "Sec-Fetch-Site", "same-site"), "origin may not"},
		"cookie of a foreign page":        {request("/", "Cookie", "token="+good, "Origin", evil), "origin may not"},
		"cookie of a page without origin": {request("/", "Cookie", "token="+good, "Origin", "null"), "origin may not"},
		"cookie of no page":               {request("/", "Cookie", "token="+good), "origin may not"},
		"two cookies":                     {request("/", "Cookie", "token="+good+"; token="+other, "Origin", page), "several cookies"},
		"nothing":                         {request("/"), "a token is needed"},
		"another cookie":                  {request("/", "Cookie", "session="+good, "Origin", page), "a token is needed"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := d.Admit(tt.r)
			if err == nil {
				if got := g.Identity().Subject; got != tt.want {
					t.Errorf("admitted %q, want %q", got, tt.want)
				}
				return
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			wantNothingOf(t, good, err.Error())
		})
	}
	closed := newDoor(t, nil)
	for name, r := range map[string]*http.Request{
		"query":  request("/?access_token=" + closed.token(t)),
		"cookie": request("/", "Cookie", "token="+closed.token(t), "Origin", "http://example.com"),
	} {
		if _, err := closed.Admit(r); err != ErrNoToken {
			t.Errorf("%s, which isn't configured: %v", name, err)
		}
	}
}

func TestTokensEndAtExpAndThoseWithinTheSkewAfterIt(t *testing.T) {
	d := newDoor(t, nil)
	exp := noon().Add(time.Minute)
	token := d.token(t, "exp", exp.Unix())
	for at, want := range map[time.Duration]time.Duration{0: 0, 59 * time.Second: 0, 61 * time.Second: 30 * time.Second, 89 * time.Second: 30 * time.Second} {
		d.now = noon().Add(at)
		if ends := d.mustAdmit(t, token).Identity().Ends; !ends.Equal(exp.Add(want)) {
			t.Errorf("%s in: ends %s after exp, want %s", at, ends.Sub(exp), want)
		}
	}
	d.now = noon().Add(91 * time.Second)
	if _, err := d.AdmitToken(t.Context(), token); err == nil {
		t.Error("admitted after exp and the skew")
	}
}

func TestAGrantsErrorsAreOfAKind(t *testing.T) {
	d := newDoor(t, nil)
	for name, claim := range map[string]any{
		"not an object":    []any{},
		"unknown member":   map[string]any{"subscribe": []any{map[string]any{"topic": "a", "only": "x"}}},
		"in capitals":      subscribe(map[string]any{"topic": "a", "keys": []string{"x"}, "Keys": []string{"y"}}),
		"of another list":  map[string]any{"publish": []any{map[string]any{"topic": "a", "keys": []any{"x"}}}},
		"an empty filter":  subscribe(map[string]any{"topic": "a", "filter": ""}),
		"an empty key":     map[string]any{"publish": []any{map[string]any{"topic": "a", "key": ""}}},
		"an empty source":  map[string]any{"publish": []any{map[string]any{"topic": "a", "source": ""}}},
		"lists of texts":   map[string]any{"subscribe": []any{"a"}},
		"keys are null":    subscribe(map[string]any{"topic": "a", "keys": nil}),
		"keys are text":    subscribe(map[string]any{"topic": "a", "keys": "x"}),
		"a bad pattern":    subscribe(map[string]any{"topic": "a**"}),
		"no topic":         subscribe(map[string]any{"keys": []string{"a"}}),
		"a bad template":   subscribe(map[string]any{"topic": "a", "keys": []string{"{sub"}}),
		"a bad filter":     subscribe(map[string]any{"topic": "a", "filter": "bad"}),
		"a null history":   subscribe(map[string]any{"topic": "a", "history": nil}),
		"a null filter":    subscribe(map[string]any{"topic": "a", "filter": nil}),
		"null rules":       map[string]any{"subscribe": nil},
		"a null rule":      map[string]any{"subscribe": []any{nil}},
		"a number history": subscribe(map[string]any{"topic": "a", "history": 5}),
		"negative history": subscribe(map[string]any{"topic": "a", "history": "-1h"}),
	} {
		_, err := d.AdmitToken(t.Context(), d.token(t, "streamgw", claim))
		if e, ok := err.(*stream.Error); !ok || e.Kind != stream.Unauthorized {
			t.Errorf("%s: %v, want one of kind Unauthorized", name, err)
		}
	}
}
