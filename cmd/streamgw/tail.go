package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// tailing is what `streamgw tail` was asked for.
type tailing struct {
	gateway      string
	topics       []string
	from         string
	keys, types  []string
	json         bool
	max          int
	tokenFile    string
	state        string
	firstRetry   time.Duration
	longSilence  time.Duration
	out, notices io.Writer
}

func (p program) tailCommand() *cobra.Command {
	t := tailing{out: p.out, notices: p.err, firstRetry: firstRetry, longSilence: longSilence}
	cmd := &cobra.Command{
		Use:   "tail TOPIC...",
		Short: "Print events as they come, from a gateway",
		Long: `tail prints the events of topics as they come, and comes back by itself when the
connection ends: nothing is missed and nothing printed twice. With --state it remembers
in a file where it was, so that a later run goes on from there.

A gap, where messages could no longer be had, is told on standard error.`,
		Example: `  streamgw tail orders.order.placed
  streamgw tail orders.order.placed --from -5m --key order-1042
  streamgw tail users.user.created inventory.stock.level --json | jq .value
  streamgw tail orders.order.placed --from earliest --state orders.position
  streamgw tail orders.order.placed --url https://events.example --token-file token`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, topics []string) error {
			t.topics = topics
			return t.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.gateway, "url", "http://127.0.0.1:8080", "the gateway")
	f.StringVar(&t.from, "from", "", "where to begin: latest, earliest, a position, an RFC 3339 time, or a duration back such as -5m (default latest)")
	f.StringArrayVar(&t.keys, "key", nil, "only events with this record key; repeat for several")
	f.StringArrayVar(&t.types, "type", nil, "only events of this type, such as order.placed.v1; repeat for several")
	f.BoolVar(&t.json, "json", false, "print each record as a line of JSON")
	f.IntVar(&t.max, "max", 0, "stop after so many records (default: never)")
	f.StringVar(&t.tokenFile, "token-file", "", "file with a token, for gateways that ask for one; it is read again for each connection")
	f.StringVar(&t.state, "state", "", "file that remembers where a run ended; it wins over --from")
	return cmd
}

// errEnough ends a tail that has printed all it was asked for.
var errEnough = errors.New("enough")

func (t *tailing) run(ctx context.Context) error {
	address, err := t.url()
	if err != nil {
		return usageError{err}
	}
	lastID, err := t.remembered()
	if err != nil {
		return err
	}
	source := eventSource{
		url: address, lastID: lastID, token: t.token, client: newStreamClient(), retry: t.firstRetry, silence: t.longSilence,
		notice: func(s string) { fmt.Fprintln(t.notices, "streamgw:", s) },
	}
	saved := lastID
	save := func(id string) {
		if id == saved {
			return
		}
		if err := t.remember(id); err != nil {
			source.notice(err.Error())
		}
		saved = id
	}
	printed, last := 0, lastID
	source.idle = func(id string) {
		last = id
		save(id)
	}
	source.onEvent = func(e event) error {
		if err := t.print(e, &printed); err != nil {
			return err
		}
		last = e.id
		if t.max > 0 && printed >= t.max {
			return errEnough
		}
		return nil
	}
	err = source.run(ctx)
	save(last)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// url returns where the gateway streams what was asked for.
func (t *tailing) url() (string, error) {
	u, err := url.Parse(t.gateway)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("--url: %q isn't a gateway's address, such as http://127.0.0.1:8080", t.gateway)
	}
	query := url.Values{"topic": t.topics, "format": {"record"}}
	if t.from != "" {
		query.Set("from", t.from)
	}
	if len(t.keys) > 0 {
		query["key"] = t.keys
	}
	if len(t.types) > 0 {
		query["type"] = t.types
	}
	u = u.JoinPath("v1/events")
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// token returns the token to come with, "" for none.
func (t *tailing) token() (string, error) {
	if t.tokenFile == "" {
		return "", nil
	}
	f, err := os.Open(t.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	defer f.Close()
	token, err := readToken(f)
	if err != nil {
		return "", fmt.Errorf("--token-file: %s holds none", t.tokenFile)
	}
	return token, nil
}

// remembered returns the position that an earlier run left in the state file, or "".
func (t *tailing) remembered() (string, error) {
	if t.state == "" {
		return "", nil
	}
	raw, err := os.ReadFile(t.state)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("--state: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// remember puts a position into the state file; a crash meanwhile leaves the old one.
func (t *tailing) remember(id string) error {
	if t.state == "" || id == "" {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(t.state), filepath.Base(t.state)+".*")
	if err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	_, err = io.WriteString(f, id+"\n")
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), t.state)
	}
	if err != nil {
		return fmt.Errorf("--state: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// record is what a gateway sends in format=record.
type record struct {
	Topic         string          `json:"topic"`
	Partition     int32           `json:"partition"`
	Offset        int64           `json:"offset"`
	Timestamp     json.RawMessage `json:"timestamp"`
	Key           json.RawMessage `json:"key"`
	KeyEncoding   string          `json:"keyEncoding"`
	Value         json.RawMessage `json:"value"`
	ValueEncoding string          `json:"valueEncoding"`
}

// print writes an event: a record to standard output, anything else that is worth knowing to standard error.
func (t *tailing) print(e event, printed *int) error {
	switch e.name {
	case "streamgw.gap":
		fmt.Fprintln(t.notices, "streamgw:", gapText(e.data))
		return nil
	case "streamgw.error":
		fmt.Fprintln(t.notices, "streamgw:", printable(string(e.data)))
		return nil
	}
	if strings.HasPrefix(e.name, "streamgw.") && e.name != "streamgw.delete" {
		return nil
	}
	*printed++
	var line bytes.Buffer // a value keeps the line breaks that it was written with
	if err := json.Compact(&line, e.data); err != nil {
		return fmt.Errorf("the gateway sent what isn't a record: %w", err)
	}
	if t.json {
		_, err := fmt.Fprintln(t.out, line.String())
		return err
	}
	var r record
	if err := json.Unmarshal(line.Bytes(), &r); err != nil {
		return fmt.Errorf("the gateway sent what isn't a record: %w", err)
	}
	_, err := fmt.Fprintf(t.out, "%s  %s  %d:%d  %s  %s\n", timeText(r.Timestamp), printable(r.Topic), r.Partition, r.Offset,
		fieldText(r.Key, r.KeyEncoding, "-"), fieldText(r.Value, r.ValueEncoding, "(deleted)"))
	return err
}

func gapText(data []byte) string {
	var gap struct {
		Topic     string
		Partition int32
		From, To  int64
		Reason    string
	}
	if json.Unmarshal(data, &gap) != nil || gap.Topic == "" {
		return "gap: " + printable(string(data))
	}
	return printable(fmt.Sprintf("gap: %s partition %d: offsets from %d are gone (%s); it goes on at %d",
		gap.Topic, gap.Partition, gap.From, gap.Reason, gap.To))
}

// timeText returns a timestamp that is RFC 3339 text or milliseconds since 1970, in local time.
func timeText(raw json.RawMessage) string {
	var at time.Time
	if millis, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		at = time.UnixMilli(millis)
	} else if json.Unmarshal(raw, &at) != nil {
		return printable(string(raw))
	}
	return at.Local().Format("2006-01-02 15:04:05.000")
}

// fieldText returns a key or value on one line. encoding says how it came when it isn't JSON; absent stands for null.
func fieldText(raw json.RawMessage, encoding, absent string) string {
	var s string
	switch {
	case len(raw) == 0 || string(raw) == "null" && encoding == "":
		return absent
	case encoding == "text" && json.Unmarshal(raw, &s) == nil:
		return printable(s)
	case encoding == "base64" && json.Unmarshal(raw, &s) == nil:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return printable(s)
		}
		return fmt.Sprintf("(%d bytes) %s", len(b), s)
	}
	return printable(string(raw))
}

// printable returns s without what a terminal would obey: a record may hold anything.
func printable(s string) string {
	quoted := strconv.Quote(s)
	quoted = quoted[1 : len(quoted)-1]
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted)
}
