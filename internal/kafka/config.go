package kafka

import (
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says how to reach a cluster. Its zero value works but for Brokers.
type Config struct {
	// Brokers are addresses to begin with, host:port; one that answers is enough, the others are learned from it.
	// A port that is left out is 9092.
	Brokers []string `yaml:"brokers"`

	TLS  TLS  `yaml:"tls"`
	SASL SASL `yaml:"sasl"`

	// Isolation is read_committed (the default) or read_uncommitted. With the first a transaction's messages
	// are seen once it has committed and an aborted one's never; an open transaction holds back what follows it
	// in its partitions.
	Isolation string `yaml:"isolation"`

	// ClientID names this client in the brokers' logs and quotas. Default streamgw.
	ClientID string `yaml:"clientId"`

	// Pace is the longest wait for more after a fetch response that had records, but for 2 µs more for each partition that
	// is read from the broker. It is waited while responses come often; while events are few there is no wait. Under a
	// steady load it is the broker that waits, if it is no longer than 25 ms: it holds the next request. A longer one spares
	// CPU here and on the brokers, since what arrives meanwhile comes in one response; it adds that much to the latency of a
	// message at most. Default 5 ms; negative: none.
	Pace time.Duration `yaml:"pace"`

	// MaxWait is how long a broker holds the live reader's request when there is nothing to send. Default 250 ms.
	MaxWait time.Duration `yaml:"maxWait"`

	// DialTimeout bounds a connection's making, TLS and SASL included. Default 3 s.
	DialTimeout time.Duration `yaml:"dialTimeout"`

	// RequestTimeout bounds the wait for an answer on a connection. It is longer than MaxWait. Default 10 s.
	RequestTimeout time.Duration `yaml:"requestTimeout"`

	Log     *slog.Logger          `yaml:"-"` // nil: none
	Metrics prometheus.Registerer `yaml:"-"` // nil: none
}

// TLS is how connections are encrypted. Files are read again for each connection, so that a renewed certificate is
// taken up without a restart.
type TLS struct {
	Enabled bool `yaml:"enabled"`

	// CAFile holds the certificates, in PEM, that brokers' certificates are checked against. Default: the system's.
	CAFile string `yaml:"caFile"`

	// CertFile and KeyFile are the client's certificate and key, in PEM, for brokers that ask for one (mTLS).
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`

	// ServerName is what brokers' certificates must be for. Default: the host of each broker's address.
	ServerName string `yaml:"serverName"`

	// InsecureSkipVerify takes any certificate: whoever stands between reads along. For experiments only.
	InsecureSkipVerify bool `yaml:"insecureSkipVerify"`
}

// The mechanisms of [SASL].
const (
	SASLPlain       = "PLAIN"
	SASLSCRAMSHA256 = "SCRAM-SHA-256"
	SASLSCRAMSHA512 = "SCRAM-SHA-512"
	SASLOAuthBearer = "OAUTHBEARER"
)

// SASL is who we are to the brokers. Files are read again for each connection; white space around what they hold
// isn't part of it.
type SASL struct {
	// Mechanism is PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER. Default: none.
	Mechanism string `yaml:"mechanism"`

	Username     string `yaml:"username"`     // for PLAIN and SCRAM
	Password     string `yaml:"password"`     // or PasswordFile
	PasswordFile string `yaml:"passwordFile"` // a file that holds it
	Token        string `yaml:"token"`        // for OAUTHBEARER; or TokenFile
	TokenFile    string `yaml:"tokenFile"`    // a file that holds it, renewed by somebody before it expires
}

const (
	readCommitted   = "read_committed"
	readUncommitted = "read_uncommitted"
)

// withDefaults returns cfg with its defaults filled in.
func (cfg Config) withDefaults() Config {
	cfg.Brokers = slices.Clone(cfg.Brokers)
	for i, addr := range cfg.Brokers {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			if withPort := net.JoinHostPort(addr, "9092"); hostPort(withPort) {
				cfg.Brokers[i] = withPort
			}
		}
	}
	setDefault(&cfg.Isolation, readCommitted)
	setDefault(&cfg.ClientID, "streamgw")
	setDefault(&cfg.Pace, 5*time.Millisecond)
	setDefault(&cfg.MaxWait, 250*time.Millisecond)
	setDefault(&cfg.DialTimeout, 3*time.Second)
	setDefault(&cfg.RequestTimeout, 10*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate returns an error of kind BadRequest that names the setting at fault. Its receiver has its defaults.
func (cfg Config) validate() error {
	if len(cfg.Brokers) == 0 {
		return stream.BadField("kafka.brokers", "name at least one broker, as host:port")
	}
	for _, addr := range cfg.Brokers {
		if !hostPort(addr) {
			return stream.BadField("kafka.brokers", "%q isn't host:port", addr)
		}
	}
	switch {
	case cfg.Isolation != readCommitted && cfg.Isolation != readUncommitted:
		return stream.BadField("kafka.isolation", "%q is neither %s nor %s", cfg.Isolation, readCommitted, readUncommitted)
	case cfg.MaxWait < time.Millisecond:
		return stream.BadField("kafka.maxWait", "%v is shorter than 1ms", cfg.MaxWait)
	case cfg.DialTimeout < time.Millisecond:
		return stream.BadField("kafka.dialTimeout", "%v is shorter than 1ms", cfg.DialTimeout)
	case cfg.RequestTimeout <= cfg.MaxWait:
		return stream.BadField("kafka.requestTimeout", "%v isn't longer than kafka.maxWait, %v", cfg.RequestTimeout, cfg.MaxWait)
	}
	if err := cfg.SASL.validate(); err != nil {
		return err
	}
	return cfg.TLS.validate()
}

// hostPort reports whether addr has a host and a port that can be dialled.
func hostPort(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
