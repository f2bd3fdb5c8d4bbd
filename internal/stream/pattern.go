package stream

import (
	"errors"
	"fmt"
	"strings"
)

// TopicPattern names topics by their segments, which dots divide: a segment * stands for any one segment, and a last
// segment ** for one or more.
type TopicPattern string

// Match reports whether p names a topic. p is one that Check has nothing to say about.
func (p TopicPattern) Match(topic string) bool {
	want, have := string(p), topic
	for {
		segment, later, more := strings.Cut(want, ".")
		if segment == "**" {
			return true // the last one
		}
		name, rest, has := strings.Cut(have, ".")
		if segment != "*" && segment != name || more != has {
			return false
		}
		if !more {
			return true
		}
		want, have = later, rest
	}
}

// Check says why p can't be a pattern.
func (p TopicPattern) Check() error {
	segments := strings.Split(string(p), ".")
	for i, segment := range segments {
		switch {
		case p == "":
			return errors.New("is empty; it names topics, such as orders.* (one segment) or orders.** (any depth)")
		case segment == "":
			return fmt.Errorf("%s: a segment is empty", p)
		case segment == "**" && i < len(segments)-1:
			return fmt.Errorf("%s: ** can only be the last segment", p)
		case segment != "*" && segment != "**" && strings.Contains(segment, "*"):
			return fmt.Errorf("%s: %q: a * stands for a whole segment", p, segment)
		}
	}
	return nil
}
