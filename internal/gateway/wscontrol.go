package gateway

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/goodgo/streamgw/internal/stream"
)

// clientFrame is what a WebSocket client sends:
//
//	{"type":"subscribe","id":I,"topics":[T],"keys":[K],"types":[E],"from":F,"format":"value"|"record","slow":"replay"|"close"}
//	{"type":"unsubscribe","id":I}
//	{"type":"auth","token":T}      a token: the first one, if the handshake brought none, or one that takes the earlier one's place
//	{"type":"ping","id":I}         id as the client likes, or none; it comes back with the pong
//
// All but type, and for a subscription id and topics, may be left out. A subscribe's members mean what the parameters
// of the same names do.
type clientFrame struct {
	Type   string   `json:"type"`
	ID     *string  `json:"id"`
	Topics []string `json:"topics"`
	Keys   []string `json:"keys"`
	Types  []string `json:"types"`
	From   *string  `json:"from"`
	Format *string  `json:"format"`
	Slow   *string  `json:"slow"`
	Token  string   `json:"token"`
}

// members are what a frame of each type may have.
var members = map[string][]string{
	"subscribe":   {"type", "id", "topics", "keys", "types", "from", "format", "slow"},
	"unsubscribe": {"type", "id"},
	"ping":        {"type", "id"},
	"auth":        {"type", "token"},
}

// laterFrames are frames of the design that this version doesn't have.
const laterFrames = " publish "

// maxID bounds the bytes of a subscription's id, which comes back with each of its events.
const maxID = 64

// parseFrame reads a client's frame. Its errors are [stream.Error] and name the member at fault; the frame they come
// with has what could be read, for its id.
func parseFrame(text []byte) (clientFrame, error) {
	var raw map[string]json.RawMessage
	if !utf8.Valid(text) || json.Unmarshal(text, &raw) != nil || raw == nil {
		return clientFrame{}, stream.Errorf(stream.BadRequest, "the frame isn't a JSON object")
	}
	var f clientFrame
	for _, member := range []struct {
		name string
		into any
		want string
	}{
		{"type", &f.Type, "a string"}, {"id", &f.ID, "a string"}, {"from", &f.From, "a string"},
		{"format", &f.Format, "a string"}, {"slow", &f.Slow, "a string"}, {"token", &f.Token, "a string"},
		{"topics", &f.Topics, "a list of strings"}, {"keys", &f.Keys, "a list of strings"}, {"types", &f.Types, "a list of strings"},
	} {
		value, ok := raw[member.name]
		if !ok {
			continue
		}
		if bytes.Equal(value, []byte("null")) || json.Unmarshal(value, member.into) != nil {
			return f, stream.BadField(member.name, "isn't %s", member.want)
		}
	}
	return f, f.check(raw)
}

func (f *clientFrame) check(raw map[string]json.RawMessage) error {
	allowed, ok := members[f.Type]
	switch {
	case f.Type == "":
		return stream.BadField("type", "is missing")
	case !ok && strings.Contains(laterFrames, " "+f.Type+" "):
		return stream.BadField("type", "%s isn't in this version", f.Type)
	case !ok:
		return stream.BadField("type", "there is no frame %q", shorten(f.Type))
	}
	for name := range raw {
		if !slices.Contains(allowed, name) {
			return unknownMember(name)
		}
	}
	if f.ID != nil && len(*f.ID) > maxID {
		return stream.BadField("id", "has more than %d bytes", maxID)
	}
	switch {
	case f.Type == "auth" && f.Token == "":
		return stream.BadField("token", "is missing")
	case f.Type == "ping" || f.Type == "auth":
		return nil
	}
	if f.ID == nil || *f.ID == "" {
		return stream.BadField("id", "is missing")
	}
	if f.Type == "subscribe" && len(f.Topics) == 0 {
		return stream.BadField("topics", "no topic is given")
	}
	return nil
}

func unknownMember(name string) error {
	switch {
	case name == "":
		return stream.Errorf(stream.BadRequest, "a member has no name")
	case slices.Contains(notYet, name):
		return stream.BadField(name, "isn't in this version")
	default:
		return stream.BadField(shorten(name), "there is no such member")
	}
}

// request returns what a subscribe frame asks for.
func (f *clientFrame) request(g *Gateway, grant *auth.Grant) (request, error) {
	var req request
	err := g.fill(&req, wish{
		topics: f.Topics, keys: f.Keys, types: f.Types, from: f.From, format: f.Format, slow: f.Slow, plural: "s",
	}, grant)
	return req, err
}

// kind returns the frame's type for the log, if there is such a type.
func (f *clientFrame) kind() string {
	if _, known := members[f.Type]; known {
		return f.Type
	}
	return "unknown"
}

// id returns the frame's id, for the answer to it.
func (f *clientFrame) id() string {
	if f.ID == nil || len(*f.ID) > maxID {
		return ""
	}
	return *f.ID
}
