package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/auth"
)

func TestEverySettingIsDocumented(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		documented[strings.TrimSpace(line)] = true
	}
	c := defaultConfig()
	var want []string
	for _, s := range settings(&c) {
		want = append(want, fmt.Sprintf("| `%s` | `%s` | %s | %s |", s.path, s.env(), shownDefault(s), s.help))
	}
	for _, s := range topicSettings(&c.Topics[0]) {
		if s.path == "match" {
			s.value = text{new(string)} // the one of an entry, not of the default entry
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", s.path, shownDefault(s), s.help))
	}
	for _, rows := range [][]setting{issuerSettings(new(auth.Issuer)), policySettings(new(auth.Policy)), readRuleSettings(new(auth.ReadRule)), writeRuleSettings(new(auth.WriteRule))} {
		for _, s := range rows {
			want = append(want, fmt.Sprintf("| `%s` | %s | %s |", s.path, shownDefault(s), s.help))
		}
	}
	for _, row := range want {
		if !documented[row] {
			t.Errorf("docs/configuration.md lacks the row\n%s", row)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	rows := 0
	for line := range documented {
		if strings.HasPrefix(line, "| `") {
			rows++
		}
	}
	if rows != len(want) {
		t.Errorf("docs/configuration.md has %d rows for %d settings", rows, len(want))
	}
}

func shownDefault(s setting) string {
	if d := s.value.String(); d != "" {
		return "`" + d + "`"
	}
	return ""
}
