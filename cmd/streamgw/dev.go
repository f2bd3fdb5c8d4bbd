package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/kafka"
	"github.com/spf13/cobra"
)

// developing is what `streamgw dev` was asked for.
type developing struct {
	listen, admin string
	kafka         string
	kafkaChosen   bool // the address of the broker was said, so it is that one or none
	data          string
	noSample      bool
	origins       []string
	every         time.Duration // between two sample events of a topic
}

func (p program) devCommand() *cobra.Command {
	d := developing{every: time.Second}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a gateway with a broker of its own and sample events",
		Long: `dev runs a gateway, a broker that speaks Kafka's protocol, and sample events, all in one
process and without any configuration: to see what streamgw does, and to develop against.
It prints what to try. Everyone on this machine may read and write, nobody else.

Records are kept in memory and are gone when it ends; --data keeps them.`,
		Example: `  streamgw dev
  streamgw dev --data ./streamgw-data --no-sample
  streamgw dev --listen 127.0.0.1:9000 --admin-listen 127.0.0.1:9001 --kafka-listen 127.0.0.1:19092`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.kafkaChosen = cmd.Flags().Changed("kafka-listen")
			return p.dev(cmd.Context(), d)
		},
	}
	f := cmd.Flags()
	d.listen, d.admin, d.kafka = "127.0.0.1:8080", "127.0.0.1:8090", devBroker
	f.Var(address{&d.listen}, "listen", "the public listener: streams and topics")
	f.Var(address{&d.admin}, "admin-listen", "the admin listener: probes, metrics, profiles")
	f.Var(address{&d.kafka}, "kafka-listen", "the broker; a free port is taken when this is not said and the default is in use")
	f.StringVar(&d.data, "data", "", "directory that keeps topics and records (default: they are gone when it ends)")
	f.BoolVar(&d.noSample, "no-sample", false, "write no sample events; the sample topics exist all the same")
	f.Var(list{&d.origins, origin}, "cors-origins", "origins whose pages may read, such as http://localhost:5173; * for all")
	return cmd
}

// dev runs a gateway, its broker and the sample events until ctx ends.
func (p program) dev(ctx context.Context, d developing) error {
	log := p.warnings()
	c := defaultConfig()
	c.Listen, c.Admin.Listen, c.CORS.Origins = d.listen, d.admin, d.origins
	c.Auth.Mode = "none"
	c.Drain.Period = 3 * time.Second // nobody else takes over: clients needn't be spread
	at, err := listen(c)
	if err != nil {
		return err
	}
	broker, elsewhere, err := d.startBroker()
	if err != nil {
		return errors.Join(err, at.public.Close(), at.admin.Close())
	}
	defer broker.Close()
	c.Kafka.Brokers = []string{broker.Addr()}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sampling sync.WaitGroup
	var sampleErr error // read once sampling is over
	started := func() {
		if elsewhere {
			fmt.Fprintf(p.out, "%s is in use by another program, so the broker listens on %s\n\n", d.kafka, broker.Addr())
		}
		if err := devPage().Execute(p.out, d.page(at, broker)); err != nil {
			log.Warn("the page of what to try wasn't printed", "error", err)
		}
		sampling.Go(func() {
			if sampleErr = d.sample(ctx, c.Kafka, log); sampleErr != nil {
				cancel()
			}
		})
	}
	err = serve(ctx, c, at, log, started)
	cancel()
	sampling.Wait()
	return errors.Join(err, sampleErr)
}

// startBroker starts the broker: elsewhere, on a free port, when nobody chose the one that is in use.
func (d developing) startBroker() (broker *devbroker.Broker, elsewhere bool, err error) {
	config := devbroker.Config{Addr: d.kafka, DataDir: d.data}
	for _, s := range samples() {
		config.Topics = append(config.Topics, s.topic)
	}
	broker, err = devbroker.Start(config)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return broker, false, err
	}
	if d.kafkaChosen {
		return nil, false, fmt.Errorf("--kafka-listen: another program listens on %s already; choose another address", d.kafka)
	}
	config.Addr = "127.0.0.1:0"
	broker, err = devbroker.Start(config)
	return broker, true, err
}

// sample writes sample events, as a service of its own would, until ctx ends.
func (d developing) sample(ctx context.Context, brokers kafka.Config, log *slog.Logger) error {
	if d.noSample {
		return nil
	}
	brokers.ClientID, brokers.Log = "streamgw-dev-sample", log
	client, err := kafka.New(brokers)
	if err != nil {
		return err
	}
	defer client.Close()
	publisher, err := client.Publisher(kafka.PublisherConfig{})
	if err != nil {
		return err
	}
	defer publisher.Close()
	s := sampler{publisher: publisher, topics: client.Topics(), every: d.every, log: log}
	if err := s.Run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// page is what the printed page names.
type page struct {
	Program               string // how streamgw is called here
	Gateway, Admin, Kafka string // addresses
	URL, Brokers          string // flags, where the defaults won't do
	Kept                  string // what becomes of the records
	Topics                []string
	Samples               bool // events flow in them
}

func (d developing) page(at listeners, broker *devbroker.Broker) page {
	pg := page{
		Program: "streamgw", Gateway: at.public.Addr().String(), Admin: at.admin.Addr().String(), Kafka: broker.Addr(),
		Kept: "in memory: gone when this ends", Samples: !d.noSample,
	}
	if strings.Contains(filepath.ToSlash(os.Args[0]), "/go-build") {
		pg.Program = "go run ./cmd/streamgw"
	}
	if pg.Gateway != "127.0.0.1:8080" {
		pg.URL = " --url http://" + pg.Gateway
	}
	if pg.Kafka != devBroker {
		pg.Brokers = " --brokers " + pg.Kafka
	}
	if d.data != "" {
		pg.Kept = "in " + d.data
	}
	for _, s := range samples() {
		pg.Topics = append(pg.Topics, s.topic.Name)
	}
	return pg
}

func devPage() *template.Template {
	return template.Must(template.New("page").Parse(`streamgw dev: a gateway, a Kafka broker of its own{{if .Samples}} and sample events{{end}}

  gateway  {{printf "%-24s" (print "http://" .Gateway)}}  streams and topics
  admin    {{printf "%-24s" (print "http://" .Admin)}}  /metrics, /readyz, /livez
  broker   {{printf "%-24s" .Kafka}}  for kcat or any Kafka client; records are {{.Kept}}
  topics   {{range $i, $t := .Topics}}{{if $i}}, {{end}}{{$t}}{{end}}

In another terminal:

  curl -N 'http://{{.Gateway}}/v1/events?topic=orders.order.placed'
  curl -N 'http://{{.Gateway}}/v1/events?topic=users.user.created&from=-5m&format=record'
  curl -N 'http://{{.Gateway}}/v1/events?topic=inventory.stock.level&key=sku-07' -H 'Accept: application/x-ndjson'
  curl 'http://{{.Gateway}}/v1/topics'

  {{.Program}} tail orders.order.placed --from earliest{{.URL}}
  {{.Program}} publish orders.order.placed '{"hello":"world"}' --key customer-1{{.Brokers}}
  kcat -b {{.Kafka}} -t orders.order.placed -C -o -5

In a browser: open http://{{.Gateway}}/v1/topics, and in its console

  const events = new EventSource('/v1/events?topic=orders.order.placed')
  events.onmessage = e => console.log(JSON.parse(e.data), e.lastEventId)

  const socket = new WebSocket('ws://{{.Gateway}}/v1/ws?topic=users.user.created', 'streamgw.v1')
  socket.onmessage = m => console.log(JSON.parse(m.data))

Ctrl-C ends it.
`))
}
