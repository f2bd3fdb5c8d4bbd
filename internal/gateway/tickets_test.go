package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// post posts with a token, an origin and cookies.
func post(t *testing.T, url, token string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestTickets(t *testing.T) {
	for driven, newFace := range guarded {
		t.Run(driven, func(t *testing.T) {
			var mu sync.Mutex
			now := time.Now()
			d := newDoor(t, func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
			f := newFace(t, Config{Origins: []string{"https://app.example"}}, d)
			token := d.token(t, "ann", time.Hour, "orders=ann", "news")
			resp := post(t, f.url+"/v1/tickets?topic=orders", token, "Origin", "https://app.example", "X-Forwarded-Proto", "https", "X-Forwarded-Prefix", "/live")
			var ticket ticketInfo
			if err := json.NewDecoder(resp.Body).Decode(&ticket); err != nil || resp.StatusCode != 200 {
				t.Fatal(resp.Status, err)
			}
			if left := ticket.Expires.Sub(now); left <= 28*time.Second || left > 30*time.Second {
				t.Errorf("it is good for %s", left)
			}
			if got := resp.Header.Get("Access-Control-Allow-Credentials"); got != "true" {
				t.Error("the page may not have its cookies")
			}
			cookies := resp.Cookies()
			if len(cookies) != 1 || !cookies[0].HttpOnly || !cookies[0].Secure || cookies[0].SameSite != http.SameSiteStrictMode || cookies[0].Path != "/live/v1/events" {
				t.Fatalf("the cookies are %v", cookies)
			}
			cookie := cookies[0].Name + "=" + cookies[0].Value
			stream := f.url + "/v1/events?topic=orders&ticket=" + ticket.Ticket
			first := get(t, stream)
			if first.StatusCode != 200 || len(first.Cookies()) != 1 {
				t.Fatal(first.Status, first.Cookies())
			}
			wantStatus(t, get(t, f.url+"/v1/events?topic=news&ticket="+ticket.Ticket), http.StatusForbidden, "topic")
			wantStatus(t, post(t, f.url+"/v1/tickets?topic=secret", token), http.StatusForbidden, "secret")
			wantStatus(t, post(t, f.url+"/v1/tickets?key=a", token), http.StatusBadRequest, "key")
			mu.Lock()
			now = now.Add(31 * time.Second)
			mu.Unlock()
			gone := get(t, stream)
			if gone.StatusCode != http.StatusNoContent || gone.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("without its cookie, a reconnect after 31 s is %s", gone.Status)
			}
			wantStatus(t, get(t, stream, "Accept", "application/x-ndjson"), http.StatusUnauthorized, "ticket has expired")
			if back := get(t, stream, "Cookie", cookie); back.StatusCode != 200 {
				t.Errorf("with its cookie, a reconnect after 31 s is %s", back.Status)
			}
			if rows := f.hubs.request(1).Bounds[0].Filter; !slices.Equal(rows.Keys, []string{"ann"}) {
				t.Errorf("with a ticket, the rows are %s", rows)
			}
			wantStatus(t, get(t, f.url+"/v1/events?topic=orders", "Cookie", cookie), http.StatusUnauthorized, "token is needed")
		})
	}
}

func TestTheCookieIsForTLSAlone(t *testing.T) {
	d := newDoor(t, nil)
	f := faceOf(t, Config{}, d.Access)
	for _, tt := range []struct {
		header, value string
		want          bool
	}{
		{"X-Forwarded-Proto", "https", true}, {"X-Forwarded-Proto", "https, http", true}, {"X-Forwarded-Proto", "HTTPS", true},
		{"Forwarded", "for=192.0.2.1;proto=https", true}, {"Forwarded", `for=192.0.2.1;Proto="https"`, true},
		{"X-Forwarded-Proto", "http", false}, {"Forwarded", "for=192.0.2.1", false},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/v1/tickets", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+d.token(t, "ann", time.Hour, "orders"))
		r.Header.Set(tt.header, tt.value)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if cookies := resp.Cookies(); len(cookies) != 1 || cookies[0].Secure != tt.want {
			t.Errorf("%s: %s gives %v", tt.header, tt.value, cookies)
		}
	}
}
