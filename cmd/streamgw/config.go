package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/kafka"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/goodgo/streamgw/internal/telemetry"
)

// Config is all that streamgw can be told. It is filled from defaults, then the file, then the environment, then flags;
// the table in settings.go has a row for each of its values.
type Config struct {
	Listen      string // of the public listener
	Admin       AdminConfig
	Log         telemetry.LogConfig
	Kafka       kafka.Config
	Topics      []TopicConfig // the first entry that matches a topic decides; a topic that none matches isn't served
	Auth        AuthConfig
	CORS        CORSConfig
	Compression CompressionConfig
	Limits      LimitsConfig
	Drain       DrainConfig
}

// AdminConfig is the listener for probes, metrics and profiles.
type AdminConfig struct{ Listen string }

// TopicConfig is how the topics that Match names are served.
type TopicConfig struct {
	Match  string // a stream.TopicPattern
	Window WindowConfig
	Gather time.Duration // 0: off
}

// WindowConfig bounds what is kept of a topic in memory.
type WindowConfig struct {
	Bytes int64
	Age   time.Duration
}

// AuthConfig says who may read and write. Its mode has no default: an open gateway is opened on purpose.
type AuthConfig struct {
	Mode             string
	ClockSkew        time.Duration
	Issuers          []auth.Issuer
	Query            bool
	Cookie           string
	TicketSecretFile string
	Revocations      string // a topic
	Policies         []auth.Policy
}

// CORSConfig lists the origins whose pages may read.
type CORSConfig struct{ Origins []string }

// CompressionConfig says whether streams are compressed for clients that accept it.
type CompressionConfig struct{ Enabled bool }

// LimitsConfig bounds what clients can make the process hold and do. Of what can be 0, that is no bound.
type LimitsConfig struct {
	Memory            int64 // bytes: windows, encodings and history together
	HistoryReads      int   // reads of Kafka's history at once
	Connections       int   // streams at once
	PerSubject, PerIP int   // of one subject, of one address
	ConnectRate       float64
	Subscriptions     int // of a WebSocket
	Filters, Scans    int // of a topic
	ReplaysPerSubject int
	TrustedProxies    []netip.Prefix
	Forwarded         bool
}

// DrainConfig is how long a stop may take.
type DrainConfig struct{ Period time.Duration }

// defaultConfig returns what holds where nothing else is said.
func defaultConfig() Config {
	return Config{
		Listen: ":8080",
		Admin:  AdminConfig{Listen: "127.0.0.1:8090"},
		Log:    telemetry.LogConfig{Level: "info", Format: "json"},
		Kafka:  kafka.Config{Isolation: "read_committed", ClientID: "streamgw", Pace: 5 * time.Millisecond},
		Topics: []TopicConfig{defaultTopic("**")},
		Auth:   AuthConfig{ClockSkew: 30 * time.Second},
		Limits: LimitsConfig{Memory: 1 << 30, HistoryReads: 16, Subscriptions: 16, Filters: 100_000, Scans: 256, ReplaysPerSubject: 100},
		Drain:  DrainConfig{Period: 10 * time.Second},
	}
}

func defaultTopic(match string) TopicConfig {
	return TopicConfig{Match: match, Window: WindowConfig{Bytes: 64 << 20, Age: 10 * time.Minute}, Gather: 10 * time.Millisecond}
}

// topic returns the entry for a topic, and whether there is one: without, the topic isn't served.
func (c *Config) topic(name string) (TopicConfig, bool) {
	i := slices.IndexFunc(c.Topics, func(t TopicConfig) bool { return stream.TopicPattern(t.Match).Match(name) })
	if i < 0 || name == c.Auth.Revocations {
		return TopicConfig{}, false
	}
	return c.Topics[i], true
}

// problems says what about c can't work, whatever command it is for. Each names its setting.
func (c *Config) problems() (found Problems) {
	if c.Listen == c.Admin.Listen && !strings.HasSuffix(c.Listen, ":0") {
		found.add("admin.listen", "is the same address as listen; the admin listener needs its own, which isn't reachable from outside")
	}
	if least := int64(fanout.LeastMemory); c.Limits.Memory < least {
		found.add("limits.memory", "%s is too little to read messages and write them; %s is the least", size{&c.Limits.Memory}, size{&least})
	}
	for i, t := range c.Topics {
		at := fmt.Sprintf("topics[%d].match", i)
		if t.Match == "" {
			found.add(at, `not set; it names topics, such as orders.* (one segment) or orders.** (any depth)`)
		} else if err := stream.TopicPattern(t.Match).Check(); err != nil {
			found.add(at, "%v", err)
		}
		if i > 0 && c.Topics[i-1].Match == "**" {
			found.add(at, "%s: no topic gets here, since the entry before it matches all", t.Match)
		}
	}
	return append(found, kafkaProblems(c.Kafka)...)
}

// kafkaProblems finds all at once; kafka.New, which checks more closely, stops at the first.
func kafkaProblems(k kafka.Config) (found Problems) {
	if len(k.Brokers) == 0 {
		found.add("kafka.brokers", "not set; name a broker or several, as host:port")
	}
	t := k.TLS
	if t.CertFile != "" && t.KeyFile == "" {
		found.add("kafka.tls.keyFile", "not set, but kafka.tls.certFile is; both are needed")
	}
	if t.KeyFile != "" && t.CertFile == "" {
		found.add("kafka.tls.certFile", "not set, but kafka.tls.keyFile is; both are needed")
	}
	if !t.Enabled && t != (kafka.TLS{}) {
		found.add("kafka.tls.enabled", "is false, but other settings of kafka.tls are set; set it to true or leave them out")
	}
	return append(found, saslProblems(k.SASL)...)
}

func saslProblems(s kafka.SASL) (found Problems) {
	switch s.Mechanism {
	case "":
		if s != (kafka.SASL{}) {
			found.add("kafka.sasl.mechanism", "not set, but other settings of kafka.sasl are")
		}
	case kafka.SASLOAuthBearer:
		if (s.Token == "") == (s.TokenFile == "") {
			found.add("kafka.sasl.tokenFile", "%s needs this or kafka.sasl.token, and not both", s.Mechanism)
		}
	default:
		if s.Username == "" {
			found.add("kafka.sasl.username", "not set, but %s needs it", s.Mechanism)
		}
		if (s.Password == "") == (s.PasswordFile == "") {
			found.add("kafka.sasl.passwordFile", "%s needs this or kafka.sasl.password, and not both", s.Mechanism)
		}
	}
	return found
}

// problemsToServe says what about c keeps it from being served.
func (c *Config) problemsToServe() Problems {
	return append(c.problems(), authProblems(c)...)
}

func authProblems(c *Config) (found Problems) {
	a := c.Auth
	switch auth.Mode(a.Mode) {
	case "":
		found.add("auth.mode", "not set; with jwt readers need a token of one of auth.issuers, with none everyone who reaches %s reads "+
			"every topic that is served: say so with auth.mode: none, STREAMGW_AUTH_MODE=none or --auth-mode none", c.Listen)
		return found
	case auth.None:
		if len(a.Issuers)+len(a.Policies) > 0 || a.Query || a.Cookie != "" || a.TicketSecretFile != "" || a.Revocations != "" {
			found.add("auth.mode", "is none, so that nobody needs a token, but other settings of auth are about tokens; set it to jwt or leave them out")
		}
		return found
	}
	if len(a.Issuers) == 0 {
		found.add("auth.issuers", "not set, so no token could be good; it is a list of entries in the file, each with an issuer, an audience and where the keys are")
	}
	if slices.Contains(c.CORS.Origins, "*") && (a.Cookie != "" || a.TicketSecretFile != "") {
		found.add("cors.origins", "is *, but auth.cookie or auth.ticketSecretFile lets browsers' cookies in; name the origins whose pages may use them")
	}
	if a.Revocations != "" && !stream.ValidTopic(a.Revocations) {
		found.add("auth.revocations", "%q can't be a topic's name", a.Revocations)
	}
	return found
}

// Problems is all that is wrong with a configuration: one a line, so that it can be put right in one go.
type Problems []string

func (p *Problems) add(where, format string, args ...any) {
	*p = append(*p, where+": "+fmt.Sprintf(format, args...))
}

func (p Problems) Error() string {
	if len(p) == 1 {
		return "the configuration has a problem\n  " + p[0]
	}
	return fmt.Sprintf("the configuration has %d problems\n  %s", len(p), strings.Join(p, "\n  "))
}

// orNil returns p as an error, nil when there is no problem.
func (p Problems) orNil() error {
	if len(p) == 0 {
		return nil
	}
	return p
}
