package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runWith is run for whom it doesn't matter where something is printed.
func runWith(t *testing.T, in string, args ...string) (out string, code int) {
	t.Helper()
	code, stdout, stderr := run(t, in, args...)
	return stdout + stderr, code
}

// guardedConfig writes a configuration that asks for tokens, and returns its name.
func guardedConfig(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := write("secret", strings.Repeat("s", 48))
	return write("gw.yaml", `
kafka: {brokers: ["127.0.0.1:1"]}
topics: [{match: "users.**"}, {match: "orders.**"}]
auth:
  mode: jwt
  issuers: [{issuer: "https://id.example", audience: [streamgw], secretFile: "`+secret+`"}]
  policies:
    - {when: 'claims.role == "ops"', subscribe: [{topic: "**"}]}
    - {subscribe: [{topic: "users.**", keys: ["{sub}"]}]}
    - {when: 'has(claims.most)', subscribe: [{topic: "orders.**", filter: 'event.total < claims.most', history: 1h}]}
`)
}

func TestATokenIsMadeAndExplained(t *testing.T) {
	config := guardedConfig(t)
	token, code := runWith(t, "", "token", "--config", config, "--subject", "ann", "--claim", "most=10", "--subscribe", "chat.room={sub}")
	if code != exitOK {
		t.Fatal(token)
	}
	out, code := runWith(t, token, "token", "explain", "--config", config)
	for _, want := range []string{
		`"sub": "ann"`, `it is taken: subject "ann" of https://id.example, until `, "its claim streamgw has rules", "auth.policies[0] isn't for it", "auth.policies[1] is for it",
		`users.**: key "ann"`, `orders.**: event.total < claims.most with claims {"most":10}, from 1h0m0s back`, `chat.room: key "ann"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q isn't said in\n%s", want, out)
		}
	}
	if code != exitOK {
		t.Errorf("exit code %d", code)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]struct {
		says string
		code int
	}{
		"--topic users.a --key ann": {`events of users.a with key "ann" may be read`, exitOK},
		"--topic users.a --key bob": {`may not be read with this token; it may read: key "ann"`, exitFailure},
		"--topic users.a":           {`of users.a may be read: key "ann"`, exitOK},
		"--topic orders.b --key x":  {`may be read if they are also: event.total`, exitOK},
		"--topic chat.room":         {"isn't served to anybody", exitFailure},
		"--topic none":              {"isn't served to anybody", exitFailure},
		"":                          {"it may read:", exitOK},
	} {
		out, code := runWith(t, "", append([]string{"check", "--config", config, "--token", "@" + file}, strings.Fields(args)...)...)
		if !strings.Contains(out, want.says) || code != want.code {
			t.Errorf("check %s: %d, %s", args, code, out)
		}
	}
}

func TestTokensThatArentTakenSayWhy(t *testing.T) {
	config := guardedConfig(t)
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"expired":          {[]string{"--expires", "-1h"}, "has expired"},
		"another audience": {[]string{"--audience", "other"}, "audience"},
		"another issuer":   {[]string{"--issuer", "https://other.example", "--audience", "streamgw", "--secret-file", filepath.Join(filepath.Dir(config), "secret")}, "isn't one of this gateway's"},
	} {
		token, code := runWith(t, "", append([]string{"token", "--config", config}, tt.args...)...)
		if code != exitOK {
			t.Fatal(name, token)
		}
		if out, code := runWith(t, token, "check", "--config", config, "--token", "-"); code != exitFailure || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %d, %s", name, code, out)
		}
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"nothing is said": {nil, "--secret-file or --private-key-file, --issuer, --audience: needed"},
		"a bad rule":      {[]string{"--config", config, "--subscribe", "orders.**={sub"}, `--subscribe orders.**={sub: keys: "{sub": a { isn't closed`},
		"a bad pattern":   {[]string{"--config", config, "--subscribe", "orders**"}, "--subscribe orders**: topic: "},
		"a bad claim":     {[]string{"--config", config, "--claim", "role=ops"}, "isn't NAME=JSON"},
	} {
		if out, code := runWith(t, "", append([]string{"token"}, tt.args...)...); code != exitUsage || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %d, %s", name, code, out)
		}
	}
	if out, code := runWith(t, " ", "token", "explain"); code != exitFailure || !strings.Contains(out, "no token on standard input") {
		t.Errorf("no token: %d, %s", code, out)
	}
}
