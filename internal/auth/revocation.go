package auth

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"
)

// Revocation takes back tokens that are good: the one with an id, or all of a subject that were issued up to a time.
type Revocation struct {
	Issuer  string    `json:"issuer,omitempty"`  // "": of every issuer
	Subject string    `json:"subject,omitempty"` // one of Subject
	TokenID string    `json:"tokenId,omitempty"` // and TokenID is set
	At      time.Time `json:"at"`                // tokens of Subject that were issued later stay good
	Until   time.Time `json:"until"`             // it is forgotten then: no sooner than the exp of what it is about
}

// Key names what a revocation is about: a later one of the same key takes its place.
func (r Revocation) Key() string {
	what, name := "subject", r.Subject
	if r.TokenID != "" {
		what, name = "token", r.TokenID
	}
	var key strings.Builder
	e := json.NewEncoder(&key)
	e.SetEscapeHTML(false) // as anybody else would write it
	_ = e.Encode([]string{what, r.Issuer, name})
	return strings.TrimSuffix(key.String(), "\n")
}

// Covers reports whether r takes back the token of an identity. A token that doesn't say when it was issued is taken for
// an old one.
func (r Revocation) Covers(who *Identity) bool {
	switch {
	case who == nil || r.Issuer != "" && r.Issuer != who.Issuer:
		return false
	case r.TokenID != "":
		return r.TokenID == who.TokenID
	default:
		return r.Subject != "" && r.Subject == who.Subject && !who.IssuedAt.After(r.At)
	}
}

// ParseRevocation reads one as it stands in the topic of revocations.
func ParseRevocation(value []byte) (r Revocation, err error) {
	if err := json.Unmarshal(value, &r); err != nil {
		return r, errors.New("isn't JSON with issuer, subject, tokenId, at and until")
	}
	switch {
	case (r.Subject == "") == (r.TokenID == ""):
		return r, errors.New("has not one of subject and tokenId")
	case r.At.IsZero() || r.Until.IsZero():
		return r, errors.New("doesn't say at and until")
	}
	return r, nil
}

// maxRevocations bounds what is kept. Whoever revokes more at once changes keys.
const maxRevocations = 1 << 20

// revocations are those that hold. Its zero value has none.
type revocations struct {
	mu    sync.RWMutex // guards what follows
	byKey map[string]Revocation
	swept time.Time
}

// ErrManyRevocations says that no more can be kept.
var ErrManyRevocations = errors.New("more than a million revocations hold; change the issuer's keys instead")

// Revoke has tokens refused from now on, and returns what holds of that key: of two revocations the later At and the later
// Until. It ends no stream: that is for who has them.
func (a *Access) Revoke(r Revocation) (holds Revocation, err error) { return a.revoked.add(r, a.now()) }

// Revoked reports whether an identity's token was taken back.
func (a *Access) Revoked(who *Identity) bool { return a.revoked.has(who) }

// Restore takes a revocation back, of which only the key matters.
func (a *Access) Restore(key string) {
	a.revoked.mu.Lock()
	defer a.revoked.mu.Unlock()
	delete(a.revoked.byKey, key)
}

// Now is the time that tokens are held against.
func (a *Access) Now() time.Time { return a.now() }

func (rs *revocations) add(r Revocation, now time.Time) (Revocation, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if had, ok := rs.byKey[r.Key()]; ok {
		if had.At.After(r.At) {
			r.At = had.At
		}
		if had.Until.After(r.Until) {
			r.Until = had.Until
		}
	}
	if !now.Before(r.Until) {
		return r, nil
	}
	if now.Sub(rs.swept) > time.Minute || len(rs.byKey) >= maxRevocations {
		rs.swept = now
		for key, old := range rs.byKey {
			if !now.Before(old.Until) {
				delete(rs.byKey, key)
			}
		}
	}
	if len(rs.byKey) >= maxRevocations {
		return r, ErrManyRevocations
	}
	if rs.byKey == nil {
		rs.byKey = map[string]Revocation{}
	}
	rs.byKey[r.Key()] = r
	return r, nil
}

// has reports whether an identity's token was revoked.
func (rs *revocations) has(who *Identity) bool {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	if len(rs.byKey) == 0 {
		return false
	}
	for _, issuer := range []string{who.Issuer, ""} {
		for _, about := range []Revocation{{Issuer: issuer, Subject: who.Subject}, {Issuer: issuer, TokenID: who.TokenID}} {
			if about.Subject == "" && about.TokenID == "" {
				continue
			}
			if r, ok := rs.byKey[about.Key()]; ok && r.Covers(who) {
				return true
			}
		}
	}
	return false
}
