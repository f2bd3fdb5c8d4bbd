package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/xdg-go/scram"
)

func (t TLS) validate() error {
	if !t.Enabled {
		for field, set := range map[string]bool{
			"caFile": t.CAFile != "", "certFile": t.CertFile != "", "keyFile": t.KeyFile != "",
			"serverName": t.ServerName != "", "insecureSkipVerify": t.InsecureSkipVerify,
		} {
			if set {
				return stream.BadField("kafka.tls."+field, "is set, but kafka.tls.enabled isn't")
			}
		}
		return nil
	}
	_, err := t.config("")
	return err
}

// config reads the files and returns what a connection to a host needs.
func (t TLS) config(host string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.ServerName != "" {
		cfg.ServerName = t.ServerName
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fileError("kafka.tls.caFile", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, stream.BadField("kafka.tls.caFile", "%s holds no certificate in PEM", t.CAFile)
		}
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
		return cfg, nil
	case t.CertFile == "":
		return nil, stream.BadField("kafka.tls.certFile", "is needed beside kafka.tls.keyFile")
	case t.KeyFile == "":
		return nil, stream.BadField("kafka.tls.keyFile", "is needed beside kafka.tls.certFile")
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fileError("kafka.tls.certFile", err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

func (s SASL) validate() error {
	known := []string{"", SASLPlain, SASLSCRAMSHA256, SASLSCRAMSHA512, SASLOAuthBearer}
	if !slices.Contains(known, s.Mechanism) {
		return stream.BadField("kafka.sasl.mechanism", "%q is none of %s", s.Mechanism, strings.Join(known[1:], ", "))
	}
	if s.Mechanism == "" {
		if s != (SASL{}) {
			return stream.BadField("kafka.sasl.mechanism", "is needed with the other settings of kafka.sasl: one of %s", strings.Join(known[1:], ", "))
		}
		return nil
	}
	if s.Mechanism == SASLOAuthBearer {
		if s.Username != "" || s.Password != "" || s.PasswordFile != "" {
			return stream.BadField("kafka.sasl.mechanism", "%s takes a token, no username and no password", s.Mechanism)
		}
	} else {
		if s.Token != "" || s.TokenFile != "" {
			return stream.BadField("kafka.sasl.mechanism", "%s takes a username and a password, no token", s.Mechanism)
		}
		if s.Username == "" {
			return stream.BadField("kafka.sasl.username", "is needed for %s", s.Mechanism)
		}
	}
	_, err := s.secret()
	return err
}

// secret returns the password, or the token of OAUTHBEARER, as it is now.
func (s SASL) secret() (string, error) {
	field, value, file := "kafka.sasl.password", s.Password, s.PasswordFile
	if s.Mechanism == SASLOAuthBearer {
		field, value, file = "kafka.sasl.token", s.Token, s.TokenFile
	}
	switch {
	case value != "" && file != "":
		return "", stream.BadField(field, "is set, and so is %sFile: which is meant?", field)
	case value != "":
		return value, nil
	case file == "":
		return "", stream.BadField(field, "is needed for %s, or %sFile", s.Mechanism, field)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fileError(field+"File", err)
	}
	if value = strings.TrimSpace(string(raw)); value == "" {
		return "", stream.BadField(field+"File", "%s is empty", file)
	}
	return value, nil
}

// apply fills in the SASL part of a connection's configuration, with the secret as it is now. Where sarama asks again
// (KIP-368, a session that expires), it is read again.
func (s SASL) apply(cfg *sarama.Config) error {
	if s.Mechanism == "" {
		return nil
	}
	secret, err := s.secret()
	if err != nil {
		return err
	}
	cfg.Net.SASL.Enable = true
	cfg.Net.SASL.Mechanism = sarama.SASLMechanism(s.Mechanism)
	cfg.Net.SASL.Version = sarama.SASLHandshakeV1
	switch s.Mechanism {
	case SASLOAuthBearer:
		cfg.Net.SASL.TokenProvider = tokenProvider{s}
		return nil
	case SASLSCRAMSHA256:
		cfg.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA256, sasl: s} }
	case SASLSCRAMSHA512:
		cfg.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA512, sasl: s} }
	}
	cfg.Net.SASL.User, cfg.Net.SASL.Password = s.Username, secret
	return nil
}

func fileError(field string, err error) error {
	return &stream.Error{Kind: stream.BadRequest, Field: field, Detail: "can't be used", Err: err}
}

// tokenProvider gives sarama the token as it is now, for each connection and each renewal of a session.
type tokenProvider struct{ sasl SASL }

func (p tokenProvider) Token() (*sarama.AccessToken, error) {
	token, err := p.sasl.secret()
	if err != nil {
		return nil, err
	}
	return &sarama.AccessToken{Token: token}, nil
}

// scramClient is one exchange of SCRAM (RFC 5802), with the password as it is when the exchange begins.
type scramClient struct {
	hash         scram.HashGeneratorFcn
	sasl         SASL
	conversation *scram.ClientConversation
}

func (s *scramClient) Begin(user, _, authzID string) error {
	password, err := s.sasl.secret()
	if err != nil {
		return err
	}
	client, err := s.hash.NewClient(user, password, authzID)
	if err != nil {
		return errors.New("username or password has characters that SCRAM doesn't allow (RFC 4013)") // the cause might quote them
	}
	s.conversation = client.NewConversation()
	return nil
}

func (s *scramClient) Step(challenge string) (string, error) { return s.conversation.Step(challenge) }

func (s *scramClient) Done() bool { return s.conversation.Done() }
