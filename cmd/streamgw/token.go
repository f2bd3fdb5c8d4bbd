package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/spf13/cobra"
)

// minting is what `streamgw token` was asked for.
type minting struct {
	key               auth.Mint
	issuer, subject   string
	audience          []string
	lasts             time.Duration
	subscribe, claims []string
	now               func() time.Time
}

func (p program) tokenCommand() *cobra.Command {
	m := minting{now: time.Now}
	var config configFlags
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token for development, or look into one",
		Long: `token prints a signed token for development and tests: a gateway itself never makes any.
With --config, the key, issuer and audience are those of the first of auth.issuers that
has a secretFile, unless flags say others.

'streamgw token explain' says what a token holds, and with --config whether the gateway
takes it, and what it lets its holder read.`,
		Example: `  openssl rand -base64 48 > secret
  streamgw token --secret-file secret --issuer https://id.example --audience streamgw --subject ann --subscribe 'orders.**'
  streamgw token --config streamgw.yaml --subject ann --subscribe 'users.*={sub}' --claim 'role="ops"'
  streamgw token --private-key-file key.pem --issuer https://id.example --audience streamgw --expires 10m
  streamgw token explain --config streamgw.yaml < token`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := m.fill(&config, p); err != nil {
				return err
			}
			token, err := m.token()
			if err != nil {
				return err
			}
			fmt.Fprintln(p.out, token)
			return nil
		},
	}
	config.add(cmd.Flags(), nil)
	f := cmd.Flags()
	f.StringVar(&m.key.SecretFile, "secret-file", "", "file with a secret, for HS256, HS384 and HS512")
	f.StringVar(&m.key.PrivateKeyFile, "private-key-file", "", "PEM file with a private key, for the others")
	f.StringVar(&m.key.Algorithm, "algorithm", "", "HS256, RS256, PS256, ES256, EdDSA and so on (default: what the key is for)")
	f.StringVar(&m.key.KeyID, "kid", "", "key id (default: none)")
	f.StringVar(&m.issuer, "issuer", "", "iss: who the token says made it")
	f.StringArrayVar(&m.audience, "audience", nil, "aud: whom it is for; repeat for several")
	f.StringVar(&m.subject, "subject", "dev", "sub: who it is about")
	f.DurationVar(&m.lasts, "expires", time.Hour, "how long it is good")
	f.StringArrayVar(&m.subscribe, "subscribe", nil, "a rule to read by: TOPIC, or TOPIC=KEY with {sub} and other claims; repeat for several")
	f.StringArrayVar(&m.claims, "claim", nil, "another claim as NAME=JSON; repeat for several")
	cmd.AddCommand(p.explainCommand())
	return cmd
}

// fill takes what wasn't said from the configuration, if there is one.
func (m *minting) fill(config *configFlags, p program) error {
	if config.file == "" && p.variable(configEnv) == "" || m.key.PrivateKeyFile != "" {
		return nil
	}
	c, problems := config.load(p)
	if err := problems.orNil(); err != nil {
		return err
	}
	i := slices.IndexFunc(c.Auth.Issuers, func(is auth.Issuer) bool {
		return is.SecretFile != "" && (m.issuer == "" || m.issuer == is.Issuer)
	})
	if i < 0 {
		return nil
	}
	is := c.Auth.Issuers[i]
	if m.key.SecretFile == "" {
		m.key.SecretFile = is.SecretFile
	}
	if m.issuer == "" {
		m.issuer = is.Issuer
	}
	if len(m.audience) == 0 {
		m.audience = is.Audience[:min(1, len(is.Audience))]
	}
	if m.key.Algorithm == "" && len(is.Algorithms) > 0 {
		m.key.Algorithm = is.Algorithms[0]
	}
	return nil
}

func (m *minting) token() (string, error) {
	var missing []string
	if m.key.SecretFile == "" && m.key.PrivateKeyFile == "" {
		missing = append(missing, "--secret-file or --private-key-file")
	}
	if m.issuer == "" {
		missing = append(missing, "--issuer")
	}
	if len(m.audience) == 0 {
		missing = append(missing, "--audience")
	}
	if len(missing) > 0 {
		return "", usageError{fmt.Errorf("%s: needed, or a --config that has an issuer with a secretFile", strings.Join(missing, ", "))}
	}
	now := m.now()
	claims := map[string]any{"iss": m.issuer, "aud": m.audience, "sub": m.subject, "iat": now.Unix(), "exp": now.Add(m.lasts).Unix(), "jti": rand.Text()}
	rules, err := m.rules()
	if err != nil {
		return "", err
	}
	if len(rules) > 0 {
		claims["streamgw"] = auth.Rules{Subscribe: rules}
	}
	for _, text := range m.claims {
		name, value, ok := strings.Cut(text, "=")
		var v any
		if err := json.Unmarshal([]byte(value), &v); !ok || name == "" || err != nil {
			return "", usageError{fmt.Errorf(`--claim: %q isn't NAME=JSON, such as role="ops" or level=3`, text)}
		}
		claims[name] = v
	}
	return m.key.Sign(claims)
}

func (m *minting) rules() (rules []auth.ReadRule, err error) {
	for _, text := range m.subscribe {
		topic, key, has := strings.Cut(text, "=")
		rule := auth.ReadRule{Topic: topic}
		if has {
			rule.Keys = auth.Texts{key}
		}
		if err := rule.Check(); err != nil {
			return nil, usageError{fmt.Errorf("--subscribe %s: %w", text, err)}
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func (p program) explainCommand() *cobra.Command {
	var config configFlags
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say what a token holds and lets its holder read",
		Long: `explain reads a token from standard input, where other users of the machine can't see it, and
prints what it holds. With --config it says whether the gateway would take it, and what
it lets its holder read. 'streamgw check --token' says so of one topic and key.`,
		Example: `  streamgw token explain --config streamgw.yaml < token`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := readToken(p.in)
			if err != nil {
				return err
			}
			if err := printToken(p.out, token); err != nil {
				return err
			}
			if config.file == "" && p.variable(configEnv) == "" {
				fmt.Fprintln(p.out, "whether it holds isn't known without --config")
				return nil
			}
			c, problems := config.load(p)
			if err := append(problems, authProblems(&c)...).orNil(); err != nil {
				return err
			}
			e, err := p.explain(cmd.Context(), c, token)
			if err != nil {
				return err
			}
			printRights(p.out, e)
			return nil
		},
	}
	config.add(cmd.Flags(), nil)
	return cmd
}

// readToken reads a token and the white space around it.
func readToken(in io.Reader) (string, error) {
	const most = 64 << 10
	b, err := io.ReadAll(io.LimitReader(in, most))
	if err != nil {
		return "", err
	}
	token := strings.TrimPrefix(strings.TrimSpace(string(b)), "Bearer ")
	if token == "" {
		return "", errors.New("there is no token on standard input")
	}
	return token, nil
}

func printToken(w io.Writer, token string) error {
	header, claims, err := auth.Read(token)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		of   map[string]any
	}{{"header", header}, {"claims", claims}} {
		b, err := json.MarshalIndent(part.of, "  ", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s:\n  %s\n", part.name, b)
	}
	return nil
}

// explain holds a token against a configuration, whose issuers' keys it fetches.
func (p program) explain(ctx context.Context, c Config, token string) (auth.Explanation, error) {
	access, err := newAccess(c, p.warnings(), nil)
	if err != nil {
		return auth.Explanation{}, err
	}
	keys := start(access.Run)
	defer func() { _ = keys.stop(context.Background()) }()
	e, err := access.Explain(ctx, token)
	if err != nil {
		return e, fmt.Errorf("it isn't taken: %w", err)
	}
	return e, nil
}

func printRights(w io.Writer, e auth.Explanation) {
	who := e.Grant.Identity()
	fmt.Fprintf(w, "it is taken: subject %q of %s, until %s\n", who.Subject, who.Issuer, who.Ends.UTC().Format(time.RFC3339))
	if e.OwnRules {
		fmt.Fprintln(w, "  its claim streamgw has rules")
	} else {
		fmt.Fprintln(w, "  it has no claim streamgw with rules of its own")
	}
	for i, applies := range e.Policies {
		does := "isn't for it"
		if applies {
			does = "is for it"
		}
		fmt.Fprintf(w, "  auth.policies[%d] %s\n", i, does)
	}
	rights := e.Grant.Rights()
	if len(rights) == 0 {
		fmt.Fprintln(w, "it may read nothing")
		return
	}
	fmt.Fprintln(w, "it may read:")
	for _, r := range rights {
		fmt.Fprintf(w, "  %s: %s%s\n", r.Topic, rowsText(r.Rows), historyText(r.History))
	}
}

func historyText(back *auth.Age) string {
	if back == nil {
		return ""
	}
	return fmt.Sprintf(", from %s back", time.Duration(*back))
}

// rowsText says what a filter lets through.
func rowsText(f stream.Filter) string {
	if f.All() {
		return "every event"
	}
	if f.None() {
		return "no event"
	}
	var parts []string
	if len(f.Keys) > 0 {
		parts = append(parts, "key "+orList(f.Keys))
	}
	if len(f.Types) > 0 {
		parts = append(parts, "type "+orList(f.Types))
	}
	for _, p := range f.Where {
		parts = append(parts, p.String())
	}
	var any []string
	for _, g := range f.Any {
		any = append(any, rowsText(g))
	}
	if len(any) > 0 {
		parts = append(parts, "("+strings.Join(any, ") or (")+")")
	}
	return strings.Join(parts, ", and ")
}

func orList(list []string) string {
	const most = 5
	var quoted []string
	for _, s := range list[:min(most, len(list))] {
		quoted = append(quoted, fmt.Sprintf("%q", s))
	}
	if len(list) > most {
		quoted = append(quoted, fmt.Sprintf("%d more", len(list)-most))
	}
	return strings.Join(quoted, " or ")
}

// mayRead explains whether a token may read a topic, or one key of it.
type mayRead struct {
	token      string // "-": standard input; @FILE: of a file
	topic, key string
	hasKey     bool
}

// read returns the token itself.
func (m mayRead) read(in io.Reader) (string, error) {
	if name, ok := strings.CutPrefix(m.token, "@"); ok {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		return readToken(f)
	}
	if m.token == "-" {
		return readToken(in)
	}
	return m.token, nil
}

// run prints why, and returns an error if it may not.
func (m mayRead) run(w io.Writer, c Config, e auth.Explanation) error {
	printRights(w, e)
	if m.topic == "" {
		return nil
	}
	if _, served := c.topic(m.topic); !served || stream.InternalTopic(m.topic) {
		return fmt.Errorf("--topic: %s isn't served to anybody", m.topic)
	}
	rows, _, _ := e.Grant.Rows(m.topic)
	switch {
	case rows.None():
		return fmt.Errorf("--topic: %s may not be read with this token: no rule names it", m.topic)
	case m.hasKey && !rows.MatchKey([]byte(m.key)):
		return fmt.Errorf("--key: events of %s with key %q may not be read with this token; it may read: %s", m.topic, m.key, rowsText(rows))
	case m.hasKey && len(rows.Where)+len(rows.Types)+len(rows.Any) > 0:
		fmt.Fprintf(w, "events of %s with key %q may be read if they are also: %s\n", m.topic, m.key, rowsText(rows))
	case m.hasKey:
		fmt.Fprintf(w, "events of %s with key %q may be read\n", m.topic, m.key)
	default:
		fmt.Fprintf(w, "of %s may be read: %s\n", m.topic, rowsText(rows))
	}
	return nil
}
