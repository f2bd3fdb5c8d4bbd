package fanout

import (
	"context"

	"github.com/goodgo/streamgw/internal/stream"
)

// Hubs holds the hub of every topic in use.
type Hubs struct{}

// New returns hubs that read with source and history. Run starts them.
func New(cfg Config, source stream.Source, history stream.History) *Hubs { panic("stub") }

// Run works until ctx ends: it reads topics while they have subscribers, and history for those who need it. Then every subscription
// fails with kind Unavailable.
func (h *Hubs) Run(ctx context.Context) error { panic("stub") }

// Subscribe returns a subscription once the readers of all its topics stand at a known offset of every partition:
// nothing published after it returns is missed. Errors are [stream.Error]: NotFound, BadPosition (none of the
// topics is in it), Unavailable (Kafka didn't answer within Config.StartTimeout).
func (h *Hubs) Subscribe(ctx context.Context, req Request) (*Subscription, error) { panic("stub") }

// Reserve counts n bytes that a transport holds for a client (a pending write) against Config.Memory. Windows shrink
// to make room; false says that there is none, and then the client is to be closed as overloaded.
func (h *Hubs) Reserve(n int64) bool { panic("stub") }

// Release gives back what Reserve took.
func (h *Hubs) Release(n int64) { panic("stub") }

// HubStats is what one hub holds now.
type HubStats struct {
	Topic       string `json:"topic"`
	Subscribers int    `json:"subscribers"`
	Channels    int    `json:"channels"`
	Messages    int    `json:"messages"` // in the window
	Bytes       int64  `json:"bytes"`    // of messages and frames in the window
}

// Stats returns the hubs in use, by topic.
func (h *Hubs) Stats() []HubStats { panic("stub") }

// Subscription is a cursor: where one subscriber stands in its topics. Its methods are for one goroutine at a time.
type Subscription struct{}

// Position returns where the subscription stands: what a client resumes from after all that Poll has yielded.
func (s *Subscription) Position() string { panic("stub") }

// Poll fills b with what comes next: about 64 KiB at most, or one message. It never blocks; no items mean nothing yet:
// Wake will be called when there is. After an error (TooSlow, Unavailable, NotFound) the subscription is at its end, and
// Position is where to resume.
func (s *Subscription) Poll(b *Batch) error { panic("stub") }

// Progress moves the subscription past messages that its filter leaves out, when nothing is pending, and returns
// its position if that has changed since the last item or Progress. Transports send it with their heartbeats.
func (s *Subscription) Progress() (id string, moved bool) { panic("stub") }

// Next is Poll that waits. It is for callers without a Wake.
func (s *Subscription) Next(ctx context.Context, b *Batch) error { panic("stub") }

// Close ends the subscription. It is safe to call twice.
func (s *Subscription) Close() { panic("stub") }
