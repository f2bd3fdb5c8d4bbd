package gateway

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/coder/websocket"
	"github.com/goodgo/streamgw/internal/stream"
	"golang.org/x/time/rate"
)

// read hands the client's frames to the connection until it ends, and then ends that.
func (s *webSocketSession) read() {
	defer func() {
		if r := recover(); r != nil {
			s.cancel(panicked(r))
		}
	}()
	for {
		kind, text, err := s.ws.Read(context.Background())
		switch {
		case errors.Is(err, websocket.ErrMessageTooBig):
			s.cancel(stream.Errorf(stream.TooLarge, "a frame has more than %d bytes", readLimit))
			return
		case err != nil:
			s.cancel(errClientGone)
			return
		case s.message(kind, text) != nil:
			return // the connection has ended
		}
	}
}

// message does what a client's message says. Its error says that the connection has ended.
func (s *webSocketSession) message(kind websocket.MessageType, text []byte) error {
	if kind != websocket.MessageText {
		return s.strike(clientFrame{}, stream.Errorf(stream.BadRequest, "frames are JSON text, not bytes"))
	}
	return s.take(text)
}

// do has the connection run a command, and returns when it has. Its error says that the connection has ended.
func (s *webSocketSession) do(command func() error) error {
	done := make(chan struct{})
	run := func() error {
		defer close(done)
		return command()
	}
	s.c.command.Store(&run)
	s.c.driver.wake()
	select {
	case <-done:
		return nil
	case <-s.ctx.Done():
	}
	if s.c.command.CompareAndSwap(&run, nil) {
		return s.ctx.Err() // nobody took it, and nobody will
	}
	<-done
	return nil
}

// ask has the connection run a command and returns its answer, or an error that says that it has ended.
func (s *webSocketSession) ask(question func() error) (answer, err error) {
	err = s.do(func() error {
		answer = question()
		return nil
	})
	return answer, err
}

// take does what a client's frame says.
func (s *webSocketSession) take(text []byte) error {
	f, err := parseFrame(text)
	if err != nil {
		return s.strike(f, err)
	}
	if cost := frameCosts[f.Type]; cost > 0 && !s.affords(cost) {
		s.g.metrics.limited.WithLabelValues("frames").Inc()
		return s.refuse(f, errManyFrames)
	}
	switch f.Type {
	case "subscribe":
		return s.subscribe(f)
	case "auth":
		return s.auth(f)
	case "unsubscribe":
		return s.do(func() error { return s.unsubscribe(f) })
	default:
		return s.do(func() error {
			s.c.out.buf = webSocketFrames{id: f.id()}.appendType(s.c.out.own(), "pong")
			return nil
		})
	}
}

// frameCosts are what frames cost of a client's budget that make others work: Kafka, or whoever verifies a token and reads
// for all its subscriptions anew. A budget fills by frameRate a second, up to frameBurst beside what a client's subscriptions
// take that comes back with all of them.
var frameCosts = map[string]int{"subscribe": 1, "auth": 10}

const frameRate, frameBurst = 10, 200

var errManyFrames = stream.Errorf(stream.TooMany, "too many frames that subscribe or bring a token; wait a second")

// affords takes the cost of a frame out of the client's budget, if that is there.
func (s *webSocketSession) affords(cost int) bool {
	if s.budget == nil {
		s.budget = rate.NewLimiter(frameRate, frameBurst+s.g.cfg.MaxSubscriptions)
	}
	return s.budget.AllowN(time.Now(), cost)
}

// strike tells the client that a frame made no sense, and closes it when there were too many of them.
func (s *webSocketSession) strike(f clientFrame, err error) error {
	s.strikes++
	if s.strikes > maxStrikes {
		err = stream.Errorf(stream.BadRequest, "more than %d frames made no sense", maxStrikes)
		return s.do(func() error { return err })
	}
	return s.refuse(f, err)
}

// refuse answers a frame with an error.
func (s *webSocketSession) refuse(f clientFrame, err error) error {
	p := problemOf(err)
	s.g.noteRefusal("frame "+f.kind(), p, err)
	if errors.Is(err, errDraining) {
		return nil // close code 1012 says it
	}
	return s.do(func() error {
		s.c.out.buf = webSocketFrames{id: f.id()}.appendError(s.c.out.own(), "", p)
		return nil
	})
}

// subscribe opens a subscription. It is the reader that waits for it, so that the others go on meanwhile.
func (s *webSocketSession) subscribe(f clientFrame) error {
	req, err := f.request(s.g, s.grant)
	switch {
	case err != nil && s.grant == nil:
		return s.strike(f, err)
	case err != nil:
		return s.refuse(f, err)
	}
	refusal, err := s.ask(func() error { return s.room(f.id()) })
	if err != nil {
		return err
	}
	if refusal != nil {
		return s.refuse(f, refusal)
	}
	feed := &feed{id: f.id(), frames: webSocketFrames{record: req.record, id: f.id(), deflate: s.deflate}}
	if err := s.g.subscribe(s.ctx, s.c, feed, req); err != nil {
		return s.refuse(f, err)
	}
	s.remember(feed, req)
	err = s.do(func() error {
		s.c.add(feed)
		return nil
	})
	if err != nil {
		feed.sub.Close()
	}
	return err
}

// room returns why there can't be a subscription of that id, or nil. Only the reader adds some, so that it lasts.
func (s *webSocketSession) room(id string) error {
	if s.find(id) != nil {
		return stream.BadField("id", "there is a subscription of this id")
	}
	if len(s.c.feeds) >= s.g.cfg.MaxSubscriptions {
		return stream.Errorf(stream.TooMany, "a connection has %d subscriptions at most", s.g.cfg.MaxSubscriptions)
	}
	return nil
}

func (s *webSocketSession) find(id string) *feed {
	i := slices.IndexFunc(s.c.feeds, func(f *feed) bool { return f.id == id })
	if i < 0 {
		return nil
	}
	return s.c.feeds[i]
}

// unsubscribe ends a subscription. It is a command.
func (s *webSocketSession) unsubscribe(f clientFrame) error {
	feed := s.find(f.id())
	if feed == nil {
		s.c.out.buf = webSocketFrames{id: f.id()}.appendError(s.c.out.own(), "", problemOf(stream.BadField("id", "there is no subscription of this id")))
		return nil
	}
	s.c.remove(feed)
	s.c.out.buf = feed.frames.(webSocketFrames).appendType(s.c.out.own(), "unsubscribed")
	return nil
}
