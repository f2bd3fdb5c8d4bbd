package main

import (
	"log/slog"
	"strings"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/expr"
	"github.com/prometheus/client_golang/prometheus"
)

// newAccess returns who may do what, by a configuration. Errors are Problems.
func newAccess(c Config, log *slog.Logger, registry prometheus.Registerer) (*auth.Access, error) {
	expressions, err := expr.New()
	if err != nil {
		return nil, err
	}
	access, err := auth.New(auth.Config{
		Mode: auth.Mode(c.Auth.Mode), Issuers: c.Auth.Issuers, Policies: c.Auth.Policies, Expressions: expressions,
		Verifier: auth.VerifierConfig{ClockSkew: c.Auth.ClockSkew, Log: log, Registry: registry},
		Query:    c.Auth.Query, Cookie: c.Auth.Cookie, Origins: c.CORS.Origins, TicketSecretFile: c.Auth.TicketSecretFile,
	})
	if err != nil {
		return nil, Problems(strings.Split(err.Error(), "\n"))
	}
	return access, nil
}
