package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// discover returns where an issuer's own configuration says that its keys are (OpenID Connect Discovery 1.0, section 4).
func discover(ctx context.Context, client *http.Client, issuer string) (string, error) {
	at, err := checkIssuerURL(issuer)
	if err != nil {
		return "", err
	}
	raw, err := get(ctx, client, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", fmt.Errorf("its openid-configuration: %w", err)
	}
	said, err := readObject(raw)
	if err != nil {
		return "", fmt.Errorf("its openid-configuration %w", err)
	}
	// Section 4.3: anything but the same letters could be somebody else's configuration.
	if said["issuer"] != issuer {
		return "", errors.New("its openid-configuration is another issuer's")
	}
	keys, _ := said["jwks_uri"].(string)
	u, err := checkURL(keys)
	if err != nil {
		return "", fmt.Errorf("the jwks_uri of its openid-configuration %w", err)
	}
	if u.Scheme != at.Scheme && u.Scheme != "https" {
		return "", errors.New("the jwks_uri of its openid-configuration isn't https, and the issuer is")
	}
	return keys, nil
}

// checkIssuerURL takes what a well-known path can be put after.
func checkIssuerURL(issuer string) (*url.URL, error) {
	u, err := checkURL(issuer)
	if err != nil {
		return nil, err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return nil, errors.New("has a query, and discovery wants none")
	}
	return u, nil
}
