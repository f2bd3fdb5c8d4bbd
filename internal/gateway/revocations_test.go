package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/stream"
)

// admin asks the admin listener and returns its answer.
func (f *face) adminAnswers(t *testing.T, method, query string) (status int, answer map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, f.admin+"/v1/connections"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

func TestRevoking(t *testing.T) {
	for driven, newFace := range guarded {
		for _, query := range []string{"?subject=ann", "?tokenId=id-of-ann", "?tokenId=id-of-ann&issuer=" + testIssuer} {
			t.Run(driven+query, func(t *testing.T) {
				d := newDoor(t, nil)
				f := newFace(t, Config{}, d)
				ann, bob := d.token(t, "ann", time.Hour, "orders"), d.token(t, "bob", time.Hour, "orders")
				sse, ws := get(t, f.url+"/v1/events?topic=orders", bearer(ann)...), f.dialAs(t, "?topic=orders", ann)
				other := f.dialAs(t, "?topic=orders", bob)
				ws.want(`{"type":"subscribed","position":"P0"}`)
				other.want(`{"type":"subscribed","position":"P0"}`)
				if status, answer := f.adminAnswers(t, "GET", "?subject=ann"); status != 200 || answer["matching"] != 2.0 || answer["open"] != 3.0 || len(answer["connections"].([]any)) != 2 {
					t.Errorf("%d %v", status, answer)
				}
				if status, answer := f.adminAnswers(t, "DELETE", query); status != 200 || answer["closed"] != 2.0 {
					t.Errorf("%d %v", status, answer)
				}
				body, err := io.ReadAll(sse.Body)
				if err != nil || !strings.Contains(string(body), "revoked") {
					t.Errorf("%q, %v", body, err)
				}
				ws.wantProblem("", "unauthorized", "", "revoked")
				ws.wantClose(closeToken)
				wantStatus(t, get(t, f.url+"/v1/events?topic=orders", bearer(ann)...), http.StatusUnauthorized, "revoked")
				f.sub(t, 2).push(wsItem("1", 1))
				if frame := other.next(); !strings.Contains(frame, `"event":1`) {
					t.Errorf("another subject gets %s", frame)
				}
			})
		}
	}
}

func TestWhatCantBeRevoked(t *testing.T) {
	f := faceOf(t, Config{}, newDoor(t, nil).Access)
	for query, field := range map[string]string{
		"": "subject", "?subject=a&tokenId=b": "subject", "?subject=": "subject", "?issuer=a": "subject", "?sub=a": "sub", "?subject=a&until=tomorrow": "until",
		"?subject=a&until=2020-01-31T12:00:00Z": "until",
	} {
		if status, answer := f.adminAnswers(t, "DELETE", query); status != 400 || answer["field"] != field {
			t.Errorf("%q: %d %v", query, status, answer)
		}
	}
}

// publisher keeps what is published, or fails.
type publisher struct {
	mu      sync.Mutex
	records []stream.Record
	err     error
}

func (p *publisher) Publish(_ context.Context, records []stream.Record) ([]stream.Receipt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records = append(p.records, records...)
	return nil, p.err
}

// revocationTopics knows the topic of revocations, with one record in it.
type revocationTopics struct{ fakeTopics }

func (revocationTopics) Lookup(_ context.Context, name string) (stream.Topic, error) {
	return stream.Topic{Name: name, Begin: []int64{0}, End: []int64{1}}, nil
}

func TestRevocationsReachEveryReplica(t *testing.T) {
	d, p := newDoor(t, nil), &publisher{}
	f := faceOf(t, Config{Revocations: "revoked", Publisher: p}, d.Access)
	f.Gateway.topics = newTopicList(&revocationTopics{})
	f.running(t)
	follower := f.sub(t, 0)
	ready := func() int { return get(t, f.url+"/readyz").StatusCode }
	if ready() != http.StatusServiceUnavailable {
		t.Error("ready before what was revoked is known")
	}
	ann, bob := d.token(t, "ann", time.Hour, "orders", "revoked"), d.token(t, "bob", time.Hour, "orders")
	wantStatus(t, get(t, f.url+"/v1/events?topic=orders", bearer(ann)...), http.StatusServiceUnavailable, "doesn't know yet")
	wantStatus(t, get(t, f.url+"/v1/topics", bearer(ann)...), http.StatusServiceUnavailable, "doesn't know yet")
	revoke := func(r auth.Revocation, n int64) {
		value, _ := json.Marshal(r)
		i := item(string(value), int(n))
		i.Message.Key, i.Message.Topic, i.ID = []byte(r.Key()), "revoked", stream.NewPosition(stream.Incarnation{1}, "revoked", n).String()
		follower.push(i)
	}
	about := auth.Revocation{Subject: "zoe", At: time.Now().Add(time.Second), Until: time.Now().Add(time.Hour)}
	revoke(about, 1)
	eventually(t, "ready", func() bool { return ready() == http.StatusOK })
	ws, other := f.dialAs(t, "?topic=orders", ann), f.dialAs(t, "?topic=orders", bob)
	ws.want(`{"type":"subscribed","position":"P0"}`)
	about.Subject = "ann"
	revoke(about, 2)
	ws.wantProblem("", "unauthorized", "", "revoked")
	wantStatus(t, get(t, f.url+"/v1/events?topic=orders", bearer(ann)...), http.StatusUnauthorized, "revoked")
	garbage := item("garbage", 3)
	garbage.ID = stream.NewPosition(stream.Incarnation{1}, "revoked", 3).String()
	follower.push(garbage)
	restored := item("", 4)
	restored.Message.Value, restored.Message.Key, restored.ID = nil, []byte(about.Key()), stream.NewPosition(stream.Incarnation{1}, "revoked", 4).String()
	follower.push(restored)
	eventually(t, "ann is back", func() bool { return get(t, f.url+"/v1/events?topic=orders", bearer(ann)...).StatusCode == 200 })
	wantStatus(t, get(t, f.url+"/v1/events?topic=revoked", bearer(ann)...), http.StatusNotFound, "no topic")

	if status, answer := f.adminAnswers(t, "DELETE", "?subject=bob"); status != 200 || answer["closed"] != 1.0 {
		t.Errorf("%d %v", status, answer)
	}
	other.want(`{"type":"subscribed","position":"P0"}`)
	other.wantProblem("", "unauthorized", "", "revoked")
	if r, err := auth.ParseRevocation(p.records[0].Value); err != nil || r.Subject != "bob" || p.records[0].Topic != "revoked" || string(p.records[0].Key) != r.Key() {
		t.Errorf("published %+v, %v", p.records, err)
	}
	p.mu.Lock()
	p.err = context.DeadlineExceeded
	p.mu.Unlock()
	if status, answer := f.adminAnswers(t, "DELETE", "?subject=carl"); status != http.StatusServiceUnavailable {
		t.Errorf("%d %v", status, answer)
	}
}
