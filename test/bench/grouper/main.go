// Command grouper is what services do without streamgw, for the benchmarks to compare with: every connection has a
// consumer group of its own, which reads the whole topic from the brokers once more.
//
//	grouper -brokers 127.0.0.1:9092 -listen 127.0.0.1:8080
//
// It answers GET /stream?topic=T with the topic's values as Server-Sent Events. It is written as such services are:
// net/http, sarama's consumer group with its defaults, one flush an event.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

func main() {
	brokers := flag.String("brokers", "", "brokers, as host:port, joined by commas")
	listen := flag.String("listen", "127.0.0.1:8080", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *listen, strings.Split(*brokers, ",")); err != nil {
		slog.Error("grouper ends", "error", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, listen string, brokers []string) error {
	mux := http.NewServeMux()
	mux.Handle("GET /stream", &events{brokers: brokers})
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = server.Shutdown(context.Background()) })
	if err := server.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// events serves streams, each from a consumer group that nobody else is in.
type events struct {
	brokers []string
	opened  atomic.Int64
}

func (e *events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	config := sarama.NewConfig()
	config.Version = sarama.V2_1_0_0
	config.ClientID = "grouper"
	config.Consumer.Offsets.Initial = sarama.OffsetNewest
	name := fmt.Sprintf("sse-%d-%d", time.Now().UnixNano(), e.opened.Add(1))
	group, err := sarama.NewConsumerGroup(e.brokers, name, config)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer group.Close()
	s := &connection{values: make(chan *sarama.ConsumerMessage), reading: make(chan struct{})}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(r.Context())
	go func() {
		var err error
		for err == nil && ctx.Err() == nil { // a session ends when the group is divided anew
			err = group.Consume(ctx, []string{r.URL.Query().Get("topic")}, s)
		}
		ended <- err
	}()
	if err := s.write(w, ended); err != nil && r.Context().Err() == nil {
		slog.Error("a stream ends", "group", name, "error", err)
	}
	cancel()
}

// connection is a stream and its group's handler.
type connection struct {
	values  chan *sarama.ConsumerMessage
	waits   atomic.Int64  // partitions that aren't read yet
	reading chan struct{} // closed once all are: what is published from then on is streamed
	once    sync.Once     // closes it
}

func (c *connection) Setup(s sarama.ConsumerGroupSession) error {
	for _, partitions := range s.Claims() {
		c.waits.Add(int64(len(partitions)))
	}
	return nil
}

func (c *connection) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (c *connection) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	if c.waits.Add(-1) == 0 {
		c.once.Do(func() { close(c.reading) })
	}
	for {
		select {
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			select {
			case c.values <- m:
				s.MarkMessage(m, "")
			case <-s.Context().Done():
				return nil
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

// write streams until the client goes, which ends the group's session too.
func (c *connection) write(w http.ResponseWriter, ended <-chan error) error {
	select {
	case <-c.reading:
	case err := <-ended:
		http.Error(w, "the consumer group ended", http.StatusBadGateway)
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flusher := http.NewResponseController(w)
	var frame bytes.Buffer
	frame.WriteString(": ok\n\n")
	for {
		if _, err := w.Write(frame.Bytes()); err != nil {
			return err
		}
		if err := flusher.Flush(); err != nil {
			return err
		}
		select {
		case m := <-c.values:
			frame.Reset()
			fmt.Fprintf(&frame, "id: %d-%d\ndata: %s\n\n", m.Partition, m.Offset, m.Value)
		case err := <-ended:
			return err
		}
	}
}
