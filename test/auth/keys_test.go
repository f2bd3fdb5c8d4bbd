//go:build integration

package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/goodgo/streamgw/test/harness"
)

// publisher is an identity provider that publishes keys, as well as it is told to.
type publisher struct {
	t   testing.TB
	url string

	mu    sync.Mutex // guards what follows
	keys  map[string]*ecdsa.PrivateKey
	shown []string // ids of the keys that are published
	mood  string   // "well", "hangs", "fails", "lies"
	asked int
}

func newPublisher(t testing.TB) *publisher {
	p := &publisher{t: t, keys: map[string]*ecdsa.PrivateKey{}, mood: "well"}
	p.url = harness.Serve(t, p)
	return p
}

func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked++
	mood := p.mood
	var set []map[string]any
	for _, id := range p.shown {
		point, err := p.keys[id].PublicKey.Bytes()
		if err != nil {
			panic(err)
		}
		x, y := point[1:33], point[33:]
		b64 := base64.RawURLEncoding.EncodeToString
		set = append(set, map[string]any{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": b64(x), "y": b64(y)})
	}
	p.mu.Unlock()
	switch mood {
	case "hangs":
		<-r.Context().Done()
	case "fails":
		http.Error(w, "no", http.StatusInternalServerError)
	case "lies":
		fmt.Fprint(w, `{"keys":[{"kty":"EC"`)
	default:
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": set})
	}
}

// publishes has the provider publish keys of these ids, new ones where it has none.
func (p *publisher) publishes(mood string, ids ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		if p.keys[id] == nil {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				p.t.Fatal(err)
			}
			p.keys[id] = key
		}
	}
	p.shown, p.mood = ids, mood
}

func (p *publisher) token(id string) string {
	p.t.Helper()
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "https://rotating.example", "aud": "streamgw", "sub": "ann", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"streamgw": map[string]any{"subscribe": []any{map[string]any{"topic": "**"}}},
	})
	token.Header["kid"] = id
	p.mu.Lock()
	defer p.mu.Unlock()
	text, err := token.SignedString(p.keys[id])
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// TestKeysChangeUnderStreams: an identity provider rotates its keys, hangs, fails, lies and recovers, while streams that were
// opened with its earlier keys miss nothing.
func TestKeysChangeUnderStreams(t *testing.T) {
	kafka := harness.Brokers(t)
	topic := kafka.NewTopic(3)
	provider := newPublisher(t)
	provider.publishes("well", "one")
	gateway := harness.StartGateway(t, "gateway", harness.GatewayOptions{
		Brokers: kafka.Bootstrap, Env: []string{"STREAMGW_AUTH_MODE=jwt"},
		Config: fmt.Sprintf("auth:\n  issuers: [{issuer: https://rotating.example, audience: [streamgw], algorithms: [ES256], jwks: %q}]\n", provider.url),
	})
	producer := kafka.NewProducer(topic)
	var clients []*harness.Client
	for i := range 50 {
		clients = append(clients, &harness.Client{
			Name: fmt.Sprint("client ", i), Transport: harness.Transports()[i%2], Targets: []string{gateway.URL},
			Query: harness.Topics([]string{topic}, "from=earliest"), Header: harness.Bearer(provider.token("one")),
			Ledger: harness.NewLedger(), Rand: mrand.New(mrand.NewPCG(5, uint64(i))),
		})
	}
	crowd := harness.StartCrowd(t, clients...)
	crowd.WaitStanding(time.Minute)
	admitted := func(id string) int {
		status, _ := get(t, gateway.URL+"/v1/events?topic="+topic, provider.token(id))
		return status
	}
	expect := func(id string, want int) {
		t.Helper()
		if got := admitted(id); got != want {
			t.Errorf("a token of key %s: %d, want %d", id, got, want)
		}
		producer.SendAll(20, 0, 1, 2)
		crowd.WaitCount(producer.Sent(), time.Minute)
	}
	soon := func(id string, want int) { // the gateway asks again after its cool-down of 10 s
		t.Helper()
		harness.Until(t, 40*time.Second, fmt.Sprintf("a token of key %s is answered with %d", id, want), func() bool { return admitted(id) == want })
		expect(id, want)
	}
	expect("one", 200)
	provider.publishes("well", "one", "two") // the next key is published before it is used
	soon("two", 200)
	provider.publishes("hangs", "two", "three")
	expect("one", 200) // the last good keys
	soon("three", 503)
	provider.publishes("fails", "two", "three")
	soon("three", 503)
	provider.publishes("lies", "two", "three")
	expect("two", 200)
	provider.publishes("well", "two", "three")
	soon("three", 200)
	expect("one", 401) // withdrawn, for new streams
	if tally := crowd.Tally(); tally.Broken > 0 || tally.Connected != len(clients) {
		t.Errorf("streams were harmed: %+v", tally)
	}
	provider.mu.Lock()
	defer provider.mu.Unlock()
	t.Logf("50 streams had their %d events each while keys changed; the provider was asked %d times", producer.Sent(), provider.asked)
}
