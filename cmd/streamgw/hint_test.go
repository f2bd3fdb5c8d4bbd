package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/kafka"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/twmb/franz-go/pkg/kfake"
)

// certificate returns a self-signed certificate for a name, and a file that holds it.
func certificate(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, file
}

func TestRefusalsBySASLAreExplained(t *testing.T) {
	for _, said := range []string{"kafka server: SASL Authentication failed", "kafka server: The broker does not support the requested SASL mechanism"} {
		err := stream.Error{Kind: stream.Unavailable, Detail: "Kafka can't be reached", Err: errors.New(said)}
		if got := withHint(&err, kafka.Config{}); !strings.Contains(got.Error(), "check kafka.sasl") {
			t.Errorf("got %v", got)
		}
	}
	if err := errors.New("something else"); withHint(err, kafka.Config{}) != err {
		t.Error("a hint for anything")
	}
}

func TestCheckSaysWhatKeepsUsFromKafka(t *testing.T) {
	start := func(options ...kfake.Opt) string {
		b, err := devbroker.Start(devbroker.Config{Options: options})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b.Addr()
	}
	pair, ca := certificate(t, "kafka.example")
	open := start()
	encrypted := start(kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
	guarded := start(kfake.EnableSASL(), kfake.Superuser("PLAIN", "me", "right"))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		args []string
		want string
	}{
		"nothing there":     {[]string{"--brokers", nobody.Addr().String()}, "nothing listens there"},
		"no such name":      {[]string{"--brokers", "kafka.invalid:9092"}, "the name isn't known here"},
		"TLS on our side":   {[]string{"--brokers", open, "--kafka-tls-enabled"}, "no TLS (kafka.tls.enabled)"},
		"TLS on theirs":     {[]string{"--brokers", encrypted}, "TLS (kafka.tls.enabled)"},
		"unknown authority": {[]string{"--brokers", encrypted, "--kafka-tls-enabled", "--kafka-tls-server-name=kafka.example"}, "name it with kafka.tls.caFile"},
		"another name":      {[]string{"--brokers", encrypted, "--kafka-tls-enabled", "--kafka-tls-ca-file", ca}, "set kafka.tls.serverName"},
		"SASL on theirs":    {[]string{"--brokers", guarded}, "SASL (kafka.sasl)"},
		"the wrong secret": {[]string{"--brokers", guarded, "--kafka-sasl-mechanism=PLAIN", "--kafka-sasl-username=me", "--kafka-sasl-password-file", secret},
			"other SASL settings, or none (kafka.sasl)"},
	}
	said := make(chan string, len(cases))
	for name, tt := range cases { // at once, since each waits for the client's patience to end
		go func() {
			code, _, stderr := run(t, "", append([]string{"check", "--auth-mode=none"}, tt.args...)...)
			if code == exitFailure && strings.Contains(stderr, tt.want) {
				stderr = ""
			} else {
				stderr = fmt.Sprintf("%s: code %d, want %q in\n%s", name, code, tt.want, stderr)
			}
			said <- stderr
		}()
	}
	for range cases {
		if wrong := <-said; wrong != "" {
			t.Error(wrong)
		}
	}
	if code, out, stderr := run(t, "", "check", "--auth-mode=none", "--brokers", encrypted, "--kafka-tls-enabled", "--kafka-tls-ca-file", ca, "--kafka-tls-server-name=kafka.example"); code != exitOK {
		t.Errorf("with the right settings: code %d, %s%s", code, out, stderr)
	}
}
