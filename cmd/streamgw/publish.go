package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goodgo/streamgw/internal/kafka"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/spf13/cobra"
)

// publishing is what `streamgw publish` was asked for.
type publishing struct {
	topic     string
	key       string
	hasKey    bool
	headers   []string
	partition int32 // -1: by the key
	tombstone bool
	json      bool
	out       io.Writer
}

func (p program) publishCommand() *cobra.Command {
	pub := publishing{out: p.out}
	var config configFlags
	var file string
	cmd := &cobra.Command{
		Use:   "publish TOPIC [VALUE]",
		Short: "Write records to a topic",
		Long: `publish writes a record to a topic as it is given: VALUE, the content of --file, or each
line of standard input. It prints where each was written once the brokers have
acknowledged it. The topic must exist: it is never created by this.

Without a configuration it writes to the broker of 'streamgw dev'.`,
		Example: `  streamgw publish orders.order.placed '{"eventType":"order.placed.v1","data":{"total":12}}' --key order-7
  jq -c '.[]' orders.json | streamgw publish orders.order.placed --header event-type=order.placed.v1
  streamgw publish inventory.stock.level --key sku-11 --tombstone
  streamgw publish images.raw --file logo.png --brokers kafka:9092`,
		Args: arguments(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			pub.topic, pub.hasKey = args[0], cmd.Flags().Changed("key")
			values, err := pub.values(args[1:], file, p.in)
			if err != nil {
				return usageError{err}
			}
			if _, err := pub.record(nil); err != nil {
				return usageError{err}
			}
			c, problems := config.load(p)
			if len(c.Kafka.Brokers) == 0 {
				c.Kafka.Brokers = []string{devBroker}
			}
			if err := append(problems, kafkaProblems(c.Kafka)...).orNil(); err != nil {
				return err
			}
			c.Kafka.Log = p.warnings()
			client, err := newKafka(c.Kafka)
			if err != nil {
				return err
			}
			defer client.Close()
			publisher, err := client.Publisher(kafka.PublisherConfig{})
			if err != nil {
				return err
			}
			defer publisher.Close()
			return pub.run(cmd.Context(), publisher, values)
		},
	}
	f := cmd.Flags()
	f.StringVar(&pub.key, "key", "", "record key; it decides the partition (default: none)")
	f.StringArrayVar(&pub.headers, "header", nil, "record header as name=value; repeat for several")
	f.Int32Var(&pub.partition, "partition", -1, "partition to write to (default: by the key)")
	f.BoolVar(&pub.tombstone, "tombstone", false, "write a null value, which deletes the key from a compacted topic")
	f.StringVar(&file, "file", "", "file whose content is the value")
	f.BoolVar(&pub.json, "json", false, "print each receipt as a line of JSON")
	shown := defaultConfig()
	config.add(f, kafkaSettings(&shown.Kafka))
	return cmd
}

// values returns the values to write, in turn, until it returns io.EOF.
func (pub *publishing) values(args []string, file string, in io.Reader) (func() ([]byte, error), error) {
	switch {
	case pub.tombstone && (len(args) > 0 || file != ""):
		return nil, fmt.Errorf("--tombstone writes no value: leave out VALUE and --file")
	case pub.tombstone && !pub.hasKey:
		return nil, fmt.Errorf("--tombstone needs --key: it says what to delete")
	case len(args) > 0 && file != "":
		return nil, fmt.Errorf("give VALUE or --file, not both")
	case pub.tombstone:
		return once(nil), nil
	case len(args) > 0:
		return once([]byte(args[0])), nil
	case file != "":
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		return once(content), nil
	}
	lines := bufio.NewScanner(in)
	const longest = 16 << 20 // far above what brokers take
	lines.Buffer(nil, longest)
	return func() ([]byte, error) {
		if lines.Scan() {
			return append([]byte{}, lines.Bytes()...), nil
		}
		if lines.Err() != nil {
			return nil, fmt.Errorf("read standard input: %w", lines.Err())
		}
		return nil, io.EOF
	}, nil
}

// once returns values that are one value.
func once(value []byte) func() ([]byte, error) {
	done := false
	return func() ([]byte, error) {
		if done {
			return nil, io.EOF
		}
		done = true
		return value, nil
	}
}

// record returns a value as the record to write.
func (pub *publishing) record(value []byte) (stream.Record, error) {
	r := stream.Record{Topic: pub.topic, Value: value}
	if pub.hasKey {
		r.Key = []byte(pub.key)
	}
	if pub.partition < -1 {
		return r, fmt.Errorf("--partition: %d isn't a partition", pub.partition)
	}
	if pub.partition >= 0 {
		r.Partition = &pub.partition
	}
	for _, h := range pub.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return r, fmt.Errorf("--header: %q isn't name=value", h)
		}
		r.Headers = append(r.Headers, stream.Header{Name: name, Value: []byte(value)})
	}
	return r, nil
}

// together bounds the records of one write, and those that wait for the next.
const together = 500

// run writes all values. What comes while a write is under way is written together with the next one.
func (pub *publishing) run(ctx context.Context, to stream.Publisher, values func() ([]byte, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	records := make(chan stream.Record, together)
	read := make(chan error, 1)
	go func() { // ends with the values or with this call; a read of a terminal can't be interrupted, so nobody waits for it
		defer close(records)
		read <- pub.read(ctx, values, records)
	}()
	for {
		batch, more := gather(ctx, records, together)
		if len(batch) > 0 {
			if err := pub.write(ctx, to, batch); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stopped before all was written: %w", ctx.Err())
		}
		if !more {
			return <-read
		}
	}
}

// read makes records of values until there are no more.
func (pub *publishing) read(ctx context.Context, values func() ([]byte, error), records chan<- stream.Record) error {
	for {
		value, err := values()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		r, err := pub.record(value)
		if err != nil {
			return err
		}
		select {
		case records <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// write writes records and prints where they are.
func (pub *publishing) write(ctx context.Context, to stream.Publisher, batch []stream.Record) error {
	receipts, err := to.Publish(ctx, batch)
	if e, ok := errors.AsType[*stream.Error](err); ok && e.Kind == stream.NotFound {
		return fmt.Errorf("there is no topic %s; create it first, publishing doesn't", pub.topic)
	}
	if err != nil {
		return err
	}
	return pub.print(receipts)
}

// gather waits for a record and takes with it what else is there.
func gather(ctx context.Context, records <-chan stream.Record, most int) (batch []stream.Record, more bool) {
	select {
	case <-ctx.Done():
		return nil, false
	case r, ok := <-records:
		if !ok {
			return nil, false
		}
		batch = append(batch, r)
	}
	for len(batch) < most {
		select {
		case r, ok := <-records:
			if !ok {
				return batch, false
			}
			batch = append(batch, r)
		default:
			return batch, true
		}
	}
	return batch, true
}

func (pub *publishing) print(receipts []stream.Receipt) error {
	for _, r := range receipts {
		line := fmt.Sprintf("%s %d:%d", r.Topic, r.Partition, r.Offset)
		if pub.json {
			raw, err := json.Marshal(struct {
				Topic     string `json:"topic"`
				Partition int32  `json:"partition"`
				Offset    int64  `json:"offset"`
			}{r.Topic, r.Partition, r.Offset})
			if err != nil {
				return err
			}
			line = string(raw)
		}
		if _, err := fmt.Fprintln(pub.out, line); err != nil {
			return err
		}
	}
	return nil
}
