package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// keyClient returns a client that asks issuers: it follows few redirects, none to another scheme, and holds no cookies.
// base may be nil.
func keyClient(base *http.Client) *http.Client {
	client := &http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
		switch {
		case len(via) > 3:
			return errors.New("more than 3 redirects")
		case req.URL.Scheme != via[0].URL.Scheme:
			return errors.New("a redirect to another scheme")
		}
		return nil
	}}
	if base != nil {
		client.Transport = base.Transport
		return client
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives: true} // a request every few minutes
	client.Transport = transport
	return client
}

// get returns the body of an answer 200. Errors don't hold the URL, whose query may be somebody's secret.
func get(ctx context.Context, client *http.Client, from string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, errors.New("isn't a URL")
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	resp, err := client.Do(req)
	if err != nil {
		if whole, ok := errors.AsType[*url.Error](err); ok {
			err = whole.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxKeysBytes+1))
	if err == nil && len(raw) > maxKeysBytes {
		err = fmt.Errorf("is larger than %d bytes", maxKeysBytes)
	}
	return raw, err
}

// checkURL takes absolute URLs of HTTP without what would be lost or logged: a user's password, a fragment.
func checkURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return nil, errors.New("isn't a URL that begins with https://")
	case u.User != nil:
		return nil, errors.New("holds a user or a password")
	case u.Fragment != "":
		return nil, errors.New("has a fragment (#)")
	}
	return u, nil
}
