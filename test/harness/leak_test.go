package harness

import (
	"slices"
	"testing"
)

func TestLeaksAreFoundInParts(t *testing.T) {
	const token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4iLCJqdGkiOiJhYmMifQ.kc1h2uYt0PqXo3vJ5bZr7sWd9fGn4mEaL6iTyUw8Qx0"
	const ticket = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4"
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"nothing":                 {`{"msg":"stream ended","position":"AQpvcmRlcnM0Nzk3OTc5Nzk3OTc5Nzk"}`, nil},
		"a header alone":          {"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", nil},
		"a token in an address":   {"GET /v1/events?access_token=" + token + "&x=1", []string{"eyJzdWIiOiJhbm4iLCJq…", "kc1h2uYt0PqXo3vJ5bZr…"}},
		"its claims' beginning":   {"claims eyJzdWIiOiJhbm4iLCJqdGki", []string{"eyJzdWIiOiJhbm4iLCJq…"}},
		"its signature's end":     {"…7sWd9fGn4mEaL6iTyUw8Qx0", []string{"d9fGn4mEaL6iTyUw8Qx0…"}},
		"a ticket among letters":  {"xx" + ticket, []string{"Zm9vYmFyYmF6cXV4Zm9v…"}},
		"fewer letters than that": {"kc1h2uYt0PqXo3vJ5bZ", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Leaks([]byte(tt.text), []string{token, ticket}); !slices.Equal(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}
