// Package auth decides, before a subscription exists, what a request may read: it turns a request into a [Grant].
// It imports no sibling but stream.
//
// This version knows one [Mode], None: whoever reaches the gateway reads every topic that isn't internal. It has to be
// asked for, so that nobody serves everything to everyone by leaving a setting out.
package auth

import (
	"fmt"
	"net/http"

	"github.com/goodgo/streamgw/internal/stream"
)

// Mode is how requests are told apart.
type Mode string

// None asks for no token. Every topic that isn't internal may be read by everyone who reaches the gateway.
const None Mode = "none"

// Config says who may read what. Its zero value is refused: a mode must be chosen.
type Config struct {
	Mode Mode
}

// Access turns requests into grants.
type Access struct {
	mode Mode
}

// New returns the access that cfg describes, or an error that says what is wrong with it.
func New(cfg Config) (*Access, error) {
	switch cfg.Mode {
	case None:
		return &Access{mode: cfg.Mode}, nil
	case "":
		return nil, fmt.Errorf("auth.mode isn't set; %q serves every topic to everyone", None)
	default:
		return nil, fmt.Errorf("auth.mode is %q; this version knows %q", cfg.Mode, None)
	}
}

// Grant returns what a request may do. Errors are [stream.Error] of kind Unauthorized.
func (a *Access) Grant(*http.Request) (Grant, error) {
	return Grant{everything: a.mode == None}, nil
}

// Grant is what one request may do. The zero value allows nothing.
type Grant struct {
	everything bool
}

// MayRead reports whether a topic may be read. Internal topics never may.
func (g Grant) MayRead(topic string) bool {
	return g.everything && !stream.InternalTopic(topic)
}
