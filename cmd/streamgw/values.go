package main

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goodgo/streamgw/internal/auth"
)

// value is one place in a Config that text can be put into. It is also a flag's value (pflag.Value).
type value interface {
	Set(text string) error // the error says what is expected, not which setting
	String() string        // what it holds now, as Set takes it
	Type() string          // one word for --help
}

type text struct{ to *string }

func (v text) Set(s string) error { *v.to = s; return nil }
func (v text) String() string     { return *v.to }
func (v text) Type() string       { return "text" }

// address is where to listen.
type address struct{ to *string }

func (v address) Set(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q isn't an address to listen on, such as :8080 or 127.0.0.1:8080", s)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > math.MaxUint16 {
		return fmt.Errorf("%q has no port between 0 and 65535", s)
	}
	*v.to = s
	return nil
}
func (v address) String() string { return *v.to }
func (v address) Type() string   { return "address" }

// list is texts joined by commas, each checked.
type list struct {
	to    *[]string
	check func(string) error
}

func (v list) Set(s string) error {
	var all []string
	for one := range strings.SplitSeq(s, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		if err := v.check(one); err != nil {
			return err
		}
		all = append(all, one)
	}
	*v.to = all
	return nil
}
func (v list) String() string { return strings.Join(*v.to, ",") }
func (v list) Type() string   { return "list" }

// broker is the check of a list of brokers. A port that is left out is 9092.
func broker(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil && !strings.ContainsAny(s, ":/ ") {
		return nil // a host alone
	}
	if n, perr := strconv.Atoi(port); err != nil || host == "" || perr != nil || n < 1 || n > math.MaxUint16 {
		return fmt.Errorf("%q isn't a broker, which is host:port, such as kafka:9092", s)
	}
	return nil
}

// origin is the check of a list of origins.
func origin(s string) error {
	u, err := url.Parse(s)
	if s != "*" && (err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.Scheme+"://"+u.Host != s) {
		return fmt.Errorf("%q isn't an origin, which is scheme://host or scheme://host:port without a path, such as https://app.example", s)
	}
	return nil
}

// choice is one of a few words.
type choice struct {
	to   *string
	from []string
}

func (v choice) Set(s string) error {
	if !slices.Contains(v.from, s) {
		return fmt.Errorf("%q isn't one of %s", s, strings.Join(v.from, ", "))
	}
	*v.to = s
	return nil
}
func (v choice) String() string { return *v.to }
func (v choice) Type() string   { return "word" }

type boolean struct{ to *bool }

func (v boolean) Set(s string) error {
	switch s {
	case "true":
		*v.to = true
	case "false":
		*v.to = false
	default:
		return fmt.Errorf("%q isn't true or false", s)
	}
	return nil
}
func (v boolean) String() string { return strconv.FormatBool(*v.to) }
func (v boolean) Type() string   { return "bool" }

// count is a whole number from 1.
type count struct{ to *int }

func (v count) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return fmt.Errorf("%q isn't a whole number from 1", s)
	}
	*v.to = n
	return nil
}
func (v count) String() string { return strconv.Itoa(*v.to) }
func (v count) Type() string   { return "number" }

// bound is a whole number, of which 0 is no bound.
type bound struct{ to *int }

func (v bound) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return fmt.Errorf("%q isn't a whole number; 0 is no bound", s)
	}
	*v.to = n
	return nil
}
func (v bound) String() string { return strconv.Itoa(*v.to) }
func (v bound) Type() string   { return "number" }

// rate is a number a second, of which 0 is no bound.
type rate struct{ to *float64 }

func (v rate) Set(s string) error {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || !(n >= 0 && n <= math.MaxInt32) {
		return fmt.Errorf("%q isn't a number a second, such as 5 or 0.5; 0 is no bound", s)
	}
	*v.to = n
	return nil
}
func (v rate) String() string { return strconv.FormatFloat(*v.to, 'g', -1, 64) }
func (v rate) Type() string   { return "number" }

// networks is addresses and networks joined by commas.
type networks struct{ to *[]netip.Prefix }

func (v networks) Set(s string) error {
	var given []string
	_ = list{&given, anything}.Set(s)
	var all []netip.Prefix
	for _, one := range given {
		p, err := netip.ParsePrefix(one)
		if addr, aerr := netip.ParseAddr(one); aerr == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("%q isn't an address or a network, such as 10.0.0.1 or 10.0.0.0/8", one)
		}
		all = append(all, p.Masked())
	}
	*v.to = all
	return nil
}

func (v networks) String() string {
	var all []string
	for _, p := range *v.to {
		all = append(all, p.String())
	}
	return strings.Join(all, ",")
}
func (v networks) Type() string { return "list" }

// anything is the check of a list that others check.
func anything(string) error { return nil }

// texts is a list that stands in the file only, where an empty one isn't the same as none.
type texts struct{ to *auth.Texts }

func (v texts) Set(s string) error        { return v.SetAll([]string{s}) }
func (v texts) SetAll(all []string) error { *v.to = append(auth.Texts{}, all...); return nil }
func (v texts) String() string            { return strings.Join(*v.to, ",") }
func (v texts) Type() string              { return "list" }

// age is a duration that may be none, and may not be there.
type age struct{ to **auth.Age }

func (v age) Set(s string) error {
	d := new(time.Duration)
	if err := (pause{d}).Set(s); err != nil {
		return err
	}
	*v.to = (*auth.Age)(d)
	return nil
}

func (v age) String() string {
	if *v.to == nil {
		return ""
	}
	return pause{(*time.Duration)(*v.to)}.String()
}
func (v age) Type() string { return "duration" }

type duration struct{ to *time.Duration }

func (v duration) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q isn't a duration, such as 500ms, 10s, 10m or 1h30m", s)
	}
	*v.to = d
	return nil
}

func (v duration) String() string {
	s := v.to.String() // 10m0s
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
func (v duration) Type() string { return "duration" }

// pause is a duration that may be none.
type pause struct{ to *time.Duration }

func (v pause) Set(s string) error {
	if d, err := time.ParseDuration(s); err == nil && d == 0 {
		*v.to = 0
		return nil
	}
	return duration(v).Set(s)
}
func (v pause) String() string { return duration(v).String() }
func (v pause) Type() string   { return "duration" }

// skew is a pause for whose owner none is below zero, and zero means another's.
type skew struct{ to *time.Duration }

func (v skew) Set(s string) error {
	err := (pause(v)).Set(s)
	if err == nil && *v.to == 0 {
		*v.to = -1
	}
	return err
}

func (v skew) String() string {
	if *v.to == 0 {
		return ""
	}
	d := max(0, *v.to)
	return pause{&d}.String()
}
func (v skew) Type() string { return "duration" }

// size is bytes.
type size struct{ to *int64 }

// unit is a unit of sizes. The larger of equal kind come first, so that String finds the shortest way to write one.
type unit struct {
	name  string
	bytes int64
}

func units() []unit {
	return []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1}}
}

func (v size) Set(s string) error {
	number, per := s, int64(1)
	for _, u := range units() {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, per = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64/per {
		return fmt.Errorf("%q isn't a size, such as 512KiB, 64MiB or 1GiB", s)
	}
	*v.to = n * per
	return nil
}

func (v size) String() string {
	for _, u := range units() {
		if *v.to >= u.bytes && *v.to%u.bytes == 0 {
			return strconv.FormatInt(*v.to/u.bytes, 10) + u.name
		}
	}
	return "0"
}
func (v size) Type() string { return "size" }
