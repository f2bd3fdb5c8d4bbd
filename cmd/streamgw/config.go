package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/kafka"
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
	Match  string // see topicPattern
	Window WindowConfig
	Gather time.Duration // 0: off
}

// WindowConfig bounds what is kept of a topic in memory.
type WindowConfig struct {
	Bytes int64
	Age   time.Duration
}

// AuthConfig says who may read and write. It has no default: an open gateway is opened on purpose.
type AuthConfig struct{ Mode string }

// CORSConfig lists the origins whose pages may read.
type CORSConfig struct{ Origins []string }

// CompressionConfig says whether streams are compressed for clients that accept it.
type CompressionConfig struct{ Enabled bool }

// LimitsConfig bounds what clients can make the process hold.
type LimitsConfig struct {
	Memory       int64 // bytes: windows, encodings and history together
	HistoryReads int   // reads of Kafka's history at once
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
		Limits: LimitsConfig{Memory: 1 << 30, HistoryReads: 16},
		Drain:  DrainConfig{Period: 10 * time.Second},
	}
}

func defaultTopic(match string) TopicConfig {
	return TopicConfig{Match: match, Window: WindowConfig{Bytes: 64 << 20, Age: 10 * time.Minute}, Gather: 10 * time.Millisecond}
}

// topic returns the entry for a topic, and whether there is one: without, the topic isn't served.
func (c *Config) topic(name string) (TopicConfig, bool) {
	i := slices.IndexFunc(c.Topics, func(t TopicConfig) bool { return topicPattern(t.Match).match(name) })
	if i < 0 {
		return TopicConfig{}, false
	}
	return c.Topics[i], true
}

// topicPattern names topics by their segments, which dots divide: a segment * stands for any one segment, and a last
// segment ** for one or more.
type topicPattern string

func (p topicPattern) match(topic string) bool {
	want, have := strings.Split(string(p), "."), strings.Split(topic, ".")
	for i, segment := range want {
		switch {
		case i >= len(have):
			return false
		case segment == "**":
			return true // the last one: problem has seen to it
		case segment != "*" && segment != have[i]:
			return false
		}
	}
	return len(want) == len(have)
}

// problem says why p can't be a pattern, or "".
func (p topicPattern) problem() string {
	segments := strings.Split(string(p), ".")
	for i, segment := range segments {
		switch {
		case segment == "":
			return "a segment is empty"
		case segment == "**" && i < len(segments)-1:
			return "** can only be the last segment"
		case segment != "*" && segment != "**" && strings.Contains(segment, "*"):
			return fmt.Sprintf("%q: a * stands for a whole segment", segment)
		}
	}
	return ""
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
		} else if why := topicPattern(t.Match).problem(); why != "" {
			found.add(at, "%s: %s", t.Match, why)
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
	found := c.problems()
	if c.Auth.Mode == "" {
		found.add("auth.mode", "not set; this version knows only none, with which everyone who reaches %s reads every topic "+
			"that is served: say so with auth.mode: none, STREAMGW_AUTH_MODE=none or --auth-mode none", c.Listen)
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
