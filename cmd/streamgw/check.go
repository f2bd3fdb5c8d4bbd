package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goodgo/streamgw/internal/kafka"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/spf13/cobra"
)

func (p program) checkCommand() *cobra.Command {
	var config configFlags
	var topic string
	var may mayRead
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with a configuration, and what it would serve",
		Long: `check reads the configuration as 'serve' would, says everything that is wrong with it,
connects to Kafka and lists the topics that would be served. It changes nothing, and
asking for a topic never creates it.

With --token it says instead whether the gateway takes a token, and why its holder may or
may not read a topic, or one key of it. Kafka isn't asked then.`,
		Example: `  streamgw check --config streamgw.yaml
  streamgw check --config streamgw.yaml --topic orders.order.placed
  streamgw check --config streamgw.yaml --token @token --topic orders.order.placed --key order-7
  streamgw check --kafka-brokers kafka:9092 --auth-mode none`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, problems := config.load(p)
			if err := append(problems, c.problemsToServe()...).orNil(); err != nil {
				return err
			}
			if may.token != "" {
				may.topic, may.hasKey = topic, cmd.Flags().Changed("key")
				token, err := may.read(p.in)
				if err != nil {
					return err
				}
				e, err := p.explain(cmd.Context(), c, token)
				if err != nil {
					return err
				}
				return may.run(p.out, c, e)
			}
			if _, err := newAccess(c, p.warnings(), nil); err != nil {
				return err
			}
			c.Kafka.Log = p.warnings()
			client, err := newKafka(c.Kafka)
			if err != nil {
				return err
			}
			defer client.Close()
			return checking{c, topic, client.Topics(), p.out}.run(cmd.Context())
		},
	}
	shown := defaultConfig()
	config.add(cmd.Flags(), settings(&shown))
	cmd.Flags().StringVar(&topic, "topic", "", "look up one topic instead of listing all")
	cmd.Flags().StringVar(&may.token, "token", "", "explain a token: itself, @FILE for one in a file, - for one on standard input")
	cmd.Flags().StringVar(&may.key, "key", "", "with --token and --topic: the record key to explain")
	return cmd
}

// checking is a check of a configuration that is sound in itself.
type checking struct {
	Config
	topic  string
	topics stream.Topics
	out    io.Writer
}

func (c checking) run(ctx context.Context) error {
	fmt.Fprintln(c.out, "configuration: nothing wrong with it")
	for _, w := range c.warnings() {
		fmt.Fprintln(c.out, "  but:", w)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	brokers := strings.Join(c.Kafka.Brokers, ", ")
	if c.topic != "" {
		return c.lookUp(ctx)
	}
	topics, err := c.topics.List(ctx)
	if err != nil {
		return fmt.Errorf("kafka.brokers: %s: %w", brokers, withHint(err, c.Kafka))
	}
	fmt.Fprintf(c.out, "kafka: %s answers, with %s\n", brokers, counted(len(topics), "topic"))
	c.list(topics)
	return nil
}

// warnings are things that work and may not be meant.
func (c checking) warnings() (found []string) {
	if c.Kafka.SASL.Mechanism == kafka.SASLPlain && !c.Kafka.TLS.Enabled {
		found = append(found, "kafka.sasl: the password crosses the network in the clear, since kafka.tls.enabled is false")
	}
	if c.Kafka.TLS.InsecureSkipVerify {
		found = append(found, "kafka.tls.insecureSkipVerify: whoever stands between here and the brokers reads along")
	}
	host, _, _ := net.SplitHostPort(c.Admin.Listen)
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		found = append(found, "admin.listen: "+c.Admin.Listen+" can be reached from other machines; let a network policy keep it to those who should")
	}
	if c.Auth.Mode == "none" {
		found = append(found, "auth.mode: none: everyone who reaches "+c.Listen+" reads every topic below")
	}
	return found
}

// lookUp says what there is of one topic, and whether it would be served.
func (c checking) lookUp(ctx context.Context) error {
	if stream.InternalTopic(c.topic) {
		return fmt.Errorf("--topic: %s is internal to Kafka and never served", c.topic)
	}
	topic, err := c.topics.Lookup(ctx, c.topic)
	if e, ok := errors.AsType[*stream.Error](err); ok && e.Kind == stream.NotFound {
		return fmt.Errorf("--topic: %s doesn't exist; nobody creates it by asking for it", c.topic)
	}
	if err != nil {
		return fmt.Errorf("--topic: %s: %w", c.topic, withHint(err, c.Kafka))
	}
	entry, served := c.Config.topic(c.topic)
	if !served {
		return fmt.Errorf("topics: %s exists but isn't served, since no entry matches it", c.topic)
	}
	fmt.Fprintf(c.out, "topic %s: served, by the entry %s\n", c.topic, entry.Match)
	for p := range topic.End {
		fmt.Fprintf(c.out, "  partition %d: offsets from %d up to %d\n", p, topic.Begin[p], topic.End[p])
	}
	return nil
}

// list says which topics would be served and which not.
func (c checking) list(topics []stream.Topic) {
	var left []string
	table := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	served := 0
	for _, topic := range topics {
		entry, ok := c.Config.topic(topic.Name)
		if !ok {
			left = append(left, topic.Name)
			continue
		}
		if served++; served == 1 {
			fmt.Fprintln(c.out, "would be served:")
		}
		var offsets int64
		for p := range topic.End {
			offsets += topic.End[p] - topic.Begin[p]
		}
		window := entry.Window
		fmt.Fprintf(table, "  %s\t%s\t%s\tentry %s, window %s and %s\n", topic.Name, counted(len(topic.End), "partition"),
			counted(int(offsets), "offset"), entry.Match, size{&window.Bytes}, duration{&window.Age})
	}
	_ = table.Flush()
	if served == 0 {
		fmt.Fprintln(c.out, "would be served: nothing")
	}
	if len(left) > 0 {
		fmt.Fprintln(c.out, "not served, since no entry of topics matches:", strings.Join(left, ", "))
	}
}

// counted returns a number with its noun.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
