package bench

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestPosting(t *testing.T) {
	for name, tt := range map[string]struct {
		posting Posting
		want    []string
	}{
		"an event a request": {Posting{}, []string{`POST /in application/json {"a":1}`, `POST /in application/json {"b":2}`}},
		"all in one request": {Posting{Together: true}, []string{`POST /in application/json [{"a":1},{"b":2}]`}},
		"as another server wants it": {
			Posting{Body: "t={topic}&k={key}&d={event-url}", Topic: "x", Headers: []string{"content-type: application/x-www-form-urlencoded"}},
			[]string{
				`POST /in application/x-www-form-urlencoded t=x&k=K1&d=%7B%22a%22%3A1%7D`,
				`POST /in application/x-www-form-urlencoded t=x&k=K2&d=%7B%22b%22%3A2%7D`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var got []string
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				got = append(got, strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Content-Type"), string(body)}, " "))
			}))
			defer server.Close()
			tt.posting.URL = server.URL + "/in"
			p, err := tt.posting.Publisher()
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			events := []Event{{Key: []byte("K1"), Value: []byte(`{"a":1}`)}, {Key: []byte("K2"), Value: []byte(`{"b":2}`)}}
			if err := p.Publish(t.Context(), 0, events); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("what is refused", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not allowed", http.StatusForbidden)
		}))
		defer server.Close()
		p, err := Posting{URL: server.URL}.Publisher()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Publish(t.Context(), 0, []Event{{Value: []byte("{}")}}); err == nil || !strings.Contains(err.Error(), `403 Forbidden: "not allowed"`) {
			t.Errorf("got %v", err)
		}
	})
	for flag, p := range map[string]Posting{
		"--publish-url":    {URL: "x"},
		"--publish-header": {URL: "http://x", Headers: []string{"x"}},
		"--publish-conns":  {URL: "http://x", Conns: -1},
		"--publish-batch":  {URL: "http://x", Body: "x={event}", Together: true},
	} {
		if _, err := p.Publisher(); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%s: got %v", flag, err)
		}
	}
}
