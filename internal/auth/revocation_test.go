package auth

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

func TestWhatARevocationTakesBack(t *testing.T) {
	until := noon().Add(24 * time.Hour)
	for name, tt := range map[string]struct {
		r    Revocation
		want bool
	}{
		"the token":                       {Revocation{TokenID: "id-1"}, true},
		"the token of its issuer":         {Revocation{TokenID: "id-1", Issuer: issuerName}, true},
		"another's token of the same id":  {Revocation{TokenID: "id-1", Issuer: "https://other.example"}, false},
		"another token":                   {Revocation{TokenID: "id-2"}, false},
		"the subject":                     {Revocation{Subject: "user-1", At: noon()}, true},
		"the subject of its issuer":       {Revocation{Subject: "user-1", Issuer: issuerName, At: noon()}, true},
		"the subject, issued at the time": {Revocation{Subject: "user-1", At: noon().Add(-time.Minute)}, true},
		"the subject, by a fast clock":    {Revocation{Subject: "user-1", At: noon().Add(-time.Minute - 30*time.Second)}, true},
		"the subject, issued later":       {Revocation{Subject: "user-1", At: noon().Add(-2 * time.Minute)}, false},
		"another subject":                 {Revocation{Subject: "user-2", At: noon()}, false},
		"an id that is its subject":       {Revocation{TokenID: "user-1"}, false},
		"a subject that is its id":        {Revocation{Subject: "id-1", At: noon()}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, nil)
			token := d.token(t)
			ticket, who := d.ticket(t, token), d.mustAdmit(t, token).Identity()
			tt.r.Until = until
			if _, err := d.Revoke(tt.r); err != nil {
				t.Fatal(err)
			}
			if _, err := d.AdmitToken(t.Context(), token); (err == ErrRevoked) != tt.want {
				t.Errorf("the token: %v", err)
			}
			if _, err := d.Admit(request("/?ticket=" + ticket)); (err == ErrRevoked) != tt.want {
				t.Errorf("its ticket: %v", err)
			}
			if d.Revoked(who) != tt.want || tt.r.Covers(who) != tt.want {
				t.Errorf("who has it: %v, %v", d.Revoked(who), tt.r.Covers(who))
			}
			d.Restore(tt.r.Key())
			if _, err := d.AdmitToken(t.Context(), token); err != nil {
				t.Errorf("restored: %v", err)
			}
		})
	}
}

func TestASubjectsTokenThatDoesntSayWhenItWasIssuedIsOld(t *testing.T) {
	d := newDoor(t, nil)
	c := goodClaims()
	delete(c, "iat")
	if _, err := d.Revoke(Revocation{Subject: "user-1", At: noon(), Until: noon().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.AdmitToken(t.Context(), d.signer.token(t, c)); err != ErrRevoked {
		t.Error(err)
	}
}

func TestRevocationsAreForgottenAtTheirTime(t *testing.T) {
	var rs revocations
	for i := range 100 {
		if _, err := rs.add(Revocation{TokenID: fmt.Sprint(i), Until: noon().Add(time.Duration(i) * time.Minute)}, noon().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = rs.add(Revocation{TokenID: "new", Until: noon().Add(time.Hour * 5)}, noon().Add(50*time.Minute+time.Second))
	if n := len(rs.byKey); n != 50 {
		t.Errorf("%d are kept, want 50", n)
	}
	_, _ = rs.add(Revocation{TokenID: "over", Until: noon()}, noon())
	if rs.has(&Identity{TokenID: "over"}) || rs.has(&Identity{}) {
		t.Error("one that is over, or about nobody, holds")
	}
}

func TestARevocationIsReadBack(t *testing.T) {
	r := Revocation{Issuer: "i", Subject: "s\"", At: noon(), Until: noon().Add(time.Hour)}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRevocation(b); err != nil || got != r || got.Key() != r.Key() {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", "null", `{"subject":"a","tokenId":"b","at":"2026-01-01T00:00:00Z","until":"2026-01-01T00:00:00Z"}`, `{"subject":"a"}`, `[]`} {
		if _, err := ParseRevocation([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// TestALaterRevocationNeverTakesLessBack: two replicas, or two people, may revoke the same.
func TestALaterRevocationNeverTakesLessBack(t *testing.T) {
	d := newDoor(t, nil)
	late := Revocation{Subject: "user-1", At: noon(), Until: noon().Add(24 * time.Hour)}
	for _, r := range []Revocation{
		late, {Subject: "user-1", At: noon().Add(-time.Hour), Until: noon().Add(48 * time.Hour)},
		{Subject: "user-1", At: noon().Add(-time.Hour), Until: noon().Add(time.Minute)},
	} {
		holds, err := d.Revoke(r)
		if err != nil || !holds.At.Equal(noon()) || holds.Until.Before(late.Until) {
			t.Errorf("what holds is %+v, %v", holds, err)
		}
		if _, err := d.AdmitToken(t.Context(), d.token(t)); err != ErrRevoked {
			t.Errorf("after %+v: %v", r, err)
		}
	}
	if got := (Revocation{Subject: "a&b<c>"}).Key(); got != `["subject","","a&b<c>"]` {
		t.Errorf("the key is %s", got)
	}
}
