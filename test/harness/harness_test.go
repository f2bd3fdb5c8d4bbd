package harness

import (
	"encoding/json"
	"testing"
)

func TestNumberIsReadBackFromItsValue(t *testing.T) {
	for _, size := range []int{0, 40, 256} {
		want := Number{2, 129, 1234567}
		value := AppendNumber(nil, want, size)
		if !json.Valid(value) || size > 0 && len(value) != size {
			t.Errorf("%d bytes asked: %d bytes, valid %v: %s", size, len(value), json.Valid(value), value)
		}
		if got, err := ParseNumber(value); err != nil || got != want {
			t.Errorf("ParseNumber(%s) = %v, %v", value, got, err)
		}
	}
}

func TestValuesThatAreNotOneNumberAreRefused(t *testing.T) {
	for _, value := range []string{
		"", "{}", `{"s":0,"p":1}`, `{"s":0,"p":1,"n":}`, `{"s":0,"p":1,"n":5`, `{"s":0,"p":1,"n":-5}`,
		`{"s":0,"p":1,"n":5}{"s":0,"p":1,"n":6}`, `{"s":0,"p":1,"n":5} `,
	} {
		if n, err := ParseNumber([]byte(value)); err == nil {
			t.Errorf("ParseNumber(%q) = %v", value, n)
		}
	}
}

func TestLedgerSeesLossRepetitionAndDisorder(t *testing.T) {
	for name, tt := range map[string]struct {
		ledger *Ledger
		took   []int64
		bad    bool // the last one
	}{
		"in order":          {NewLedger(), []int64{0, 1, 2}, false},
		"again":             {NewLedger(), []int64{0, 1, 1}, true},
		"earlier":           {NewLedger(), []int64{0, 1, 0}, true},
		"lost":              {NewLedger(), []int64{0, 2}, true},
		"first lost":        {NewLedger(), []int64{1}, true},
		"every third":       {NewLedgerOf(2, 3), []int64{2, 5, 8}, false},
		"third lost":        {NewLedgerOf(2, 3), []int64{2, 8}, true},
		"filter let it by":  {NewLedgerOf(2, 3), []int64{2, 3}, true},
		"filter let 0 pass": {NewLedgerOf(2, 3), []int64{0}, true},
	} {
		t.Run(name, func(t *testing.T) {
			for i, n := range tt.took {
				err := tt.ledger.Take(Number{1, 4, n})
				if wantErr := tt.bad && i == len(tt.took)-1; (err != nil) != wantErr {
					t.Errorf("Take(%d): %v", n, err)
				}
			}
		})
	}
}

func TestPartitionsAreCountedApart(t *testing.T) {
	l := NewLedger()
	for _, n := range []Number{{0, 0, 0}, {0, 1, 0}, {1, 0, 0}, {0, 0, 1}} {
		if err := l.Take(n); err != nil {
			t.Error(err)
		}
	}
	if l.Count() != 4 || l.Next(0, 0) != 2 || l.Next(0, 1) != 1 || l.Next(1, 1) != 0 {
		t.Errorf("count %d, next %d %d %d", l.Count(), l.Next(0, 0), l.Next(0, 1), l.Next(1, 1))
	}
}

func TestMetricsAreSummedByLabel(t *testing.T) {
	m := ParseMetrics([]byte("# HELP a b\n# TYPE a counter\n" +
		"a_total{source=\"window\",topic=\"t\"} 3\na_total{source=\"kafka\",topic=\"t\"} 4\na_total{source=\"kafka\",topic=\"u\"} 1e2\na_total_more 7\n"))
	if all, kafka := m.Sum("a_total"), m.Sum("a_total", `source="kafka"`); all != 107 || kafka != 104 {
		t.Errorf("sums %v and %v", all, kafka)
	}
}

func BenchmarkParseNumber(b *testing.B) {
	value := AppendNumber(nil, Number{0, 3, 123456}, 0)
	l := NewLedger()
	b.ReportAllocs()
	for b.Loop() {
		n, err := ParseNumber(value)
		if err != nil {
			b.Fatal(err)
		}
		l.Expect(n)
		if err := l.Take(n); err != nil {
			b.Fatal(err)
		}
	}
}
