package stream_test

import (
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
)

func TestEventType(t *testing.T) {
	header := func(name, value string) []stream.Header { return []stream.Header{{Name: name, Value: []byte(value)}} }
	for name, tt := range map[string]struct {
		m    stream.Message
		want string
	}{
		"header":                          {stream.Message{Headers: header("event-type", "a.b.v1")}, "a.b.v1"},
		"CloudEvents header":              {stream.Message{Headers: header("ce_type", "c.d.v2")}, "c.d.v2"},
		"the header wins":                 {stream.Message{Headers: header("event-type", "a"), Value: []byte(`{"eventType":"b"}`)}, "a"},
		"envelope":                        {stream.Message{Value: []byte(` {"eventId":1,"eventType":"user.created.v1"}`)}, "user.created.v1"},
		"not the envelope's own":          {stream.Message{Value: []byte(`{"data":{"eventType":"x"}}`)}, ""},
		"another case":                    {stream.Message{Value: []byte(`{"EVENTTYPE":"x","a":"\"eventType\""}`)}, ""},
		"not a string":                    {stream.Message{Value: []byte(`{"eventType":7}`)}, ""},
		"not JSON":                        {stream.Message{Value: []byte(`{"eventType":`)}, ""},
		"text":                            {stream.Message{Value: []byte(`"eventType"`)}, ""},
		"tombstone":                       {stream.Message{}, ""},
		"another header beside the value": {stream.Message{Headers: header("x", "y"), Value: []byte(`{"eventType":"b"}`)}, "b"},
	} {
		if got := tt.m.EventType(); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestFilter(t *testing.T) {
	m := stream.Message{Key: []byte("k"), Headers: []stream.Header{{Name: "event-type", Value: []byte("t")}}}
	noKey, emptyKey := m, m
	noKey.Key, emptyKey.Key = nil, []byte{}
	for name, tt := range map[string]struct {
		f    stream.Filter
		m    stream.Message
		want bool
	}{
		"all":                       {stream.Filter{}, m, true},
		"its key":                   {stream.Filter{Keys: []string{"a", "k"}}, m, true},
		"another key":               {stream.Filter{Keys: []string{"a"}}, m, false},
		"no key isn't an empty one": {stream.Filter{Keys: []string{""}}, noKey, false},
		"an empty key":              {stream.Filter{Keys: []string{""}}, emptyKey, true},
		"its type":                  {stream.Filter{Types: []string{"t"}}, m, true},
		"its key, another type":     {stream.Filter{Keys: []string{"k"}, Types: []string{"u"}}, m, false},
		"both":                      {stream.Filter{Keys: []string{"k"}, Types: []string{"u", "t"}}, m, true},
	} {
		if got := tt.f.Match(&tt.m); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFiltersAreWrittenAlikeOnlyWhenTheyAreAlike(t *testing.T) {
	a := stream.Filter{Keys: []string{"b", "a", "b"}}.Canonical()
	if b := (stream.Filter{Keys: []string{"a", "b"}}).Canonical(); a.String() != b.String() {
		t.Errorf("%s and %s", a, b)
	}
	for _, other := range []stream.Filter{{Keys: []string{`a""b`}}, {Types: []string{"a", "b"}}, {Keys: []string{"a"}, Types: []string{"b"}}, {}} {
		if a.String() == other.Canonical().String() {
			t.Errorf("%v and %v are both %s", a, other, a)
		}
	}
}
