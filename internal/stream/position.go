package stream

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
)

// A token is the topics' parts, joined by dots. Two topics and more are preceded by their number, so that a token
// which lost a whole part is seen to be cut. A part is, in base64url (RFC 4648 section 5) without padding:
//
//	version 1 | incarnation, 4 bytes | length of the name | name | partitions | smallest offset | each offset less that | CRC-32C of all before
//
// Numbers are unsigned varints. A new version is read one release before it is written.
const (
	positionVersion = 1
	maxToken        = 64 << 10 // of the largest topics that Kafka carries, with room
	checksumSize    = 4
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	base64url  = base64.RawURLEncoding.Strict()
)

// TopicPosition is where a reader of one topic stands: the next offset of every partition, also of those that are empty.
type TopicPosition struct {
	Topic       string
	Incarnation Incarnation
	Next        []int64
}

// Position is what a client resumes from: where it stands in each of its topics. Its text form is the SSE id, the
// WebSocket position and what ?from= takes; it means the same on every replica.
type Position struct {
	topics []TopicPosition // by name
}

// NewPosition returns a position in one topic: next holds the next offset of each partition.
func NewPosition(topicID Incarnation, topic string, next ...int64) Position {
	return JoinPosition(TopicPosition{topic, topicID, next})
}

// JoinPosition returns a position in several topics, each named once.
func JoinPosition(topics ...TopicPosition) Position {
	p := Position{slices.Clone(topics)}
	slices.SortFunc(p.topics, func(a, b TopicPosition) int { return strings.Compare(a.Topic, b.Topic) })
	return p
}

// Topics returns the position's part in each of its topics, by name. The caller doesn't change it.
func (p Position) Topics() []TopicPosition { return p.topics }

// Topic returns the position's part in one topic.
func (p Position) Topic(name string) (TopicPosition, bool) {
	i, ok := slices.BinarySearchFunc(p.topics, name, func(t TopicPosition, name string) int { return strings.Compare(t.Topic, name) })
	if !ok {
		return TopicPosition{}, false
	}
	return p.topics[i], true
}

// Offset returns the next offset of one partition, and whether the position knows it.
func (p Position) Offset(topic string, partition int) (int64, bool) {
	t, ok := p.Topic(topic)
	if !ok || partition < 0 || partition >= len(t.Next) {
		return 0, false
	}
	return t.Next[partition], true
}

// Equal reports whether both are the same place, number by number.
func (p Position) Equal(q Position) bool {
	return slices.EqualFunc(p.topics, q.topics, func(a, b TopicPosition) bool {
		return a.Topic == b.Topic && a.Incarnation == b.Incarnation && slices.Equal(a.Next, b.Next)
	})
}

// String returns the token. Its parts stand in the order of the topics' names.
func (p Position) String() string {
	parts := make([]string, len(p.topics))
	for i, t := range p.topics {
		parts[i] = t.Part()
	}
	return JoinParts(parts...)
}

// JoinParts returns the token of several topics' parts, which stand in the order of the topics' names.
func JoinParts(parts ...string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	return strconv.Itoa(len(parts)) + "." + strings.Join(parts, ".")
}

// Part returns the topic's part of a token. With one topic it is the whole token.
func (t TopicPosition) Part() string {
	raw := make([]byte, 0, 64+len(t.Topic)+4*len(t.Next))
	raw = append(raw, positionVersion)
	raw = append(raw, t.Incarnation[:]...)
	raw = binary.AppendUvarint(raw, uint64(len(t.Topic)))
	raw = append(raw, t.Topic...)
	raw = binary.AppendUvarint(raw, uint64(len(t.Next)))
	if len(t.Next) > 0 {
		least := slices.Min(t.Next)
		raw = binary.AppendUvarint(raw, uint64(least))
		for _, n := range t.Next {
			raw = binary.AppendUvarint(raw, uint64(n-least))
		}
	}
	raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
	return base64url.EncodeToString(raw)
}

// ParsePosition reads a token back. What it refuses is an [Error] of kind BadPosition that says why.
func ParsePosition(token string) (Position, error) {
	switch {
	case token == "":
		return Position{}, Errorf(BadPosition, "the position is empty")
	case len(token) > maxToken:
		return Position{}, Errorf(BadPosition, "the position has %d bytes; none has more than %d", len(token), maxToken)
	}
	first, rest, many := strings.Cut(token, ".")
	parts := []string{token}
	if many {
		parts = strings.Split(rest, ".")
		if n, err := strconv.Atoi(first); err != nil || n < 2 || strconv.Itoa(n) != first {
			return Position{}, Errorf(BadPosition, "the position isn't one of this gateway: it doesn't begin with the number of its topics")
		} else if n != len(parts) {
			return Position{}, Errorf(BadPosition, "the position was cut: %d of its %d topics are left", len(parts), n)
		}
	}
	var p Position
	for _, part := range parts {
		t, err := parsePart(part)
		if err != nil {
			return Position{}, err
		}
		if n := len(p.topics); n > 0 && p.topics[n-1].Topic >= t.Topic {
			return Position{}, Errorf(BadPosition, "the position was altered: its topics are out of order")
		}
		p.topics = append(p.topics, t)
	}
	return p, nil
}

func parsePart(part string) (t TopicPosition, err error) {
	raw, err := base64url.DecodeString(part)
	if err != nil {
		return t, &Error{Kind: BadPosition, Detail: "the position isn't one of this gateway: it has characters that none has, or was cut", Err: err}
	}
	if len(raw) > 0 && raw[0] != positionVersion {
		return t, Errorf(BadPosition, "the position has format %d, which this version doesn't know; it reads format %d", raw[0], positionVersion)
	}
	if len(raw) < 1+len(t.Incarnation)+2+checksumSize {
		return t, Errorf(BadPosition, "the position was cut: %d bytes are left", len(raw))
	}
	body := raw[:len(raw)-checksumSize]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(raw[len(body):]) {
		return t, Errorf(BadPosition, "the position was cut or altered: its checksum doesn't fit")
	}
	d := decoder{body[1:]}
	copy(t.Incarnation[:], d.bytes(uint64(len(t.Incarnation))))
	t.Topic = string(d.bytes(d.uvarint()))
	if n := d.uvarint(); n <= uint64(len(d.rest)) { // an offset takes a byte at least
		t.Next = make([]int64, n)
		var least uint64
		if n > 0 {
			least = d.uvarint()
		}
		for i := range t.Next {
			t.Next[i] = int64(least + d.uvarint())
		}
	}
	// Whoever made the checksum fit wrote this by hand: only what we would have written ourselves is taken.
	if !ValidTopic(t.Topic) || slices.ContainsFunc(t.Next, func(n int64) bool { return n < 0 }) || t.Part() != part {
		return TopicPosition{}, Errorf(BadPosition, "the position isn't one of this gateway: its content makes no sense")
	}
	return t, nil
}

// decoder takes values off the front of a part's bytes; past their end it takes zeros.
type decoder struct{ rest []byte }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.rest = nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.rest = nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}
