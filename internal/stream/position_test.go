package stream_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
)

var topicID = stream.Incarnation{0xca, 0xfe, 0x01, 0x02}

func ExamplePosition_Offset() {
	p := stream.NewPosition(topicID, "orders.order.placed", 7, 42)
	back, _ := stream.ParsePosition(p.String()) // a browser's Last-Event-ID
	fmt.Println(back.Offset("orders.order.placed", 1))
	// Output: 42 true
}

func TestPositionsReadBack(t *testing.T) {
	many := make([]int64, 1000)
	for i := range many {
		many[i] = int64(i) * 1_000_003
	}
	for name, p := range map[string]stream.Position{
		"one partition":         stream.NewPosition(topicID, "t", 0),
		"empty partitions":      stream.NewPosition(topicID, "orders.order.placed", 0, 0, 0),
		"large offsets":         stream.NewPosition(topicID, "t", math.MaxInt64, 0, 1<<40),
		"a broker without ids":  stream.NewPosition(stream.Incarnation{}, "t", 5),
		"a thousand partitions": stream.NewPosition(topicID, strings.Repeat("n", 249), many...),
		"several topics": stream.JoinPosition(stream.TopicPosition{"b", topicID, []int64{1}},
			stream.TopicPosition{"a", stream.Incarnation{9}, []int64{2, 3}}, stream.TopicPosition{"c", topicID, []int64{0}}),
	} {
		back, err := stream.ParsePosition(p.String())
		if err != nil || !back.Equal(p) {
			t.Errorf("%s: %v read back as %v, %v", name, p.Topics(), back.Topics(), err)
		}
	}
}

func TestTwelvePartitionsTakeAboutAsManyCharactersAsPromised(t *testing.T) {
	next := make([]int64, 12)
	for i := range next {
		next[i] = 1_000_000 + int64(i*37)
	}
	if n := len(stream.NewPosition(topicID, "orders.order.placed", next...).String()); n > 80 {
		t.Errorf("%d characters", n)
	}
}

// wantBadPosition checks that a token is refused with a reason.
func wantBadPosition(t *testing.T, token, reason string) {
	t.Helper()
	p, err := stream.ParsePosition(token)
	e, ok := errors.AsType[*stream.Error](err)
	if !ok || e.Kind != stream.BadPosition || !strings.Contains(e.Detail, reason) {
		t.Errorf("%.80q: got %v and %v, want a refusal because %q", token, p.Topics(), err, reason)
	}
}

func TestPositionsThatAreRefused(t *testing.T) {
	one := stream.NewPosition(topicID, "orders.order.placed", 7, 42).String()
	two := stream.JoinPosition(stream.TopicPosition{"a", topicID, []int64{1}}, stream.TopicPosition{"b", topicID, []int64{2}}).String()
	parts := strings.Split(two, ".")
	future, _ := base64.RawURLEncoding.DecodeString(one)
	future[0] = 2
	for token, reason := range map[string]string{
		"":                           "empty",
		"latest!":                    "isn't one of this gateway",
		"1700000000":                 "",
		strings.Repeat("A", 100<<10): "has 102400 bytes",
		base64.RawURLEncoding.EncodeToString(future): "format 2",
		one + "=":                         "isn't one of this gateway",
		one + "." + one:                   "number of its topics",
		"2." + one:                        "1 of its 2 topics",
		"2." + one + "." + one:            "out of order",
		"2." + parts[2] + "." + parts[1]:  "out of order",
		"02." + parts[1] + "." + parts[2]: "number of its topics",
		"3." + parts[1] + "." + parts[2]:  "2 of its 3 topics",
		"1." + one:                        "number of its topics",
		stream.NewPosition(topicID, "no such/name", 1).String(): "makes no sense",
	} {
		wantBadPosition(t, token, reason)
	}
}

func TestNoCutPositionIsRead(t *testing.T) {
	for _, token := range []string{
		stream.NewPosition(topicID, "orders.order.placed", 7, 42, 1_000_000).String(),
		stream.JoinPosition(stream.TopicPosition{"a", topicID, []int64{1}}, stream.TopicPosition{"b", topicID, []int64{2}}).String(),
	} {
		for n := range len(token) {
			wantBadPosition(t, token[:n], "")
			if !strings.Contains(token, ".") {
				wantBadPosition(t, token[n+1:], "")
			}
		}
	}
}

func TestNoAlteredPositionIsRead(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	token := stream.NewPosition(topicID, "orders.order.placed", 7, 42, 1_000_000).String()
	for i := range len(token) {
		for _, c := range alphabet {
			if altered := token[:i] + string(c) + token[i+1:]; altered != token {
				wantBadPosition(t, altered, "")
			}
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	f.Add(stream.NewPosition(topicID, "orders.order.placed", 7, 42).String())
	f.Add(stream.JoinPosition(stream.TopicPosition{"a", topicID, []int64{1}}, stream.TopicPosition{"b", topicID, []int64{2}}).String())
	f.Add("AQ.AQ")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := stream.ParsePosition(s)
		if err != nil {
			return
		}
		if p.String() != s {
			t.Errorf("%q is read, but written as %q", s, p.String())
		}
		for _, topic := range p.Topics() {
			if slices.Min(append(topic.Next, 0)) < 0 || !stream.ValidTopic(topic.Topic) {
				t.Errorf("%q: read as %v", s, topic)
			}
		}
	})
}

func FuzzPositionReadsBack(f *testing.F) {
	f.Add("orders.order.placed", int64(7), int64(42), uint32(1))
	f.Fuzz(func(t *testing.T, topic string, a, b int64, id uint32) {
		if !stream.ValidTopic(topic) || a < 0 || b < 0 {
			return
		}
		p := stream.NewPosition(stream.Incarnation{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)}, topic, a, b)
		if back, err := stream.ParsePosition(p.String()); err != nil || !back.Equal(p) {
			t.Errorf("%v read back as %v, %v", p.Topics(), back.Topics(), err)
		}
	})
}

func BenchmarkPartOf12Partitions(b *testing.B) {
	p := stream.TopicPosition{Topic: "orders.order.placed", Incarnation: topicID, Next: make([]int64, 12)}
	for i := range p.Next {
		p.Next[i] = 1_000_000 + int64(i*37)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Part()
	}
}
