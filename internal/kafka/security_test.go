package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/twmb/franz-go/pkg/kfake"
)

// authority signs certificates for a test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate, in PEM
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.key = must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))
	a.cert = must[*x509.Certificate](t)(x509.ParseCertificate(der))
	a.file = a.write(t, "ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(a.dir, name)
	check(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return file
}

// issue returns the files of a certificate, for a server's host or a client, and of its key.
func (a *authority) issue(t *testing.T, host string) (certFile, keyFile string) {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.DNSNames, template.IPAddresses = nil, []net.IP{ip}
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))
	raw := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	return a.write(t, host+".pem", "CERTIFICATE", der), a.write(t, host+".key", "PRIVATE KEY", raw)
}

// server returns the TLS configuration of a broker whose certificate is for a host.
func (a *authority) server(t *testing.T, host string, client tls.ClientAuthType) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	pair := must[tls.Certificate](t)(tls.LoadX509KeyPair(a.issue(t, host)))
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: client, ClientCAs: pool}
}

// works fails the test unless a client with these settings can look up, dial and publish.
func works(t *testing.T, b *devbroker.Broker, cfg Config) {
	t.Helper()
	cfg.Brokers = b.Addrs()
	c := newClient(t, cfg)
	must[stream.Topic](t)(c.Topics().Lookup(t.Context(), "orders"))
	must[[]stream.Receipt](t)(newPublisher(t, c, PublisherConfig{}).Publish(t.Context(), []stream.Record{{Topic: "orders", Value: []byte("v")}}))
	own := must[*sarama.Broker](t)(c.dial(t.Context(), 0))
	defer own.Close()
	must[*sarama.MetadataResponse](t)(own.GetMetadata(sarama.NewMetadataRequest(protocol, nil)))
}

// fails fails the test unless a client with these settings is told why it can't connect, without the secret.
func fails(t *testing.T, b *devbroker.Broker, cfg Config, want string, secrets ...string) {
	t.Helper()
	cfg.Brokers = b.Addrs()
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	_, err := newClient(t, cfg).metadata(t.Context(), "orders")
	wantKind(t, err, stream.Unavailable)
	if !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("the error %q doesn't say %q", err, want)
	}
	for _, secret := range secrets {
		if strings.Contains(fmt.Sprint(err)+log.String(), secret) {
			t.Errorf("the secret is in %q or in the log %q", err, &log)
		}
	}
}

var oneTopic = []devbroker.Topic{{Name: "orders", Partitions: 1}}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	b := embedded(t, devbroker.Config{Topics: oneTopic, Options: []kfake.Opt{kfake.TLS(ca.server(t, "127.0.0.1", tls.NoClientCert))}})
	works(t, b, Config{TLS: TLS{Enabled: true, CAFile: ca.file}})
	works(t, b, Config{TLS: TLS{Enabled: true, InsecureSkipVerify: true}})
	fails(t, b, Config{TLS: TLS{Enabled: true, CAFile: other.file}}, "certificate")
	fails(t, b, Config{TLS: TLS{Enabled: true}}, "certificate")
	fails(t, b, Config{TLS: TLS{Enabled: true, CAFile: ca.file, ServerName: "kafka.example"}}, "kafka.example")
}

func TestTLSWithTheNameThatIsConfigured(t *testing.T) {
	ca := newAuthority(t)
	b := embedded(t, devbroker.Config{Topics: oneTopic, Options: []kfake.Opt{kfake.TLS(ca.server(t, "kafka.example", tls.NoClientCert))}})
	works(t, b, Config{TLS: TLS{Enabled: true, CAFile: ca.file, ServerName: "kafka.example"}})
	fails(t, b, Config{TLS: TLS{Enabled: true, CAFile: ca.file}}, "certificate")
}

func TestMutualTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	b := embedded(t, devbroker.Config{Topics: oneTopic, Options: []kfake.Opt{kfake.TLS(ca.server(t, "127.0.0.1", tls.RequireAndVerifyClientCert))}})
	cert, key := ca.issue(t, "streamgw")
	cfg := Config{TLS: TLS{Enabled: true, CAFile: ca.file, CertFile: cert, KeyFile: key}}
	works(t, b, cfg)
	fails(t, b, Config{TLS: TLS{Enabled: true, CAFile: ca.file}}, "certificate")
	strange, strangeKey := other.issue(t, "streamgw")
	fails(t, b, Config{TLS: TLS{Enabled: true, CAFile: ca.file, CertFile: strange, KeyFile: strangeKey}}, "certificate")
}

func TestARenewedCertificateIsTakenUpByTheNextConnection(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	b := embedded(t, devbroker.Config{Topics: oneTopic, Options: []kfake.Opt{kfake.TLS(ca.server(t, "127.0.0.1", tls.RequireAndVerifyClientCert))}})
	cert, key := other.issue(t, "streamgw")
	c := newClient(t, Config{Brokers: b.Addrs(), TLS: TLS{Enabled: true, CAFile: ca.file, CertFile: cert, KeyFile: key}})
	_, err := c.metadata(t.Context())
	wantKind(t, err, stream.Unavailable)
	newCert, newKey := ca.issue(t, "streamgw")
	check(t, os.Rename(newCert, cert))
	check(t, os.Rename(newKey, key))
	must[*metadata](t)(c.metadata(t.Context()))
}

func TestSASL(t *testing.T) {
	const user, password = "gateway", "s3cret, with=odd ☃"
	for _, mechanism := range []string{SASLPlain, SASLSCRAMSHA256, SASLSCRAMSHA512} {
		t.Run(mechanism, func(t *testing.T) {
			b := embedded(t, devbroker.Config{Topics: oneTopic, Options: []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(mechanism, user, password)}})
			works(t, b, Config{SASL: SASL{Mechanism: mechanism, Username: user, Password: password}})
			file := filepath.Join(t.TempDir(), "password")
			check(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
			works(t, b, Config{SASL: SASL{Mechanism: mechanism, Username: user, PasswordFile: file}})
			fails(t, b, Config{SASL: SASL{Mechanism: mechanism, Username: user, Password: "guess-4711"}}, "connect to", "guess-4711", password)
			fails(t, b, Config{SASL: SASL{Mechanism: mechanism, Username: "nobody", Password: password}}, "connect to", password)
			fails(t, b, Config{}, "")

			check(t, os.WriteFile(file, []byte("old"), 0o600)) // and renewed while we run
			c := newClient(t, Config{Brokers: b.Addrs(), SASL: SASL{Mechanism: mechanism, Username: user, PasswordFile: file}})
			_, err := c.metadata(t.Context())
			wantKind(t, err, stream.Unavailable)
			check(t, os.WriteFile(file, []byte(password), 0o600))
			must[*metadata](t)(c.metadata(t.Context()))
		})
	}
}

func TestSASLOverTLS(t *testing.T) {
	ca := newAuthority(t)
	b := embedded(t, devbroker.Config{Topics: oneTopic, Options: []kfake.Opt{
		kfake.TLS(ca.server(t, "127.0.0.1", tls.NoClientCert)), kfake.EnableSASL(), kfake.Superuser(SASLSCRAMSHA512, "u", "p"),
	}})
	works(t, b, Config{TLS: TLS{Enabled: true, CAFile: ca.file}, SASL: SASL{Mechanism: SASLSCRAMSHA512, Username: "u", Password: "p"}})
}

// bearerBroker takes connections with OAUTHBEARER and one token, and passes on what follows to a broker that asks for nothing.
type bearerBroker struct {
	net.Listener
	token string
	to    string

	mu   sync.Mutex // guards what follows
	seen []string   // the tokens that came
}

func startBearerBroker(t *testing.T, token, to string) *bearerBroker {
	t.Helper()
	b := &bearerBroker{Listener: must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")), token: token, to: to}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := b.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { b.serve(conn) })
		}
	})
	t.Cleanup(func() {
		b.Close()
		serving.Wait()
	})
	return b
}

// serve answers ApiVersions (which comes first), SaslHandshake and SaslAuthenticate, then joins both ends.
func (b *bearerBroker) serve(conn net.Conn) {
	defer conn.Close()
	upstream, err := net.Dial("tcp", b.to)
	if err != nil {
		return
	}
	defer upstream.Close()
	for authenticated := false; !authenticated; {
		request, err := readFrame(conn)
		if err != nil {
			return
		}
		var answer []byte
		switch key := binary.BigEndian.Uint16(request); key {
		case 18: // ApiVersions: the other broker knows
			if err := writeFrame(upstream, request); err != nil {
				return
			}
			if answer, err = readFrame(upstream); err != nil {
				return
			}
		case 17: // SaslHandshake v1: correlation, no error, one mechanism
			answer = slices.Concat(request[4:8], []byte{0, 0, 0, 0, 0, 1, 0, 11}, []byte(SASLOAuthBearer))
		case 36: // SaslAuthenticate v2: correlation, tags, error, message, bytes, lifetime, tags
			authenticated = b.accepts(request)
			code := []byte{0, 0}
			if !authenticated {
				code = []byte{0, 58} // SASL_AUTHENTICATION_FAILED
			}
			answer = slices.Concat(request[4:8], []byte{0}, code, []byte{0, 1}, make([]byte, 8), []byte{0})
		}
		if err := writeFrame(conn, answer); err != nil {
			return
		}
	}
	var joined sync.WaitGroup
	joined.Go(func() { io.Copy(upstream, conn); upstream.Close() })
	io.Copy(conn, upstream)
	conn.Close()
	joined.Wait()
}

func (b *bearerBroker) accepts(request []byte) bool {
	const before, after = "n,,\x01auth=Bearer ", "\x01\x01"
	_, rest, ok := strings.Cut(string(request), before)
	token, _, ended := strings.Cut(rest, after)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, token)
	return ok && ended && token == b.token
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, frame)
	return frame, err
}

func writeFrame(w io.Writer, frame []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err
}

func TestOAuthBearerSendsTheTokenAsItIsNow(t *testing.T) {
	behind := embedded(t, devbroker.Config{Topics: oneTopic})
	b := startBearerBroker(t, "token-2", behind.Addr())
	file := filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(file, []byte("token-1\n"), 0o600))
	c := newClient(t, Config{Brokers: []string{b.Addr().String()}, SASL: SASL{Mechanism: SASLOAuthBearer, TokenFile: file}})
	_, err := c.metadata(t.Context(), "orders")
	if wantKind(t, err, stream.Unavailable); strings.Contains(fmt.Sprint(err), "token-1") {
		t.Errorf("the token is in the error: %v", err)
	}
	check(t, os.WriteFile(file, []byte("token-2\n"), 0o600))
	md := must[*metadata](t)(c.metadata(t.Context(), "orders"))
	if len(md.topics["orders"].partitions) != 1 {
		t.Errorf("metadata is %+v", md)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.seen, []string{"token-1", "token-2"}) {
		t.Errorf("the broker has seen %q", b.seen)
	}
}

func TestSecuritySettingsThatCannotBeAreNamed(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, "streamgw")
	empty := filepath.Join(t.TempDir(), "empty")
	check(t, os.WriteFile(empty, []byte(" \n"), 0o600))
	for name, tt := range map[string]struct {
		tls  TLS
		sasl SASL
		want string
	}{
		"unknown mechanism":         {sasl: SASL{Mechanism: "GSSAPI"}, want: "kafka.sasl.mechanism: "},
		"settings, no mechanism":    {sasl: SASL{Username: "u"}, want: "kafka.sasl.mechanism: "},
		"no username":               {sasl: SASL{Mechanism: SASLPlain, Password: "s3cret"}, want: "kafka.sasl.username: "},
		"no password":               {sasl: SASL{Mechanism: SASLSCRAMSHA256, Username: "u"}, want: "kafka.sasl.password: "},
		"two passwords":             {sasl: SASL{Mechanism: SASLPlain, Username: "u", Password: "s3cret", PasswordFile: empty}, want: "kafka.sasl.password: "},
		"password file is missing":  {sasl: SASL{Mechanism: SASLPlain, Username: "u", PasswordFile: empty + "x"}, want: "kafka.sasl.passwordFile: "},
		"password file is empty":    {sasl: SASL{Mechanism: SASLPlain, Username: "u", PasswordFile: empty}, want: "kafka.sasl.passwordFile: "},
		"password with OAUTHBEARER": {sasl: SASL{Mechanism: SASLOAuthBearer, Token: "s3cret", Password: "s3cret"}, want: "kafka.sasl.mechanism: "},
		"token with PLAIN":          {sasl: SASL{Mechanism: SASLPlain, Token: "s3cret"}, want: "kafka.sasl.mechanism: "},
		"no token":                  {sasl: SASL{Mechanism: SASLOAuthBearer}, want: "kafka.sasl.token: "},
		"TLS settings, not enabled": {tls: TLS{CAFile: ca.file}, want: "kafka.tls.caFile: "},
		"authority is missing":      {tls: TLS{Enabled: true, CAFile: ca.file + "x"}, want: "kafka.tls.caFile: "},
		"authority is a key":        {tls: TLS{Enabled: true, CAFile: key}, want: "kafka.tls.caFile: "},
		"certificate without a key": {tls: TLS{Enabled: true, CertFile: cert}, want: "kafka.tls.keyFile: "},
		"key without a certificate": {tls: TLS{Enabled: true, KeyFile: key}, want: "kafka.tls.certFile: "},
		"key isn't one":             {tls: TLS{Enabled: true, CertFile: cert, KeyFile: cert}, want: "kafka.tls.certFile: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{Brokers: []string{"k"}, TLS: tt.tls, SASL: tt.sasl})
			if wantKind(t, err, stream.BadRequest); !strings.HasPrefix(fmt.Sprint(err), tt.want) || strings.Contains(fmt.Sprint(err), "s3cret") {
				t.Errorf("%q doesn't begin with %q, or tells the secret", err, tt.want)
			}
		})
	}
}

func TestASilentHandshakeEndsInTime(t *testing.T) {
	for name, cfg := range map[string]Config{
		"TLS":  {TLS: TLS{Enabled: true}},
		"SASL": {SASL: SASL{Mechanism: SASLPlain, Username: "u", Password: "p"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Brokers, cfg.DialTimeout = []string{silent(t)}, 200*time.Millisecond
			start := time.Now()
			_, err := newClient(t, cfg).metadata(context.Background())
			wantKind(t, err, stream.Unavailable)
			within(t, start, 2*time.Second)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
