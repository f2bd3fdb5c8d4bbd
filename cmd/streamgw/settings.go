package main

import (
	"slices"
	"strings"
	"unicode"

	"github.com/goodgo/streamgw/internal/kafka"
)

// setting is one value of the configuration: where it stands in the file, and from that its variable and its flag.
type setting struct {
	path   string // as in the file, joined by dots: kafka.sasl.passwordFile
	value  value  // where it goes
	help   string // what it does, for --help and the docs
	secret bool   // has no flag: other users of the machine can read a command line
}

// env returns the setting's environment variable.
func (s setting) env() string { return envName(s.path) }

func envName(path string) string {
	return "STREAMGW_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// flag returns the setting's flag, without the dashes.
func (s setting) flag() string {
	var b strings.Builder
	for _, r := range s.path {
		switch {
		case r == '.':
			b.WriteByte('-')
		case unicode.IsUpper(r):
			b.WriteByte('-')
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// settings returns a row for every single value of c.
func settings(c *Config) []setting {
	return slices.Concat([]setting{
		{path: "listen", value: address{&c.Listen},
			help: "the public listener: streams, topics and /readyz"},
		{path: "admin.listen", value: address{&c.Admin.Listen},
			help: "the admin listener: probes, metrics, profiles; keep it from the outside"},
		{path: "log.level", value: choice{&c.Log.Level, []string{"debug", "info", "warn", "error"}},
			help: "debug, info, warn or error"},
		{path: "log.format", value: choice{&c.Log.Format, []string{"json", "text"}},
			help: "json or text, on standard error"},
	}, kafkaSettings(&c.Kafka), []setting{
		{path: "auth.mode", value: authMode{&c.Auth.Mode},
			help: "who may read and write; none: everyone. It must be said"},
		{path: "cors.origins", value: list{&c.CORS.Origins, origin},
			help: "origins whose pages may read, such as https://app.example; * for all"},
		{path: "compression.enabled", value: boolean{&c.Compression.Enabled},
			help: "compress streams for clients that accept it: gzip over HTTP, permessage-deflate over WebSocket; off by default: docs/decisions/0011-compression.md says why"},
		{path: "limits.memory", value: size{&c.Limits.Memory},
			help: "bound of windows, encoded frames, history and pending writes together; windows shrink first, oldest messages first"},
		{path: "limits.historyReads", value: count{&c.Limits.HistoryReads},
			help: "reads of Kafka's history at once; others wait in line"},
		{path: "drain.period", value: duration{&c.Drain.Period},
			help: "how long a stop may take: streams are ended first, each told when to come back"},
	})
}

// kafkaSettings returns the rows that say how to reach the brokers: publish and check have them too.
func kafkaSettings(k *kafka.Config) []setting {
	return []setting{
		{path: "kafka.brokers", value: list{&k.Brokers, broker},
			help: "brokers to begin with, as host:port, joined by commas; one that answers is enough"},
		{path: "kafka.tls.enabled", value: boolean{&k.TLS.Enabled},
			help: "speak TLS with the brokers"},
		{path: "kafka.tls.caFile", value: text{&k.TLS.CAFile},
			help: "PEM file of the authorities that sign the brokers' certificates; default: the system's"},
		{path: "kafka.tls.certFile", value: text{&k.TLS.CertFile},
			help: "PEM file of our certificate, for brokers that ask for one (mTLS)"},
		{path: "kafka.tls.keyFile", value: text{&k.TLS.KeyFile},
			help: "PEM file of our certificate's key"},
		{path: "kafka.tls.serverName", value: text{&k.TLS.ServerName},
			help: "name to expect in the brokers' certificates; default: the host's"},
		{path: "kafka.tls.insecureSkipVerify", value: boolean{&k.TLS.InsecureSkipVerify},
			help: "take any certificate: for trying things out only"},
		{path: "kafka.sasl.mechanism", value: choice{&k.SASL.Mechanism, []string{kafka.SASLPlain, kafka.SASLSCRAMSHA256, kafka.SASLSCRAMSHA512, kafka.SASLOAuthBearer}},
			help: "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER; default: none"},
		{path: "kafka.sasl.username", value: text{&k.SASL.Username},
			help: "user for PLAIN and SCRAM"},
		{path: "kafka.sasl.password", value: text{&k.SASL.Password}, secret: true,
			help: "password for PLAIN and SCRAM; in the file as ${NAME} of an environment variable"},
		{path: "kafka.sasl.passwordFile", value: text{&k.SASL.PasswordFile},
			help: "file that holds the password; it is read again for each connection"},
		{path: "kafka.sasl.token", value: text{&k.SASL.Token}, secret: true,
			help: "token for OAUTHBEARER"},
		{path: "kafka.sasl.tokenFile", value: text{&k.SASL.TokenFile},
			help: "file that holds the token; it is read again for each connection"},
		{path: "kafka.isolation", value: choice{&k.Isolation, []string{"read_committed", "read_uncommitted"}},
			help: "read_committed leaves out what open and aborted transactions wrote; or read_uncommitted"},
		{path: "kafka.clientId", value: text{&k.ClientID},
			help: "our name in the brokers' logs and quotas"},
		{path: "kafka.pace", value: duration{&k.Pace},
			help: "longest wait for more after a response with records, here or, under steady load, at the broker, which then holds the next request; there is none while events are few. Longer spares CPU here and on the brokers, and adds that much latency at most"},
	}
}

// topicSettings returns the rows of one entry of topics.
func topicSettings(t *TopicConfig) []setting {
	return []setting{
		{path: "match", value: text{&t.Match},
			help: "topics: orders.* is one segment, orders.** any depth, ** all"},
		{path: "window.bytes", value: size{&t.Window.Bytes},
			help: "messages to keep in memory for a topic in use; a larger window serves more reconnects without Kafka"},
		{path: "window.age", value: duration{&t.Window.Age},
			help: "how long to keep them"},
		{path: "gather", value: pause{&t.Gather},
			help: "how long a client that was just written to waits for more, so that what comes meanwhile leaves in one write; 0s: not at all"},
	}
}

// later are the settings that the design has and this version hasn't, by the path of a value or of a group.
func later() []string {
	return []string{
		"auth.clockSkew", "auth.issuers", "auth.query", "auth.cookie", "auth.policies",
		"limits.connections", "limits.perSubject", "limits.perIP", "limits.subscriptions", "limits.connectRate", "limits.publishRate", "limits.bodyBytes",
		"schemaRegistry", "handlers", "outbox",
	}
}

// laterTopic is later for an entry of topics.
func laterTopic() []string { return []string{"compacted", "onError"} }

// isLater reports whether path is one of later, or within one.
func isLater(later []string, path string) bool {
	return slices.ContainsFunc(later, func(l string) bool { return path == l || strings.HasPrefix(path, l+".") })
}

// nearest returns the known name that a mistyped one most likely meant: the one with the fewest letters to change.
func nearest(name string, known []string) string {
	best, least := "", -1
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); least < 0 || d < least {
			best, least = k, d
		}
	}
	return best
}

// distance returns how many letters to insert, delete or replace to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
