package auth_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/auth"
)

func TestModeMustBeChosen(t *testing.T) {
	for mode, want := range map[auth.Mode]string{
		"":      "isn't set",
		"jwt":   `is "jwt"`,
		"None":  `is "None"`,
		"false": `is "false"`,
	} {
		if _, err := auth.New(auth.Config{Mode: mode}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %q: error %v, want one with %q", mode, err, want)
		}
	}
}

func TestModeNoneReadsEverythingButInternalTopics(t *testing.T) {
	access, err := auth.New(auth.Config{Mode: auth.None})
	if err != nil {
		t.Fatal(err)
	}
	grant, err := access.Grant(httptest.NewRequest("GET", "/v1/events?topic=orders", nil))
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]bool{"orders.order.placed": true, "_private": true, "__consumer_offsets": false} {
		if got := grant.MayRead(topic); got != want {
			t.Errorf("MayRead(%q) = %v, want %v", topic, got, want)
		}
	}
}

func TestZeroGrantReadsNothing(t *testing.T) {
	if (auth.Grant{}).MayRead("orders.order.placed") {
		t.Error("the zero Grant may read a topic")
	}
}
