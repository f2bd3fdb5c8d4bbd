package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/stream"

	"github.com/spf13/pflag"
)

func TestLaterSourcesWin(t *testing.T) {
	const file = "listen: :1001\nadmin: {listen: \":1002\"}\nlog: {level: debug}\nkafka: {brokers: [a:9092, b:9092]}\n"
	for name, tt := range map[string]struct {
		env, flags []string
		listen     string
		brokers    []string
	}{
		"the file over defaults":         {nil, nil, ":1001", []string{"a:9092", "b:9092"}},
		"the environment over the file":  {[]string{"STREAMGW_LISTEN=:2001", "STREAMGW_KAFKA_BROKERS=c:9092,d:9092"}, nil, ":2001", []string{"c:9092", "d:9092"}},
		"flags over all":                 {[]string{"STREAMGW_LISTEN=:2001"}, []string{"--listen", ":3001", "--kafka-brokers=e:9092"}, ":3001", []string{"e:9092"}},
		"an empty variable is none":      {[]string{"STREAMGW_LISTEN="}, nil, ":1001", []string{"a:9092", "b:9092"}},
		"--brokers is --kafka-brokers":   {nil, []string{"--brokers", "f:9092"}, ":1001", []string{"f:9092"}},
		"variables that aren't settings": {[]string{"STREAMGW_CONFIG=x", "STREAMGW_TEST_CACHE=y", "STREAMGW_SERVICE_HOST=10.0.0.1", "STREAMGW_PORT_8080_TCP_ADDR=10.0.0.1", "STREAMGW_ADMIN_PORT_8090_TCP=z", "HOME=/"}, nil, ":1001", []string{"a:9092", "b:9092"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, problems := loadWith(t, file, tt.env, tt.flags)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if c.Listen != tt.listen || !slices.Equal(c.Kafka.Brokers, tt.brokers) {
				t.Errorf("listen %q, brokers %q; want %q, %q", c.Listen, c.Kafka.Brokers, tt.listen, tt.brokers)
			}
			if c.Admin.Listen != ":1002" || c.Limits.Memory != 1<<30 {
				t.Errorf("admin.listen %q, limits.memory %d: what nobody else said should have stayed", c.Admin.Listen, c.Limits.Memory)
			}
		})
	}
}

func TestEverySettingCanBeSaidInThreeWays(t *testing.T) {
	said := map[string]string{ // by type of value, something that differs from every default
		"text": "said", "address": ":4711", "list": "*", "bool": "true", "number": "77", "duration": "7s", "size": "77MiB",
	}
	words := map[string]string{"log.level": "warn", "log.format": "text", "auth.mode": "none", "kafka.sasl.mechanism": "PLAIN",
		"kafka.isolation": "read_uncommitted", "kafka.brokers": "said:9092", "limits.trustedProxies": "10.0.0.0/8"}
	probe := defaultConfig()
	for _, s := range settings(&probe) {
		want := said[s.value.Type()]
		if w, ok := words[s.path]; ok {
			want = w
		}
		fileText := nested(s.path, want)
		ways := map[string][3]string{"file": {fileText}, "environment": {"", s.env() + "=" + want}, "flag": {"", "", "--" + s.flag() + "=" + want}}
		if s.secret {
			delete(ways, "flag")
		}
		for way, from := range ways {
			t.Run(s.path+" by "+way, func(t *testing.T) {
				c, problems := loadWith(t, from[0], compact(from[1]), compact(from[2]))
				if len(problems) > 0 {
					t.Fatal(problems)
				}
				rows := settings(&c)
				i := slices.IndexFunc(rows, func(row setting) bool { return row.path == s.path })
				if got := rows[i].value.String(); got != want || got == s.value.String() {
					t.Errorf("got %q, want %q; the default is %q", got, want, s.value.String())
				}
			})
		}
	}
}

func TestEveryFieldHasASetting(t *testing.T) {
	c := defaultConfig()
	rows := append(settings(&c), topicSettings(&c.Topics[0])...)
	pointers := map[uintptr]bool{}
	for _, s := range rows {
		pointers[reflect.ValueOf(s.value).Field(0).Pointer()] = true
	}
	unset := map[string]bool{ // fields of the Kafka client that its defaults are good for
		"Auth.Issuers": true, "Auth.Policies": true, // which are lists: TestIssuersAndPoliciesFromTheFile
		"Kafka.MaxWait": true, "Kafka.DialTimeout": true, "Kafka.RequestTimeout": true, "Kafka.Log": true, "Kafka.Metrics": true,
	}
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch {
		case unset[path]:
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				walk(strings.TrimPrefix(path+"."+v.Type().Field(i).Name, "."), v.Field(i))
			}
		case path == "Topics":
			walk("Topics[0]", v.Index(0))
		case !pointers[v.Addr().Pointer()]:
			t.Errorf("nothing sets Config.%s", path)
		}
	}
	walk("", reflect.ValueOf(&c).Elem())
}

func TestGatherCanBeOff(t *testing.T) {
	c, problems := loadWith(t, "topics: [{match: a, gather: 0s}, {match: b, gather: 25ms}, {match: c}]\n", nil, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for i, want := range []time.Duration{0, 25 * time.Millisecond, 10 * time.Millisecond} {
		if got := c.Topics[i].Gather; got != want {
			t.Errorf("entry %d: %v, want %v", i, got, want)
		}
	}
}

func TestIssuersAndPoliciesFromTheFile(t *testing.T) {
	c, problems := loadWith(t, `
auth:
  mode: jwt
  issuers:
    - {issuer: "https://id.example", audience: [a, b], algorithms: [RS256, ES256], clockSkew: 0s, jwks: "https://id.example/keys"}
    - {issuer: "https://${HOST}", audience: c, oidc: true}
  policies:
    - when: 'claims.role == "ops"'
      subscribe:
        - {topic: "a.**", keys: ["{sub}", "x,y"], types: [], filter: "event.n > 1", history: 0s}
        - {topic: b}
      publish: [{topic: c, source: "phone-{sub}", key: "{sub}"}]
`, []string{"HOST=other.example"}, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	none := auth.Age(0)
	want := AuthConfig{
		Mode: "jwt", ClockSkew: 30 * time.Second,
		Issuers: []auth.Issuer{
			{Issuer: "https://id.example", Audience: []string{"a", "b"}, Algorithms: []string{"RS256", "ES256"}, ClockSkew: -1, JWKS: "https://id.example/keys"},
			{Issuer: "https://other.example", Audience: []string{"c"}, OIDC: true},
		},
		Policies: []auth.Policy{{When: `claims.role == "ops"`, Rules: auth.Rules{
			Subscribe: []auth.ReadRule{{Topic: "a.**", Keys: auth.Texts{"{sub}", "x,y"}, Types: auth.Texts{}, Filter: "event.n > 1", History: &none}, {Topic: "b"}},
			Publish:   []auth.WriteRule{{Topic: "c", Source: "phone-{sub}", Key: "{sub}"}},
		}}},
	}
	if !reflect.DeepEqual(c.Auth, want) {
		t.Errorf("got %+v\nwant %+v", c.Auth, want)
	}
}

func TestTopicsFromTheFile(t *testing.T) {
	c, problems := loadWith(t, `
topics:
  - {match: orders.*, window: {bytes: 128MiB}}
  - match: orders.**
    window: {age: 1h}
`, nil, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for topic, want := range map[string]WindowConfig{
		"orders.placed":       {128 << 20, 10 * time.Minute},
		"orders.order.placed": {64 << 20, time.Hour},
		"users.user.created":  {},
		"orders":              {},
	} {
		got, ok := c.topic(topic)
		if ok != (want != WindowConfig{}) || got.Window != want {
			t.Errorf("%s: window %v (served %v), want %v", topic, got.Window, ok, want)
		}
	}
}

func TestTopicPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern, topic string
		want           bool
	}{
		{"**", "orders", true},
		{"**", "orders.order.placed", true},
		{"*", "orders", true},
		{"*", "orders.placed", false},
		{"orders.*", "orders.placed", true},
		{"orders.*", "orders.order.placed", false},
		{"orders.*", "ordersX.placed", false},
		{"orders.**", "orders.order.placed", true},
		{"orders.**", "orders", false},
		{"*.order.*", "shop.order.placed", true},
		{"*.order.*", "shop.user.placed", false},
		{"orders.placed", "orders.placed", true},
		{"orders.placed", "orders", false},
		{"orders", "orders.placed", false},
	} {
		if got := stream.TopicPattern(tt.pattern).Match(tt.topic); got != tt.want {
			t.Errorf("%s matches %s: %v, want %v", tt.pattern, tt.topic, got, tt.want)
		}
	}
}

func TestSecretsAndVariables(t *testing.T) {
	c, problems := loadWith(t, `
kafka:
  brokers: ["${HOST}:9092", "${OTHERS}"]
  clientId: $${HOST} costs $5
  sasl: {mechanism: PLAIN, username: "${USER_NAME}", password: "${PASS}"}
`, []string{"HOST=kafka", "OTHERS=a:9092,b:9092", "USER_NAME=gateway", "PASS=se:cret # {x}"}, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if want := []string{"kafka:9092", "a:9092", "b:9092"}; !slices.Equal(c.Kafka.Brokers, want) {
		t.Errorf("brokers %q, want %q", c.Kafka.Brokers, want)
	}
	if c.Kafka.SASL.Password != "se:cret # {x}" || c.Kafka.SASL.Username != "gateway" {
		t.Errorf("got user %q, password %q", c.Kafka.SASL.Username, c.Kafka.SASL.Password)
	}
	if c.Kafka.ClientID != "${HOST} costs $5" {
		t.Errorf("got %q", c.Kafka.ClientID)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	const enough = "kafka: {brokers: a:9092}\nauth: {mode: none}\n"
	for name, tt := range map[string]struct {
		file string
		env  []string
		want []string // each a line
	}{
		"a key that isn't known": {enough + "limits: {memroy: 1GiB}\n", nil,
			[]string{`gw.yaml:3: limits.memroy: unknown setting; did you mean limits.memory?`}},
		"a group that isn't known": {enough + "kafak: {brokers: a:9092}\n", nil,
			[]string{`gw.yaml:3: kafak: unknown setting; did you mean kafka?`}},
		"a key of a topic": {enough + "topics: [{match: a, windows: {}}]\n", nil,
			[]string{`gw.yaml:3: topics[0].windows: unknown setting; did you mean topics[0].window?`}},
		"a variable that isn't known": {enough, []string{"STREAMGW_LIMITS_MEMROY=1GiB"},
			[]string{`STREAMGW_LIMITS_MEMROY: unknown setting; did you mean STREAMGW_LIMITS_MEMORY?`}},
		"a topics variable": {enough, []string{"STREAMGW_TOPICS=a"},
			[]string{`STREAMGW_TOPICS: is a list of entries: set it in the file`}},
		"settings of later versions": {enough + "handlers: []\nlimits: {publishRate: 3}\ntopics: [{match: a, onError: raw}]\n", []string{"STREAMGW_OUTBOX_DSNFILE=x"},
			[]string{`gw.yaml:3: handlers: not available in this version`, `gw.yaml:4: limits.publishRate: not available in this version`,
				`gw.yaml:5: topics[0].onError: not available in this version`, `STREAMGW_OUTBOX_DSNFILE: not available in this version`}},
		"tokens of nobody": {"kafka: {brokers: a:9092}\nauth: {mode: jwt}\n", nil,
			[]string{`auth.issuers: not set, so no token could be good; it is a list of entries in the file, each with an issuer, an audience and where the keys are`}},
		"what is about tokens, and nobody needs one": {"kafka: {brokers: a:9092}\nauth: {mode: none, query: true}\n", nil,
			[]string{`auth.mode: is none, so that nobody needs a token, but other settings of auth are about tokens; set it to jwt or leave them out`}},
		"cookies from any page": {"kafka: {brokers: a:9092}\nauth: {mode: jwt, cookie: token, issuers: [{issuer: a}]}\ncors: {origins: [\"*\"]}\n", nil,
			[]string{`cors.origins: is *, but auth.cookie or auth.ticketSecretFile lets browsers' cookies in; name the origins whose pages may use them`}},
		"a topic of revocations that can't be": {"kafka: {brokers: a:9092}\nauth: {mode: jwt, revocations: a b, issuers: [{issuer: a}]}\n", nil,
			[]string{`auth.revocations: "a b" can't be a topic's name`}},
		"issuers and policies that aren't known": {"kafka: {brokers: a:9092}\nauth: {mode: jwt, issuers: [{issuer: a, audiance: b}], policies: [{whne: a}, {subscribe: [{topik: b}]}, {subscribe: {}, publish: [{keys: a}]}]}\n", nil,
			[]string{`gw.yaml:2: auth.issuers[0].audiance: unknown setting; did you mean auth.issuers[0].audience?`, `gw.yaml:2: auth.policies[0].whne: unknown setting; did you mean auth.policies[0].when?`,
				`gw.yaml:2: auth.policies[1].subscribe[0].topik: unknown setting; did you mean auth.policies[1].subscribe[0].topic?`, `gw.yaml:2: auth.policies[2].subscribe: must be a list of entries`,
				`gw.yaml:2: auth.policies[2].publish[0].keys: unknown setting; did you mean auth.policies[2].publish[0].key?`}},
		"restrictions without a value": {"kafka: {brokers: a:9092}\nauth:\n  mode: jwt\n  issuers: [{issuer: a}]\n  policies:\n    - when:\n      subscribe:\n        - {topic: a, keys: ~}\n        - {topic: a, types: [~], filter: \"\", history: }\n        - {topic: a, keys: [\"${NOTHING}\"]}\n      publish: [{topic: a, key: \"\", source: }]\n", []string{"NOTHING="},
			[]string{`gw.yaml:6: auth.policies[0].when: has no value; leave it out where nothing is to be restricted`, `gw.yaml:8: auth.policies[0].subscribe[0].keys: has no value`,
				`gw.yaml:9: auth.policies[0].subscribe[1].types: has no value`, `gw.yaml:9: auth.policies[0].subscribe[1].filter: has no value`, `gw.yaml:9: auth.policies[0].subscribe[1].history: has no value`,
				`gw.yaml:10: auth.policies[0].subscribe[2].keys: has no value`, `gw.yaml:11: auth.policies[0].publish[0].key: has no value`, `gw.yaml:11: auth.policies[0].publish[0].source: has no value`}},
		"lists in variables": {enough, []string{"STREAMGW_AUTH_ISSUERS=a", "STREAMGW_AUTH_POLICIES=a"},
			[]string{`STREAMGW_AUTH_ISSUERS: is a list of entries: set it in the file`, `STREAMGW_AUTH_POLICIES: is a list of entries: set it in the file`}},
		"limits that don't fit": {enough + "limits: {perIP: -1, connectRate: fast, trustedProxies: [10.0.0.0/8, proxy], forwarded: maybe}\n", nil,
			[]string{`gw.yaml:3: limits.perIP: "-1" isn't a whole number; 0 is no bound`, `gw.yaml:3: limits.connectRate: "fast" isn't a number a second, such as 5 or 0.5; 0 is no bound`,
				`gw.yaml:3: limits.trustedProxies: "proxy" isn't an address or a network, such as 10.0.0.1 or 10.0.0.0/8`, `gw.yaml:3: limits.forwarded: "maybe" isn't true or false`}},
		"no mode": {"kafka: {brokers: a:9092}\n", nil,
			[]string{`auth.mode: not set; with jwt readers need a token of one of auth.issuers, with none everyone who reaches :8080 reads every topic that is served: say so with auth.mode: none, STREAMGW_AUTH_MODE=none or --auth-mode none`}},
		"nothing at all": {"", nil,
			[]string{`kafka.brokers: not set; name a broker or several, as host:port`, `auth.mode: not set`}},
		"values that don't fit": {"listen: 8080\nadmin: {listen: \":http\"}\nlog: {level: loud, format: xml}\nkafka: {brokers: [\"a:0\"], isolation: none, pace: fast, tls: {enabled: yes!}}\n" +
			"auth: {mode: basic}\ncors: {origins: [app.example, \"https://app.example/\"]}\nlimits: {memory: lots, historyReads: 0}\ndrain: {period: -1s}\n", nil,
			[]string{
				`gw.yaml:1: listen: "8080" isn't an address to listen on, such as :8080 or 127.0.0.1:8080`,
				`gw.yaml:2: admin.listen: ":http" has no port between 0 and 65535`,
				`gw.yaml:3: log.level: "loud" isn't one of debug, info, warn, error`,
				`gw.yaml:3: log.format: "xml" isn't one of json, text`,
				`gw.yaml:4: kafka.brokers: "a:0" isn't a broker, which is host:port, such as kafka:9092`,
				`gw.yaml:4: kafka.isolation: "none" isn't one of read_committed, read_uncommitted`,
				`gw.yaml:4: kafka.pace: "fast" isn't a duration, such as 500ms, 10s, 10m or 1h30m`,
				`gw.yaml:4: kafka.tls.enabled: "yes!" isn't true or false`,
				`gw.yaml:5: auth.mode: "basic" isn't one of jwt, none`,
				`gw.yaml:6: cors.origins: "app.example" isn't an origin, which is scheme://host or scheme://host:port without a path, such as https://app.example`,
				`gw.yaml:7: limits.memory: "lots" isn't a size, such as 512KiB, 64MiB or 1GiB`,
				`gw.yaml:7: limits.historyReads: "0" isn't a whole number from 1`,
				`gw.yaml:8: drain.period: "-1s" isn't a duration, such as 500ms, 10s, 10m or 1h30m`,
			}},
		"topics that can't be": {enough + "topics: [{match: a.**.b}, {match: a*}, {match: a..b}, {}, {match: \"**\"}, {match: b}]\n", nil,
			[]string{
				`topics[0].match: a.**.b: ** can only be the last segment`,
				`topics[1].match: a*: "a*": a * stands for a whole segment`,
				`topics[2].match: a..b: a segment is empty`,
				`topics[3].match: not set; it names topics, such as orders.* (one segment) or orders.** (any depth)`,
				`topics[5].match: b: no topic gets here, since the entry before it matches all`,
			}},
		"hardly any memory": {enough + "limits: {memory: 1MiB}\n", nil,
			[]string{`limits.memory: 1MiB is too little to read messages and write them; 16MiB is the least`}},
		"one address twice": {enough + "admin: {listen: \":8080\"}\n", nil,
			[]string{`admin.listen: is the same address as listen; the admin listener needs its own, which isn't reachable from outside`}},
		"half of TLS": {"kafka: {brokers: a:9092, tls: {certFile: a.pem}}\nauth: {mode: none}\n", nil,
			[]string{`kafka.tls.keyFile: not set, but kafka.tls.certFile is; both are needed`,
				`kafka.tls.enabled: is false, but other settings of kafka.tls are set; set it to true or leave them out`}},
		"the other half": {"kafka: {brokers: a:9092, tls: {enabled: true, keyFile: a.pem}}\nauth: {mode: none}\n", nil,
			[]string{`kafka.tls.certFile: not set, but kafka.tls.keyFile is; both are needed`}},
		"SASL without a mechanism": {"kafka: {brokers: a:9092, sasl: {username: a}}\nauth: {mode: none}\n", nil,
			[]string{`kafka.sasl.mechanism: not set, but other settings of kafka.sasl are`}},
		"SASL without a user": {"kafka: {brokers: a:9092, sasl: {mechanism: SCRAM-SHA-512, password: a, passwordFile: b}}\nauth: {mode: none}\n", nil,
			[]string{`kafka.sasl.username: not set, but SCRAM-SHA-512 needs it`, `kafka.sasl.passwordFile: SCRAM-SHA-512 needs this or kafka.sasl.password, and not both`}},
		"SASL without a token": {"kafka: {brokers: a:9092, sasl: {mechanism: OAUTHBEARER}}\nauth: {mode: none}\n", nil,
			[]string{`kafka.sasl.tokenFile: OAUTHBEARER needs this or kafka.sasl.token, and not both`}},
		"a variable that isn't set": {enough + "cors: {origins: [\"${APP}\"]}\n", nil,
			[]string{`gw.yaml:3: cors.origins: ${APP} is not set in the environment`}},
		"a key twice": {enough + "listen: :1\nlisten: :2\n", nil,
			[]string{`gw.yaml:4: listen: is set twice`}},
		"shapes that don't fit": {enough + "listen: [a]\nadmin: x\ntopics: {}\ncors: {origins: [[a]]}\n", nil,
			[]string{`gw.yaml:3: listen: must be a single value`, `gw.yaml:4: admin: must hold settings, each as name: value`,
				`gw.yaml:5: topics: must be a list of entries, each with a match`, `gw.yaml:6: cors.origins: must be a single value`}},
		"what isn't YAML":     {"kafka: [", nil, []string{`gw.yaml: yaml: `}},
		"two documents":       {enough + "---\nlisten: :1\n", nil, []string{`gw.yaml: has a second document (after a line ---); only one is read`}},
		"a wrong environment": {enough, []string{"STREAMGW_DRAIN_PERIOD=soon"}, []string{`STREAMGW_DRAIN_PERIOD: "soon" isn't a duration, such as 500ms, 10s, 10m or 1h30m`}},
	} {
		t.Run(name, func(t *testing.T) {
			c, problems := loadWith(t, tt.file, tt.env, nil)
			problems = append(problems, c.problemsToServe()...)
			for _, want := range tt.want {
				if !slices.ContainsFunc(problems, func(p string) bool { return strings.HasPrefix(filepathBase(p), want) }) {
					t.Errorf("not said: %s", want)
				}
			}
			for _, p := range problems {
				if !slices.ContainsFunc(tt.want, func(want string) bool { return strings.HasPrefix(filepathBase(p), want) }) &&
					!strings.HasPrefix(p, "auth.mode: not set") && !strings.HasPrefix(p, "kafka.brokers: not set") {
					t.Errorf("said too: %s", p)
				}
			}
		})
	}
}

func TestAFileThatCannotBeRead(t *testing.T) {
	_, problems := load(sources{file: filepath.Join(t.TempDir(), "none.yaml")})
	if len(problems) != 1 || !strings.HasPrefix(problems[0], "--config: open ") {
		t.Errorf("got %q", problems)
	}
}

func TestProblemsAreOneALine(t *testing.T) {
	_, problems := loadWith(t, "a: 1\nb: 2\n", nil, nil)
	lines := strings.Split(problems.orNil().Error(), "\n")
	if len(lines) != 3 || lines[0] != "the configuration has 2 problems" {
		t.Errorf("got %q", lines)
	}
	if none := (Problems)(nil).orNil(); none != nil {
		t.Errorf("no problem is %v", none)
	}
}

// loadWith loads a configuration from a file of this content, these variables and these flags.
func loadWith(t *testing.T, file string, env, args []string) (Config, Problems) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "gw.yaml")
	if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	shown := defaultConfig()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	addFlags(flags, settings(&shown))
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return load(sources{file: name, env: env, flags: flags})
}

// filepathBase leaves out the directory that a problem's file stands in.
func filepathBase(problem string) string {
	if i := strings.Index(problem, "gw.yaml:"); i > 0 && strings.HasPrefix(problem, "/") {
		return problem[i:]
	}
	return problem
}

// nested returns YAML that sets one path.
func nested(path, to string) string {
	var b strings.Builder
	segments := strings.Split(path, ".")
	for _, s := range segments {
		b.WriteString("{" + s + ": ")
	}
	b.WriteString("'" + to + "'" + strings.Repeat("}", len(segments)))
	return b.String()
}

func compact(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
