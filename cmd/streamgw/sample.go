package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/devbroker"
	"github.com/goodgo/streamgw/internal/stream"
)

// sample is a topic of `streamgw dev` and what is written to it.
type sample struct {
	topic     devbroker.Topic
	eventType string
	source    string
	event     func(n int) (key string, data any) // the nth event
}

// envelope is an event as DESIGN has it: a business fact with where and when it came from.
type envelope struct {
	EventID       string `json:"eventId"`
	EventType     string `json:"eventType"`
	EventVersion  int    `json:"eventVersion"`
	Timestamp     string `json:"timestamp"` // RFC 3339, UTC, milliseconds
	Source        string `json:"source"`
	CorrelationID string `json:"correlationId"`
	Data          any    `json:"data"`
}

type (
	order struct {
		OrderID    string      `json:"orderId"`
		CustomerID string      `json:"customerId"`
		Items      []orderItem `json:"items"`
		Total      float64     `json:"total"`
		Currency   string      `json:"currency"`
	}
	orderItem struct {
		SKU      string  `json:"sku"`
		Quantity int     `json:"quantity"`
		Price    float64 `json:"price"`
	}
	user struct {
		UserID  string `json:"userId"`
		Name    string `json:"name"`
		Country string `json:"country"`
		Plan    string `json:"plan"`
	}
	stockLevel struct {
		SKU       string `json:"sku"`
		Warehouse string `json:"warehouse"`
		Quantity  int    `json:"quantity"`
	}
)

// samples returns the topics of `streamgw dev`.
func samples() []sample {
	return []sample{
		{devbroker.Topic{Name: "orders.order.placed", Partitions: 3}, "order.placed.v1", "shop", placedOrder},
		{devbroker.Topic{Name: "users.user.created", Partitions: 3}, "user.created.v1", "accounts", createdUser},
		{devbroker.Topic{Name: "inventory.stock.level", Partitions: 1, Configs: map[string]string{"cleanup.policy": "compact"}},
			"stock.level.v1", "warehouse", changedStock},
	}
}

func sku(n int) string { return fmt.Sprintf("sku-%02d", n) }

const skus, customers = 12, 20 // so few that keys come again

func placedOrder(n int) (string, any) {
	o := order{OrderID: fmt.Sprintf("order-%d", 1000+n), CustomerID: fmt.Sprintf("customer-%d", 1+mathrand.IntN(customers)), Currency: "EUR"}
	cents := 0
	for range 1 + mathrand.IntN(3) {
		quantity, price := 1+mathrand.IntN(3), 500+100*mathrand.IntN(95)-1
		o.Items = append(o.Items, orderItem{sku(1 + mathrand.IntN(skus)), quantity, float64(price) / 100})
		cents += quantity * price
	}
	o.Total = float64(cents) / 100
	return o.CustomerID, o
}

func createdUser(n int) (string, any) {
	pick := func(of ...string) string { return of[mathrand.IntN(len(of))] }
	u := user{
		UserID:  fmt.Sprintf("user-%d", 1+n),
		Name:    pick("Ada", "Chidi", "Emre", "Ines", "Jonas", "Mei", "Olga", "Priya", "Sam", "Zoë") + " " + pick("Berg", "Costa", "Demir", "Eze", "Kaur", "Lind", "Novak", "Sato"),
		Country: pick("BR", "DE", "IN", "JP", "NG", "PT", "SE", "TR"),
		Plan:    pick("free", "free", "team", "business"),
	}
	return u.UserID, u
}

func changedStock(int) (string, any) {
	s := stockLevel{sku(1 + mathrand.IntN(skus)), "central", mathrand.IntN(200)}
	return s.SKU, s
}

// sampler writes sample events.
type sampler struct {
	publisher stream.Publisher
	topics    stream.Topics
	every     time.Duration // between two events of a topic, about
	log       *slog.Logger
}

// Run writes about an event a topic every so often, until ctx ends. Topics that are empty first get a few from the minutes
// before, so that there is something to look back at.
func (s *sampler) Run(ctx context.Context) error {
	all := samples()
	written := make([]int, len(all))
	for i, one := range all {
		n, err := s.fill(ctx, one)
		if err != nil {
			return err
		}
		written[i] = n
	}
	tick := time.NewTicker(s.every / time.Duration(len(all)))
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % len(all) {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := s.publisher.Publish(ctx, []stream.Record{all[i].record(written[i], time.Now())}); err != nil && ctx.Err() == nil {
			s.log.Warn("a sample event wasn't written", "topic", all[i].topic.Name, "error", err)
			continue
		}
		written[i]++
	}
}

// fill writes the events of the last minutes to a topic that has none, and returns how many it has then.
func (s *sampler) fill(ctx context.Context, one sample) (int, error) {
	topic, err := s.topics.Lookup(ctx, one.topic.Name)
	if err != nil {
		return 0, fmt.Errorf("look up the sample topic %s: %w", one.topic.Name, err)
	}
	var have int64
	for p := range topic.End {
		have += topic.End[p]
	}
	if have > 0 {
		return int(have), nil
	}
	const before, apart = 20, 15 * time.Second
	var records []stream.Record
	for n := range before {
		records = append(records, one.record(n, time.Now().Add(-apart*time.Duration(before-n))))
	}
	if _, err := s.publisher.Publish(ctx, records); err != nil {
		return 0, fmt.Errorf("fill the sample topic %s: %w", one.topic.Name, err)
	}
	return before, nil
}

// record returns the nth event as a service would write it.
func (s sample) record(n int, at time.Time) stream.Record {
	key, data := s.event(n)
	e := envelope{
		EventID: uuidV7(at), EventType: s.eventType, EventVersion: 1, Timestamp: at.UTC().Format("2006-01-02T15:04:05.000Z"),
		Source: s.source, CorrelationID: uuidV7(at), Data: data,
	}
	value, err := json.Marshal(e)
	if err != nil {
		panic(err) // a fault of the types above
	}
	return stream.Record{Topic: s.topic.Name, Key: []byte(key), Value: value, Timestamp: at, Headers: []stream.Header{
		{Name: "event-type", Value: []byte(e.EventType)},
		{Name: "event-version", Value: []byte(strconv.Itoa(e.EventVersion))},
		{Name: "correlation-id", Value: []byte(e.CorrelationID)},
	}}
}

// uuidV7 returns a UUID that sorts by time (RFC 9562 section 5.7).
func uuidV7(at time.Time) string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	var millis [8]byte
	binary.BigEndian.PutUint64(millis[:], uint64(at.UnixMilli()))
	copy(id[:6], millis[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	text := hex.EncodeToString(id[:])
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}
