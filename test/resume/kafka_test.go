//go:build integration

package resume

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goodgo/streamgw/test/harness"
	"github.com/twmb/franz-go/pkg/kgo"
)

func testCodecs(t *testing.T, w world) {
	for name, codec := range map[string]kgo.CompressionCodec{
		"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		t.Run(name, func(t *testing.T) {
			topic := w.kafka.NewTopic(2)
			// Values that compress, and a linger, so that batches of many records are written.
			producer := w.kafka.NewProducer(topic, kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(20*time.Millisecond))
			producer.Size = 300
			live := open(t, harness.OverSSE, w.a, harness.NewLedger(), "", topic, "from=latest")
			producer.SendAll(200, 0, 1)
			live.Take(400)
			for _, transport := range harness.Transports() {
				history := open(t, transport, w.b, harness.NewLedger(), "", topic, "from=earliest")
				history.Take(400)
				history.Close()
			}
			producer.SendAll(1, 0, 1)
			live.Take(2)
			live.Close()
		})
	}
}

// transactional returns a producer of transactions.
func transactional(w world, topic string) *harness.Producer {
	return w.kafka.NewProducer(topic, kgo.TransactionalID(topic))
}

func testOpenTransaction(t *testing.T, w world) {
	topic := w.kafka.NewTopic(2)
	producer := transactional(w, topic)
	producer.Begin()
	producer.SendAll(5, 0, 1)
	// All subscribe at the end while the transaction is open: its records come after it.
	var readers []*harness.Reader
	for _, g := range []*harness.Gateway{w.a, w.b} {
		for _, transport := range harness.Transports() {
			readers = append(readers, open(t, transport, g, harness.NewLedger(), "", topic, "from=latest"))
		}
	}
	left := open(t, harness.OverSSE, w.a, harness.NewLedger(), "", topic, "from=latest")
	left.Close()
	producer.End(true)
	for _, r := range readers {
		r.Take(10)
	}
	producer.Begin()
	producer.SendAll(5, 0, 1)
	producer.End(true)
	for _, r := range readers {
		r.Take(10)
	}
	for _, g := range []*harness.Gateway{w.a, w.b} {
		r := open(t, harness.OverWebSocket, g, harness.NewLedger(), left.Position, topic)
		r.Take(20)
	}
}

func testAbortedTransaction(t *testing.T, w world) {
	topic := w.kafka.NewTopic(2)
	producer := transactional(w, topic)
	live := open(t, harness.OverSSE, w.a, harness.NewLedger(), "", topic, "from=earliest")
	for range 3 {
		producer.Begin()
		for range 4 {
			producer.SendRaw(0, nil, []byte("never committed")) // no ledger takes it
			producer.SendRaw(1, nil, []byte("never committed"))
		}
		producer.End(false)
		producer.Begin()
		producer.SendAll(3, 0, 1)
		producer.End(true)
	}
	live.Take(18)
	for _, g := range []*harness.Gateway{w.a, w.b} {
		each(t, func(t *testing.T, transport harness.Transport) {
			all := open(t, transport, g, harness.NewLedger(), "", topic, "from=earliest")
			all.Take(18)
			l := harness.NewLedger()
			half := open(t, transport, w.a, l, "", topic, "from=earliest")
			half.Take(7)
			half.Close()
			rest := open(t, transport, g, l, half.Position, topic)
			rest.Take(11)
		})
	}
}

func testEndsInMarker(t *testing.T, w world) {
	topic := w.kafka.NewTopic(1)
	producer := transactional(w, topic)
	producer.Begin()
	producer.SendAll(5, 0)
	producer.End(true) // the log now ends in a marker, which no reader is ever sent
	var readers []*harness.Reader
	for _, g := range []*harness.Gateway{w.a, w.b} {
		for _, transport := range harness.Transports() {
			r := open(t, transport, g, harness.NewLedger(), "", topic, "from=earliest")
			r.Take(5)
			readers = append(readers, r)
		}
	}
	l := harness.NewLedger()
	last := open(t, harness.OverSSE, w.a, l, "", topic, "from=earliest")
	last.Take(5)
	last.Close()
	producer.Begin()
	producer.SendRaw(0, nil, []byte("never committed"))
	producer.End(false)
	producer.Begin()
	producer.SendAll(5, 0)
	producer.End(true)
	for _, r := range readers {
		r.Take(5)
	}
	open(t, harness.OverWebSocket, w.b, l, last.Position, topic).Take(5)
}

// testIdleTopic leaves streams without an event for longer than brokers keep an idle connection (20 s as
// platform/kafka sets it) and than two heartbeats.
func testIdleTopic(t *testing.T, w world) {
	const idle = 45 * time.Second
	topic := w.kafka.NewTopic(3)
	producer := w.kafka.NewProducer(topic)
	crowd := w.lasting(t, 4, topic)
	producer.SendAll(5, 0, 1, 2)
	crowd.WaitCount(15, time.Minute)
	began := time.Now()
	harness.Until(t, idle+time.Minute, "the topic was idle", func() bool { crowd.Check(); return time.Since(began) > idle })
	producer.SendAll(5, 0, 1, 2)
	crowd.WaitCount(30, time.Minute)
	wantLasted(t, crowd)
}

func testUnknownTopic(t *testing.T, w world) {
	for _, transport := range harness.Transports() {
		topic := harness.NewName()
		for _, g := range []*harness.Gateway{w.a, w.b} {
			s, err := transport.Open(t.Context(), harness.Dial{URL: g.URL, Query: harness.Topics([]string{topic})})
			wantStatus(t, s, err, 404, "")
		}
		if w.kafka.TopicExists(topic) {
			t.Errorf("%s came to exist by being asked for over %s", topic, transport)
		}
	}
	topic := harness.NewName()
	if status, body, err := harness.Get(w.a.URL + "/v1/events?from=earliest&topic=" + topic + "&topic=" + w.kafka.NewTopic(1)); err != nil || status != 404 {
		t.Errorf("one of two topics unknown: %d, %v: %s", status, err, body)
	}
	if w.kafka.TopicExists(topic) {
		t.Errorf("%s came to exist by being asked for", topic)
	}
	s, err := harness.OverSSE.Open(t.Context(), harness.Dial{URL: w.a.URL, Query: harness.Topics([]string{"__consumer_offsets"})})
	wantStatus(t, s, err, 404, "")
}

// wantStatus fails the test unless a stream was refused with a status, and problem details that contain detail.
func wantStatus(t *testing.T, s harness.Stream, err error, status int, detail string) {
	t.Helper()
	if err == nil {
		s.Close()
		t.Errorf("a stream opened, want %d", status)
		return
	}
	refused, ok := err.(*harness.StatusError)
	if !ok || refused.Status != status || !strings.HasPrefix(refused.Header.Get("Content-Type"), "application/problem+json") || !strings.Contains(refused.Body, detail) {
		t.Errorf("refused with %v, want problem details of status %d that contain %q", err, status, detail)
	}
}

func testBadPositions(t *testing.T, w world) {
	topic, other := w.kafka.NewTopic(2), w.kafka.NewTopic(2)
	w.kafka.NewProducer(topic).SendAll(5, 0, 1)
	r := open(t, harness.OverSSE, w.a, harness.NewLedger(), "", topic, "from=earliest")
	r.Take(10)
	good := r.Position
	elsewhere := open(t, harness.OverSSE, w.a, harness.NewLedger(), "", other)
	altered := []byte(good)
	altered[len(altered)/2] ^= 1
	for name, position := range map[string]string{
		"of none of the topics": elsewhere.Position,
		"truncated":             good[:len(good)-3],
		"altered":               string(altered),
		"of a later version":    "Ag" + good[2:],
		"of another system":     "42",
		"of 100 KB":             strings.Repeat("A", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			for _, transport := range harness.Transports() {
				for _, inQuery := range slices.Compact([]bool{false, true}) {
					s, err := transport.Open(t.Context(), harness.Dial{URL: w.b.URL, Query: harness.Topics([]string{topic}), Position: position, InQuery: inQuery})
					wantStatus(t, s, err, 400, "osition")
				}
			}
		})
	}
}

// testOtherProducer reads batches that librdkafka has written, which most other languages' clients are made of.
func testOtherProducer(t *testing.T, w world) {
	harness.Prepare(t, "need", "kcat", "kcat")
	topic := w.kafka.NewTopic(1)
	live := open(t, harness.OverWebSocket, w.a, harness.NewLedger(), "", topic, "from=latest")
	var n int64
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		var lines []byte
		for range 100 {
			lines = append(harness.AppendNumber(lines, harness.Number{N: n}, 200), '\n')
			n++
		}
		cmd := exec.Command("kcat", "-P", "-b", w.kafka.Bootstrap, "-t", topic, "-p", "0", "-z", codec, "-X", "linger.ms=50")
		cmd.Stdin = bytes.NewReader(lines)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("kcat with %s: %v\n%s", codec, err, out)
		}
		live.Take(100)
	}
	open(t, harness.OverSSE, w.b, harness.NewLedger(), "", topic, "from=earliest").Take(500)
}
