// Package auth decides, before a subscription exists, what a request may do: it turns a request into a [Grant].
// It imports no sibling but stream.
//
// Promises: a token that doesn't hold is never taken for none, and none never for somebody's; what a grant doesn't say is
// denied; no part of a token, a ticket or a secret is in an error, a log line or a metric.
//
// There are two modes. With None whoever reaches the gateway reads every topic that isn't internal; it has to be asked for,
// so that nobody serves everything to everyone by leaving a setting out. With JWT a request brings a token of one of the
// issuers, or a ticket that was given for one; its rules come from its own claim `streamgw` and from policies.
package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/goodgo/streamgw/internal/stream"
)

// Mode is how requests are told apart.
type Mode string

const (
	None Mode = "none" // asks for no token: every topic that isn't internal may be read by everyone who reaches the gateway
	JWT  Mode = "jwt"  // asks for a JSON Web Token of one of the issuers
)

// Config says who may read what. Its zero value is refused: a mode must be chosen.
type Config struct {
	Mode Mode

	// What follows is for mode JWT.

	Issuers     []Issuer
	Verifier    VerifierConfig
	Policies    []Policy           // what is allowed beside what a token's own claim allows
	Expressions stream.Expressions // compiles those of policies and claims; nil: there may be none

	// Query takes a token from ?access_token=. Addresses end up in logs of proxies and in histories of browsers, so a
	// ticket is better where a header can't be sent.
	Query bool

	// Cookie names a cookie that may hold a token; "": none does. Browsers send it with requests that other sites' pages
	// make, so then the page's origin must be the gateway's own or one of Origins.
	Cookie  string
	Origins []string // "*" isn't one here

	// TicketSecretFile has the secret that tickets are sealed with, of 32 bytes at least, the same on every replica. A
	// second line has one that is still taken: for a change. "": there are no tickets.
	TicketSecretFile string
}

// Access turns requests into grants. It is safe for concurrent use.
type Access struct {
	cfg      Config
	verifier *Verifier // nil in mode None
	policies []policy
	compiler compiler
	tickets  *sealer // nil: there are none
	revoked  revocations
	now      func() time.Time
}

// policy is a Policy that was read.
type policy struct {
	when func(claims map[string]any) bool // nil: always
	rules
}

// isFor reports whether the policy's rules are for a token with some claims.
func (p *policy) isFor(claims map[string]any) bool { return p.when == nil || p.when(claims) }

// New returns the access that cfg describes, or an error that names the settings that are wrong.
func New(cfg Config) (*Access, error) {
	a := &Access{cfg: cfg, compiler: compiler{expressions: cfg.Expressions}, now: cfg.Verifier.Now}
	if a.now == nil {
		a.now = time.Now
	}
	switch cfg.Mode {
	case None:
		return a, nil
	case JWT:
	case "":
		return nil, fmt.Errorf("auth.mode isn't set; %q serves every topic to everyone, %q asks for tokens", None, JWT)
	default:
		return nil, fmt.Errorf("auth.mode is %q; it is %q or %q", cfg.Mode, None, JWT)
	}
	var err error
	var problems []error
	if a.verifier, err = NewVerifier(cfg.Issuers, cfg.Verifier); err != nil {
		problems = append(problems, err)
	}
	for i, p := range cfg.Policies {
		compiled, err := a.policy(p)
		if err != nil {
			problems = append(problems, fmt.Errorf("auth.policies[%d].%w", i, err))
		}
		a.policies = append(a.policies, compiled)
	}
	problems = append(problems, a.sizeProblems()...)
	if cfg.TicketSecretFile != "" {
		if a.tickets, err = newSealer(cfg.TicketSecretFile); err != nil {
			problems = append(problems, fmt.Errorf("auth.ticketSecretFile: %w", err))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return a, nil
}

// sizeProblems returns which policies come to more than a grant may, whatever a token's claims are.
func (a *Access) sizeProblems() (problems []error) {
	everybody := &Grant{}
	for i := range a.policies {
		p := &a.policies[i]
		to := everybody
		if p.when != nil {
			to = &Grant{}
		}
		if errors.Is(p.grantTo(nil, to), errTooManyValues) {
			problems = append(problems, fmt.Errorf("auth.policies[%d]: it and those before it that are for every token come to more than %d keys and types", i, maxSize))
			everybody.size = 0
		}
	}
	return problems
}

func (a *Access) policy(in Policy) (p policy, err error) {
	if in.When != "" {
		if a.cfg.Expressions == nil {
			return p, errors.New("when: expressions aren't available")
		}
		if p.when, err = a.cfg.Expressions.OverClaims(in.When); err != nil {
			return p, fmt.Errorf("when: %w", err)
		}
	}
	p.rules, err = a.compiler.compile(in.Rules)
	return p, err
}

// Run keeps issuers' keys fresh until ctx ends. It is called once.
func (a *Access) Run(ctx context.Context) error {
	if a.verifier == nil {
		<-ctx.Done()
		return nil
	}
	return a.verifier.Run(ctx)
}

// What a request without a good token is told apart by.
var (
	// ErrNoToken says that a request brings no token at all.
	ErrNoToken = stream.Errorf(stream.Unauthorized, "a token is needed: Authorization: Bearer TOKEN, or one of the other ways that the gateway takes")

	// ErrTicketExpired says that a ticket was good, and that its time is over.
	ErrTicketExpired = stream.Errorf(stream.Unauthorized, "the ticket has expired; take a new one and go on where the last stream was")

	// ErrRevoked says that a token was good, and was taken back.
	ErrRevoked = stream.Errorf(stream.Unauthorized, "the token was revoked")

	// ErrNoTickets says that this gateway gives none.
	ErrNoTickets = &stream.Error{Kind: stream.NotFound, Field: QueryTicket, Detail: "this gateway has no tickets (auth.ticketSecretFile)"}
)

var everything = &Grant{everything: true}

// Admit returns what a request may do. Its grant is good until the token's exp, or for one that has passed that within the
// clock skew until then. Errors are [stream.Error]: of kind Unauthorized, with one of the values above among them,
// Forbidden if a cookie comes from a foreign page, Unavailable if the issuer's keys can't be had.
func (a *Access) Admit(r *http.Request) (*Grant, error) {
	if a.cfg.Mode == None {
		return everything, nil
	}
	c, err := a.credentialOf(r)
	switch {
	case err != nil:
		return nil, err
	case c.ticket != "":
		return a.redeem(r, c.ticket)
	case c.token == "":
		return nil, ErrNoToken
	}
	return a.AdmitToken(r.Context(), c.token)
}

// AdmitToken is Admit for a token that came otherwise than with a request's head.
func (a *Access) AdmitToken(ctx context.Context, token string) (*Grant, error) {
	if a.cfg.Mode == None {
		return everything, nil
	}
	t, err := a.verifier.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	return a.grant(t)
}

// grant returns what a token that holds lets somebody do.
func (a *Access) grant(t *Token) (*Grant, error) {
	g := &Grant{token: t, who: &Identity{Issuer: t.Issuer, Subject: t.Subject, TokenID: t.ID, Ends: t.Expires}}
	skew := a.verifier.issuers[t.Issuer].skew
	if !t.IssuedAt.IsZero() {
		g.who.IssuedAt = t.IssuedAt.Add(-skew)
	}
	if now := a.now(); !now.Before(g.who.Ends) {
		g.who.Ends = g.who.Ends.Add(skew)
	}
	if a.revoked.has(g.who) {
		return nil, ErrRevoked
	}
	if claim, ok := t.Claims[ownClaim]; ok {
		in, err := claimed(claim)
		if err != nil {
			return nil, refusal("has a claim " + ownClaim + " that isn't one: see docs/security.md")
		}
		own, err := a.compiler.compile(in)
		if err != nil {
			return nil, refusal("has a claim " + ownClaim + " with a rule that can't be read")
		}
		if err := own.grantTo(t.Claims, g); err != nil {
			return nil, &stream.Error{Kind: stream.Forbidden, Detail: "the token's rules can't be applied: " + err.Error()}
		}
	}
	for i := range a.policies {
		p := &a.policies[i]
		if !p.isFor(t.Claims) {
			continue
		}
		if err := p.grantTo(t.Claims, g); err != nil {
			return nil, &stream.Error{Kind: stream.Forbidden, Detail: "the token's claims don't fit a policy: " + err.Error()}
		}
	}
	return g, nil
}

// ownClaim is the claim that holds a token's own rules.
const ownClaim = "streamgw"
