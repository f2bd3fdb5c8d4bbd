package main

import (
	"slices"
	"strings"
	"unicode"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/kafka"
)

// setting is one value of the configuration: where it stands in the file, and from that its variable and its flag.
type setting struct {
	path   string // as in the file, joined by dots: kafka.sasl.passwordFile
	value  value  // where it goes
	help   string // what it does, for --help and the docs
	secret bool   // has no flag: other users of the machine can read a command line
	bounds bool   // restricts who may do what, so that the file may not give it without a value: that would be no restriction
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
		{path: "auth.mode", value: choice{&c.Auth.Mode, []string{"jwt", "none"}},
			help: "who may read and write: jwt, whoever has a token of one of auth.issuers; none, everyone. It must be said"},
		{path: "auth.clockSkew", value: skew{&c.Auth.ClockSkew},
			help: "how far an issuer's clock may be off: a token is let in that much longer, and earlier"},
		{path: "auth.query", value: boolean{&c.Auth.Query},
			help: "take tokens from ?access_token= too; addresses end up in logs of proxies, so tickets are better"},
		{path: "auth.cookie", value: text{&c.Auth.Cookie},
			help: "name of a cookie that may hold a token; then the page's origin must be the gateway's or one of cors.origins"},
		{path: "auth.ticketSecretFile", value: text{&c.Auth.TicketSecretFile},
			help: "file with the secret of tickets, 32 bytes or more, the same on every replica; a second line is still taken. Default: no tickets"},
		{path: "auth.revocations", value: text{&c.Auth.Revocations},
			help: "compacted topic that carries revocations to every replica; it exists already, and isn't served. Default: each replica revokes for itself"},
		{path: "cors.origins", value: list{&c.CORS.Origins, origin},
			help: "origins whose pages may read, such as https://app.example; * for all"},
		{path: "compression.enabled", value: boolean{&c.Compression.Enabled},
			help: "compress streams for clients that accept it: gzip over HTTP, permessage-deflate over WebSocket; off by default: docs/decisions/0011-compression.md says why"},
		{path: "limits.memory", value: size{&c.Limits.Memory},
			help: "bound of windows, encoded frames, history and pending writes together; windows shrink first, oldest messages first"},
		{path: "limits.historyReads", value: count{&c.Limits.HistoryReads},
			help: "reads of Kafka's history at once; others wait in line"},
		{path: "limits.connections", value: bound{&c.Limits.Connections},
			help: "streams at once; 0: any number"},
		{path: "limits.perSubject", value: bound{&c.Limits.PerSubject},
			help: "streams of one subject at once; 0: any number"},
		{path: "limits.perIP", value: bound{&c.Limits.PerIP},
			help: "streams of one address at once, of an IPv6 /64; behind a proxy, limits.trustedProxies has to name it; 0: any number"},
		{path: "limits.connectRate", value: rate{&c.Limits.ConnectRate},
			help: "streams that one address opens, and topics and tickets that it asks for, in a second, after a burst of ten seconds' worth; 0: any number"},
		{path: "limits.subscriptions", value: count{&c.Limits.Subscriptions},
			help: "subscriptions of one WebSocket"},
		{path: "limits.filters", value: bound{&c.Limits.Filters},
			help: "different filters of one topic at once, those that want all messages left aside; 0: any number"},
		{path: "limits.scans", value: bound{&c.Limits.Scans},
			help: "those of them that name neither keys nor types, so that each message is held against each; 0: any number"},
		{path: "limits.replaysPerSubject", value: bound{&c.Limits.ReplaysPerSubject},
			help: "streams of one subject that catch up with their topics at once, which is work for Kafka; 0: any number"},
		{path: "limits.trustedProxies", value: networks{&c.Limits.TrustedProxies},
			help: "addresses and networks of proxies whose X-Forwarded-For says who the client is"},
		{path: "limits.forwarded", value: boolean{&c.Limits.Forwarded},
			help: "take that from Forwarded (RFC 7239) instead: for proxies that write this one"},
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

// issuerSettings returns the rows of one entry of auth.issuers.
func issuerSettings(is *auth.Issuer) []setting {
	return []setting{
		{path: "issuer", value: text{&is.Issuer},
			help: "the iss of its tokens, letter for letter; with oidc, the URL that discovery begins at"},
		{path: "audience", value: list{&is.Audience, anything},
			help: "what this gateway is called in aud; one of them must be there"},
		{path: "algorithms", value: list{&is.Algorithms, anything},
			help: "what its tokens may be signed with: HS, RS, PS, ES with 256, 384, 512, or EdDSA; HS256 with secretFile, else it must be said"},
		{path: "clockSkew", value: skew{&is.ClockSkew},
			help: "its own auth.clockSkew, if it differs"},
		{path: "secretFile", value: text{&is.SecretFile},
			help: "file with a secret, for HS"},
		{path: "publicKeyFile", value: text{&is.PublicKeyFile},
			help: "PEM file with public keys or certificates; it is read again when it changes"},
		{path: "jwksFile", value: text{&is.JWKSFile},
			help: "file with a JWK set; it is read again when it changes"},
		{path: "jwks", value: text{&is.JWKS},
			help: "URL of a JWK set; it is fetched every five minutes, and when a token names a key that isn't known"},
		{path: "oidc", value: boolean{&is.OIDC},
			help: "find the JWK set by OpenID Connect discovery, below issuer"},
	}
}

// policySettings returns the rows of one entry of auth.policies.
func policySettings(p *auth.Policy) []setting {
	return []setting{
		{path: "when", value: text{&p.When}, bounds: true,
			help: "CEL over claims, such as claims.role == \"ops\"; the rules are for tokens of which it is true. Default: for every good token"},
	}
}

// readRuleSettings returns the rows of one entry of a policy's subscribe.
func readRuleSettings(r *auth.ReadRule) []setting {
	return []setting{
		{path: "topic", value: text{&r.Topic},
			help: "topics that may be read, by name or pattern"},
		{path: "keys", value: texts{&r.Keys}, bounds: true,
			help: "record keys that may be read; {sub} stands for the claim. Default: all; an empty list: none"},
		{path: "types", value: texts{&r.Types}, bounds: true,
			help: "event types that may be read, the same way"},
		{path: "filter", value: text{&r.Filter}, bounds: true,
			help: "CEL over event, key, type, headers, topic, partition, offset, timestamp and claims; what it fails for may not be read"},
		{path: "history", value: age{&r.History}, bounds: true,
			help: "how far back may be read; 0s: nothing from before the subscription. Default: as far as Kafka has it"},
	}
}

// writeRuleSettings returns the rows of one entry of a policy's publish.
func writeRuleSettings(w *auth.WriteRule) []setting {
	return []setting{
		{path: "topic", value: text{&w.Topic},
			help: "topics that may be published to, by name or pattern"},
		{path: "source", value: text{&w.Source}, bounds: true,
			help: "what an event's source must be; {sub} stands for the claim. Default: anything"},
		{path: "key", value: text{&w.Key}, bounds: true,
			help: "what the record's key must be, the same way"},
	}
}

// later are the settings that the design has and this version hasn't, by the path of a value or of a group.
func later() []string {
	return []string{
		"limits.publishRate", "limits.bodyBytes",
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
