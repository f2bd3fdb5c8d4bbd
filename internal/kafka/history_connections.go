package kafka

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// historyConnections are those that history is read over: a few to each broker, closed when nobody has used them for a
// while.
type historyConnections struct {
	client *Client

	mu     sync.Mutex // guards what follows
	closed bool
	pools  map[int32]*pool
	reaper *time.Timer // closes what is idle; nil before the first use
}

const (
	historyConnectionsEach = 8 // to one broker at most
	historyIdle            = time.Minute
)

func newHistoryConnections(c *Client) *historyConnections {
	return &historyConnections{client: c, pools: map[int32]*pool{}}
}

// use calls f with a connection to a broker that nobody else uses meanwhile. One that had been idle may be gone: then f
// is called again with a new one. An error of f that isn't an error code of Kafka's ends the connection.
func (h *historyConnections) use(ctx context.Context, broker int32, f func(*sarama.Broker) error) error {
	p, err := h.pool(broker)
	if err != nil {
		return err
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		b := p.take()
		fresh := b == nil
		if fresh {
			if b, err = h.client.dial(ctx, broker); err != nil {
				return err
			}
		}
		err := f(b)
		if err == nil || answered(err) {
			h.give(p, b)
			return err
		}
		b.Close()
		if fresh || ctx.Err() != nil {
			return err
		}
		p.drop() // the others are as old
	}
}

// answered reports whether an error is one that the broker told: the connection is good.
func answered(err error) bool {
	_, refused := errors.AsType[sarama.KError](err)
	return refused || isRecreated(err)
}

func (h *historyConnections) pool(broker int32) (*pool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	p, ok := h.pools[broker]
	if !ok {
		p = &pool{slots: make(chan struct{}, historyConnectionsEach)}
		h.pools[broker] = p
	}
	return p, nil
}

func (h *historyConnections) give(p *pool, b *sarama.Broker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		b.Close()
		return
	}
	p.give(b)
	if h.reaper == nil {
		h.reaper = time.AfterFunc(historyIdle, h.dropIdle)
	} else {
		h.reaper.Reset(historyIdle)
	}
}

// dropIdle runs when nothing was read for a while.
func (h *historyConnections) dropIdle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.pools {
		p.drop()
	}
}

func (h *historyConnections) close() {
	h.dropIdle()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.reaper != nil {
		h.reaper.Stop()
	}
}
