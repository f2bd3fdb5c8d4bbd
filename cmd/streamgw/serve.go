package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/goodgo/streamgw/internal/fanout"
	"github.com/goodgo/streamgw/internal/gateway"
	"github.com/goodgo/streamgw/internal/kafka"
	"github.com/goodgo/streamgw/internal/stream"
	"github.com/goodgo/streamgw/internal/telemetry"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

func (p program) serveCommand() *cobra.Command {
	var config configFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the topics of a Kafka",
		Long: `serve streams the topics of a Kafka to browsers and apps until it gets SIGTERM or Ctrl-C.
Then it ends the streams, each told when to come back, within drain.period; a second
signal stops it at once.

Every setting can be said in the file, by an environment variable and by a flag; the
later of these wins. 'streamgw check' says what is wrong with a configuration.`,
		Example: `  streamgw serve --config streamgw.yaml
  streamgw serve --kafka-brokers kafka:9092 --auth-mode none
  STREAMGW_KAFKA_BROKERS=kafka:9092 STREAMGW_AUTH_MODE=none streamgw serve`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, problems := config.load(p)
			if err := append(problems, c.problemsToServe()...).orNil(); err != nil {
				return err
			}
			log, err := telemetry.NewLogger(p.err, c.Log)
			if err != nil {
				return err
			}
			at, err := listen(c)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, at, log, func() {
				log.Info("streamgw serves", "version", versionText(), "listen", at.public.Addr().String(), "admin", at.admin.Addr().String(),
					"brokers", c.Kafka.Brokers, "auth", c.Auth.Mode)
			})
		},
	}
	shown := defaultConfig()
	config.add(cmd.Flags(), settings(&shown))
	return cmd
}

// listeners are where a gateway is reached.
type listeners struct{ public, admin net.Listener }

func listen(c Config) (at listeners, err error) {
	if at.public, err = listenAt("listen", c.Listen); err != nil {
		return at, err
	}
	if at.admin, err = listenAt("admin.listen", c.Admin.Listen); err != nil {
		return at, errors.Join(err, at.public.Close())
	}
	return at, nil
}

// listenAt leaves TCP's keep-alive off: heartbeats find clients that have vanished, and nobody pays for it at each connect.
func listenAt(path, address string) (net.Listener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	l, err := config.Listen(context.Background(), "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: another program listens on %s already; choose another address with --%s", path, address, setting{path: path}.flag())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

func hubsConfig(c Config, log *slog.Logger, registry *prometheus.Registry) fanout.Config {
	return fanout.Config{
		Memory:       c.Limits.Memory,
		HistoryReads: c.Limits.HistoryReads,

		Filters:         c.Limits.Filters,
		Scans:           c.Limits.Scans,
		ReplaysPerOwner: c.Limits.ReplaysPerSubject,

		Formats: gateway.Formats(),
		Window: func(topic string) fanout.Window {
			entry, _ := c.topic(topic)
			return fanout.Window{Bytes: entry.Window.Bytes, Age: entry.Window.Age}
		},
		Gather: func(topic string) time.Duration {
			entry, _ := c.topic(topic)
			return entry.Gather
		},
		Log:     log,
		Metrics: registry,
	}
}

func gatewayConfig(c Config, topics stream.Topics, log *slog.Logger, registry *prometheus.Registry) gateway.Config {
	return gateway.Config{
		Drain:   c.Drain.Period,
		Origins: c.CORS.Origins,
		Served: func(topic string) bool {
			_, ok := c.topic(topic)
			return ok
		},
		MaxSubscriptions: c.Limits.Subscriptions,
		Limits: gateway.Limits{
			Connections: c.Limits.Connections, PerSubject: c.Limits.PerSubject, PerIP: c.Limits.PerIP, ConnectRate: c.Limits.ConnectRate,
			TrustedProxies: c.Limits.TrustedProxies, Forwarded: c.Limits.Forwarded,
		},
		Compression: c.Compression.Enabled,
		Checks:      map[string]func(context.Context) error{"kafka": onceAnswered(topics)},
		Log:         log,
		Metrics:     registry,
	}
}

// readinessTopic is looked up to see whether Kafka answers. Nobody creates it.
const readinessTopic = "streamgw.readiness"

// onceAnswered returns a check that fails until Kafka has answered for the first time, and never again. When Kafka is
// away it is so for all replicas: a proxy that took all of them out would answer 503 by itself, and to that an
// EventSource gives up for good, while the gateway tells it to come back.
func onceAnswered(topics stream.Topics) func(context.Context) error {
	var answered atomic.Bool
	return func(ctx context.Context) error {
		if answered.Load() {
			return nil
		}
		_, err := topics.Lookup(ctx, readinessTopic) // that there is no such topic is an answer
		if e, ok := errors.AsType[*stream.Error](err); ok && e.Kind == stream.NotFound {
			err = nil
		}
		if err == nil {
			answered.Store(true)
		}
		return err
	}
}

// serve runs a gateway on listeners, which it closes, until ctx ends or a part of it fails. started is called when it
// serves. It starts Kafka, then hubs and writers, then HTTP, and stops in reverse, streams first: one deadline covers all of it.
func serve(ctx context.Context, c Config, at listeners, log *slog.Logger, started func()) error {
	registry := telemetry.NewRegistry()
	c.Kafka.Log, c.Kafka.Metrics = log, registry
	client, err := newKafka(c.Kafka)
	if err != nil {
		return errors.Join(err, at.public.Close(), at.admin.Close())
	}
	defer client.Close()
	access, err := newAccess(c, log, registry)
	if err != nil {
		return errors.Join(err, at.public.Close(), at.admin.Close())
	}
	settings := gatewayConfig(c, client.Topics(), log, registry)
	if c.Auth.Revocations != "" {
		publisher, err := client.Publisher(kafka.PublisherConfig{})
		if err != nil {
			return errors.Join(err, at.public.Close(), at.admin.Close())
		}
		defer publisher.Close()
		settings.Revocations, settings.Publisher = c.Auth.Revocations, publisher
	}
	reader, history, topics := kafka.NewReader(client), kafka.NewHistory(client), client.Topics()
	hubs := fanout.New(hubsConfig(c, log, registry), reader, history)
	gate := gateway.New(settings, hubs, topics, access)
	public, admin := gateway.Server(gate.Public(), log), gateway.Server(gate.Admin(), log)

	reading := start(reader.Run)
	fanning := start(hubs.Run)
	admitting := start(access.Run)
	writing := start(gate.Run)
	serving := start(func(context.Context) error { return unlessClosed(public.Serve(at.public)) })
	watching := start(func(context.Context) error { return unlessClosed(admin.Serve(at.admin)) })
	started()

	var failed error
	select {
	case <-ctx.Done():
		log.Info("stopping", "within", c.Drain.Period.String(), "streams", "ended first")
	case failed = <-reading.failed:
	case failed = <-fanning.failed:
	case failed = <-admitting.failed:
	case failed = <-writing.failed:
	case failed = <-serving.failed:
	case failed = <-watching.failed:
	}

	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Drain.Period)
	defer cancel()
	late := gate.Shutdown(deadline)
	late = errors.Join(late, shutdown(deadline, public), serving.stop(deadline), writing.stop(deadline), admitting.stop(deadline))
	late = errors.Join(late, fanning.stop(deadline), reading.stop(deadline), history.Close())
	late = errors.Join(late, shutdown(deadline, admin), watching.stop(deadline))
	if failed != nil {
		return failed
	}
	if late != nil {
		return fmt.Errorf("drain.period: not all had ended after %s and was cut", c.Drain.Period)
	}
	log.Info("stopped")
	return nil
}

// part is a goroutine that runs until it is stopped.
type part struct {
	cancel context.CancelFunc
	failed chan error    // has what run returned, if that was an error and it wasn't told to stop
	ended  chan struct{} // closed when run has returned
}

func start(run func(context.Context) error) part {
	ctx, cancel := context.WithCancel(context.Background())
	p := part{cancel, make(chan error, 1), make(chan struct{})}
	go func() {
		defer close(p.ended)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			p.failed <- err
		}
	}()
	return p
}

// stop tells the part to stop and waits until it has, or until ctx ends.
func (p part) stop(ctx context.Context) error {
	p.cancel()
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func unlessClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// shutdown lets a server's requests end; those that haven't by ctx's end are cut.
func shutdown(ctx context.Context, s *http.Server) error {
	err := s.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.Close())
	}
	return err
}
