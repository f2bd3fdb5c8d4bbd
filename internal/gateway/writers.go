package gateway

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// writers have the connections that were taken over from net/http.
type writers struct {
	g       *Gateway
	each    []*writer
	turn    atomic.Uint32
	moved   atomic.Int64 // connections that came and that went
	watch   *watcher
	helpers sync.WaitGroup // the goroutines of single connections, while they have one
}

var errStopped = errors.New("the writers have stopped")

// Run serves streams on connections that it takes over from net/http, without a goroutine or a timer for each: those
// over plain TCP, on Linux. Others, and all of a Gateway that doesn't Run, have a goroutine each. It returns when ctx
// ends; streams that are left then are cut, so Shutdown comes first. It also takes over what other replicas have revoked.
func (g *Gateway) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	following.Go(func() { g.followRevocations(ctx) })
	defer following.Wait()
	defer cancel()
	return g.runWriters(ctx)
}

func (g *Gateway) runWriters(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := newWatcher()
	if errors.Is(err, errors.ErrUnsupported) {
		<-ctx.Done()
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch connections: %w", err)
	}
	ws := &writers{g: g, watch: watch}
	var running sync.WaitGroup
	for range max(1, runtime.GOMAXPROCS(0)/2) { // the kernel receives on the others, and hands on what is written
		w := newWriter(ws)
		ws.each = append(ws.each, w)
		running.Go(w.run)
	}
	running.Go(func() { ws.tidy(ctx) })
	watching := make(chan error, 1)
	go func() { watching <- watch.run() }()
	g.writers.Store(ws)
	select {
	case <-ctx.Done():
	case err = <-watching:
		watching <- nil
	}
	g.writers.Store(nil)
	cancel()
	for _, w := range ws.each {
		w.stop()
	}
	running.Wait()
	err = errors.Join(err, watch.close(), <-watching)
	ws.helpers.Wait()
	return err
}

// pick returns the writer for the next connection.
func (ws *writers) pick() *writer { return ws.each[int(ws.turn.Add(1))%len(ws.each)] }

// adopt hands a connection to its writer.
func (ws *writers) adopt(c *taken) error {
	if err := ws.watch.add(c); err != nil {
		return err
	}
	c.transport.begin()
	if !c.w.adopt(c) {
		ws.watch.remove(c)
		c.transport.end(reason(errDraining))
		return errStopped
	}
	ws.moved.Add(1)
	return nil
}
