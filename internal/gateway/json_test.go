package gateway

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/goodgo/streamgw/internal/stream"
)

func TestRecordValue(t *testing.T) {
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	for name, tt := range map[string]struct {
		value []byte
		want  string
	}{
		"object as it is":     {[]byte(`{"a": 1}`), `{"a": 1}`},
		"huge number":         {[]byte(`123456789012345678901234567890.10e400`), `123456789012345678901234567890.10e400`},
		"duplicate names":     {[]byte(`{"a":1,"a":2}`), `{"a":1,"a":2}`},
		"escapes":             {[]byte(`"\u00e9\/<"`), `"\u00e9\/<"`},
		"pretty":              {[]byte("{\n \"a b\": [1,\r\n2]\n}"), `{"a b":[1,2]}`},
		"line separator":      {[]byte("\"\u2028\""), "\"\u2028\""},
		"JSON null":           {[]byte(`null`), `null,"valueEncoding":"json"`},
		"JSON null, spaced":   {[]byte(" null\n"), `null,"valueEncoding":"json"`},
		"tombstone":           {nil, `null`},
		"empty":               {[]byte{}, `"","valueEncoding":"text"`},
		"text":                {[]byte("a\"b\\\n\r\t\x01"), `"a\"b\\\n\r\t\u0001","valueEncoding":"text"`},
		"NaN":                 {[]byte(`{"a":NaN}`), `"{\"a\":NaN}","valueEncoding":"text"`},
		"two values":          {[]byte(`1 2`), `"1 2","valueEncoding":"text"`},
		"byte order mark":     {[]byte("\ufeff1"), "\"\ufeff1\",\"valueEncoding\":\"text\""},
		"raw line end inside": {[]byte("\"a\nb\""), `"\"a\nb\"","valueEncoding":"text"`},
		"bytes":               {[]byte{0xff, 0}, `"/wA=","valueEncoding":"base64"`},
		"JSON, not UTF-8":     {[]byte("\"\xff\""), `"Iv8i","valueEncoding":"base64"`},
		"too deep for JSON":   {[]byte(deep), `"` + deep + `","valueEncoding":"text"`},
	} {
		t.Run(name, func(t *testing.T) {
			m := &stream.Message{Topic: "t", Timestamp: at, Value: tt.value}
			got := "{" + string(appendRecord(nil, m)) + "}"
			want := `{"topic":"t","partition":0,"offset":0,"timestamp":1700000000123,"key":null,"headers":[],"value":` + tt.want + "}"
			if got != want {
				t.Errorf("got %.300s, want %.300s", got, want)
			}
			if !json.Valid([]byte(got)) || strings.ContainsAny(got, "\r\n") {
				t.Errorf("not one line of JSON: %.300q", got)
			}
		})
	}
}

func TestRecordKeyAndHeaders(t *testing.T) {
	for name, tt := range map[string]struct {
		key     []byte
		headers []stream.Header
		want    string
	}{
		"text":        {[]byte("user-1"), nil, `"key":"user-1","keyEncoding":"text","headers":[]`},
		"a number":    {[]byte("7"), nil, `"key":7,"headers":[]`},
		"no number":   {[]byte("07"), nil, `"key":"07","keyEncoding":"text","headers":[]`},
		"an object":   {[]byte(`{"id": 7}`), nil, `"key":{"id": 7},"headers":[]`},
		"JSON's null": {[]byte("null"), nil, `"key":null,"keyEncoding":"json","headers":[]`},
		"empty":       {[]byte{}, nil, `"key":"","keyEncoding":"text","headers":[]`},
		"none":        {nil, nil, `"key":null,"headers":[]`},
		"bytes":       {[]byte{0xff}, nil, `"key":"/w==","keyEncoding":"base64","headers":[]`},
		"headers in order, repeated": {
			nil,
			[]stream.Header{{Name: "b", Value: []byte("1")}, {Name: "a", Value: nil}, {Name: "b", Value: []byte{}}, {Name: "c", Value: []byte{0x80}}},
			`"key":null,"headers":[["b","1"],["a",null],["b",""],["c","gA==","base64"]]`,
		},
		"a header's name that isn't UTF-8": {nil, []stream.Header{{Name: "é\xffz\x80", Value: []byte("é")}}, `"key":null,"headers":[["é�z�","é"]]`},
	} {
		t.Run(name, func(t *testing.T) {
			got := string(appendRecord(nil, &stream.Message{Topic: "t", Timestamp: at, Key: tt.key, Headers: tt.headers}))
			if !strings.Contains(got, `123,`+tt.want+`,"value":null`) {
				t.Errorf("got %s, want %s in it", got, tt.want)
			}
		})
	}
}

// TestStringsAreReadBack holds appendString to another reader of JSON.
func TestStringsAreReadBack(t *testing.T) {
	var all strings.Builder
	for r := range rune(0x3000) {
		all.WriteRune(r)
	}
	all.WriteString("😀\U0010ffff")
	var got string
	if err := json.Unmarshal(appendString(nil, all.String()), &got); err != nil || got != all.String() {
		t.Errorf("read back differs: %v", err)
	}
}
