package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/goodgo/streamgw/internal/kafka"
)

// hint says in words what most likely keeps us from the brokers, or "" where the error says it itself.
func hint(err error, c kafka.Config) string {
	_, unknownAuthority := errors.AsType[x509.UnknownAuthorityError](err)
	_, wrongName := errors.AsType[x509.HostnameError](err)
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	_, noName := errors.AsType[*net.DNSError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	switch {
	case noName:
		return "the name isn't known here: is kafka.brokers right, also in the network that this runs in?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: is the broker up, and is this its port?"
	case unknownAuthority:
		return "the broker's certificate is signed by an authority that isn't known here: name it with kafka.tls.caFile"
	case wrongName:
		return "the broker's certificate is for another name: set kafka.tls.serverName if that is meant"
	case notTLS:
		return "the broker doesn't speak TLS on this port: use its TLS port, or set kafka.tls.enabled to false"
	case alert:
		return "the broker refuses our side of TLS: if it asks for a certificate, set kafka.tls.certFile and kafka.tls.keyFile"
	case strings.Contains(err.Error(), "SASL"):
		return "the broker refuses who we are: check kafka.sasl, its mechanism, user and secret"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the broker ended the connection: it may want " + wants(c)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing answered in time: a firewall, a port that isn't Kafka's, or a broker that wants " + wants(c)
	}
	return ""
}

// wants says how a broker may differ from our settings about TLS and SASL.
func wants(c kafka.Config) string {
	tls, sasl := "TLS (kafka.tls.enabled)", "SASL (kafka.sasl)"
	if c.TLS.Enabled {
		tls = "no TLS (kafka.tls.enabled)"
	}
	if c.SASL.Mechanism != "" {
		sasl = "other SASL settings, or none (kafka.sasl)"
	}
	return tls + " or " + sasl
}

// withHint adds the hint to an error, on a line of its own.
func withHint(err error, c kafka.Config) error {
	if h := hint(err, c); h != "" {
		return &hinted{err, h}
	}
	return err
}

type hinted struct {
	error
	hint string
}

func (h *hinted) Error() string { return h.error.Error() + "\n  " + h.hint }
func (h *hinted) Unwrap() error { return h.error }
