package stream_test

import (
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
)

func TestTopicPattern(t *testing.T) {
	for pattern, tt := range map[string]struct{ named, others []string }{
		"orders":        {[]string{"orders"}, []string{"order", "orders.placed", "Orders", ""}},
		"orders.*":      {[]string{"orders.placed", "orders."}, []string{"orders", "orders.order.placed", "ordersxplaced"}},
		"*.placed":      {[]string{"orders.placed"}, []string{"placed", "a.orders.placed"}},
		"orders.**":     {[]string{"orders.placed", "orders.order.placed"}, []string{"orders", "ordersx.placed"}},
		"a.*.**":        {[]string{"a.b.c", "a.b.c.d"}, []string{"a.b", "a", "b.b.c"}},
		"**":            {[]string{"a", "a.b.c"}, nil},
		"*":             {[]string{"a"}, []string{"a.b"}},
		"orders.*.paid": {[]string{"orders.1.paid"}, []string{"orders.1", "orders.1.paid.x", "orders.paid"}},
	} {
		p := stream.TopicPattern(pattern)
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		for _, topic := range tt.named {
			if !p.Match(topic) {
				t.Errorf("%s doesn't name %q", pattern, topic)
			}
		}
		for _, topic := range tt.others {
			if p.Match(topic) {
				t.Errorf("%s names %q", pattern, topic)
			}
		}
	}
	for pattern, why := range map[string]string{
		"": "empty", "a..b": "segment is empty", "a.**.b": "last segment", "a.b*": "whole segment", ".": "segment is empty",
	} {
		if err := stream.TopicPattern(pattern).Check(); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want one with %q", pattern, err, why)
		}
	}
}
