package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goodgo/streamgw/internal/auth"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// sources is where a configuration comes from, the weakest first: file, environment, flags.
type sources struct {
	file  string         // "": none
	env   []string       // NAME=value each, as os.Environ returns them
	flags *pflag.FlagSet // those of addFlags; nil: none
}

// addFlags gives flags a flag for each of rows. They say what the default is; load puts in what was given.
func addFlags(flags *pflag.FlagSet, rows []setting) {
	for _, s := range rows {
		if s.secret {
			continue
		}
		f := flags.VarPF(s.value, s.flag(), "", s.help)
		if _, ok := s.value.(boolean); ok {
			f.NoOptDefVal = "true" // the flag may stand alone
		}
	}
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "brokers" {
			name = "kafka-brokers"
		}
		return pflag.NormalizedName(name)
	})
}

// load fills a configuration from its sources. Its problems are all that these sources say wrongly; whether the
// whole can work is for Config.problems.
func load(from sources) (Config, Problems) {
	c := defaultConfig()
	l := loader{env: map[string]string{}}
	for _, e := range from.env {
		name, v, _ := strings.Cut(e, "=")
		l.env[name] = v
	}
	if file := from.file; file != "" {
		l.readFile(&c, file)
	}
	l.readEnv(settings(&c))
	if from.flags != nil {
		for _, s := range settings(&c) {
			if f := from.flags.Lookup(s.flag()); f != nil && f.Changed {
				l.set("--"+s.flag(), s, f.Value.String())
			}
		}
	}
	return c, l.problems
}

// loader collects what is wrong on the way.
type loader struct {
	env      map[string]string
	file     string
	problems Problems
}

// set puts text into a setting; where is what to name when it doesn't fit.
func (l *loader) set(where string, s setting, text string) {
	if err := s.value.Set(text); err != nil {
		l.problems.add(where, "%v", err)
	}
}

// readEnv takes every STREAMGW_ variable. An empty one counts as not set: Compose passes on what has no value so.
func (l *loader) readEnv(rows []setting) {
	for _, name := range slices.Sorted(maps.Keys(l.env)) {
		if !strings.HasPrefix(name, "STREAMGW_") || l.env[name] == "" || name == configEnv || isServiceLink(name) || strings.HasPrefix(name, testEnv) {
			continue
		}
		i := slices.IndexFunc(rows, func(s setting) bool { return s.env() == name })
		switch {
		case i >= 0:
			l.set(name, rows[i], l.env[name])
		case slices.ContainsFunc(entryLists(), func(path string) bool { return name == envName(path) }):
			l.problems.add(name, "is a list of entries: set it in the file")
		case slices.ContainsFunc(later(), func(path string) bool { return name == envName(path) || strings.HasPrefix(name, envName(path)+"_") }):
			l.problems.add(name, "not available in this version")
		default:
			known := []string{configEnv}
			for _, s := range rows {
				known = append(known, s.env())
			}
			l.problems.add(name, "unknown setting; did you mean %s?", nearest(name, known))
		}
	}
}

// entryLists are the settings whose values are lists of entries.
func entryLists() []string { return []string{"topics", "auth.issuers", "auth.policies"} }

// configEnv names the configuration file where no flag does.
const configEnv = "STREAMGW_CONFIG"

// testEnv begins the variables of this project's own tests, which streamgw passes over.
const testEnv = "STREAMGW_TEST_"

// isServiceLink reports whether Kubernetes sets this variable for a Service whose name begins with streamgw.
// https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
func isServiceLink(name string) bool {
	return regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`).MatchString(name)
}

// readFile takes every setting of a YAML file.
func (l *loader) readFile(c *Config, file string) {
	f, err := os.Open(file)
	if err != nil {
		l.problems.add("--config", "%v", err)
		return
	}
	defer f.Close()
	l.file = file
	var document, more yaml.Node
	d := yaml.NewDecoder(f)
	switch err := d.Decode(&document); {
	case errors.Is(err, io.EOF):
		return // nothing in it
	case err != nil:
		l.problems.add(file, "%v", err)
		return
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		l.problems.add(file, "has a second document (after a line ---); only one is read")
	}
	rows := settings(c)
	l.mapping(document.Content[0], "", group{rows: rows, later: later(), lists: map[string]func(*yaml.Node){
		"topics":        func(n *yaml.Node) { entries(l, n, "topics", "a match", &c.Topics, topicGroup) },
		"auth.issuers":  func(n *yaml.Node) { entries(l, n, "auth.issuers", "an issuer", &c.Auth.Issuers, issuerGroup) },
		"auth.policies": func(n *yaml.Node) { entries(l, n, "auth.policies", "rules", &c.Auth.Policies, l.policyGroup) },
	}})
}

// entries takes a list of entries, each of which holds what group says: with is the least of that.
func entries[T any](l *loader, n *yaml.Node, path, with string, to *[]T, groupOf func(to *T, at string) group) {
	if n.Kind != yaml.SequenceNode {
		l.problem(n, path, "must be a list of entries, each with %s", with)
		return
	}
	*to = make([]T, len(n.Content))
	for i, entry := range n.Content {
		at := fmt.Sprintf("%s[%d].", path, i)
		l.mapping(resolve(entry), at, groupOf(&(*to)[i], at))
	}
}

// topicGroup is that of an entry whose window has the default bounds where it doesn't say others.
func topicGroup(to *TopicConfig, _ string) group {
	*to = defaultTopic("")
	return group{rows: topicSettings(to), later: laterTopic()}
}

func issuerGroup(to *auth.Issuer, _ string) group { return group{rows: issuerSettings(to)} }

func (l *loader) policyGroup(to *auth.Policy, at string) group {
	return group{rows: policySettings(to), lists: map[string]func(*yaml.Node){
		"subscribe": func(n *yaml.Node) {
			entries(l, n, at+"subscribe", "a topic", &to.Subscribe, func(r *auth.ReadRule, _ string) group { return group{rows: readRuleSettings(r)} })
		},
		"publish": func(n *yaml.Node) {
			entries(l, n, at+"publish", "a topic", &to.Publish, func(w *auth.WriteRule, _ string) group { return group{rows: writeRuleSettings(w)} })
		},
	}}
}

// group is what a part of the file may hold.
type group struct {
	rows  []setting
	later []string
	lists map[string]func(*yaml.Node) // by path: what isn't a row
}

// known returns every path that may stand in the group, and those of the groups in it.
func (g group) known() []string {
	known := slices.Collect(maps.Keys(g.lists))
	for _, s := range g.rows {
		known = append(known, s.path)
		for p := parent(s.path); p != ""; p = parent(p) {
			known = append(known, p)
		}
	}
	slices.Sort(known)
	return slices.Compact(known)
}

func parent(path string) string { return path[:max(0, strings.LastIndexByte(path, '.'))] }

// mapping takes the settings of one mapping of the file, and of those in it. at is what stands before their paths in messages.
func (l *loader) mapping(n *yaml.Node, at string, g group) {
	l.within(n, at, "", g)
}

// within is mapping for the group whose path, relative to at, is prefix.
func (l *loader) within(n *yaml.Node, at, prefix string, g group) {
	if n.Kind != yaml.MappingNode {
		if n.Tag != "!!null" {
			l.problem(n, strings.TrimSuffix(at+prefix, "."), "must hold settings, each as name: value")
		}
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i], resolve(n.Content[i+1])
		path := prefix + key.Value
		if seen[path] {
			l.problem(key, at+path, "is set twice")
			continue
		}
		seen[path] = true
		l.entry(key, v, at, path, g)
	}
}

// entry takes what one key of the file holds.
func (l *loader) entry(key, v *yaml.Node, at, path string, g group) {
	isGroup := slices.ContainsFunc(g.rows, func(s setting) bool { return strings.HasPrefix(s.path, path+".") })
	switch i := slices.IndexFunc(g.rows, func(s setting) bool { return s.path == path }); {
	case i >= 0:
		l.scalar(v, at, g.rows[i])
	case isGroup:
		l.within(v, at, path+".", g)
	case g.lists[path] != nil:
		g.lists[path](v)
	case isLater(g.later, path):
		l.problem(key, at+path, "not available in this version")
	default:
		l.problem(key, at+path, "unknown setting; did you mean %s?", at+nearest(path, g.known()))
	}
}

// scalar takes one value; a list may be written as a list or with commas.
func (l *loader) scalar(v *yaml.Node, at string, s setting) {
	texts := []*yaml.Node{v}
	if s.value.Type() == "list" && v.Kind == yaml.SequenceNode {
		texts = v.Content
	}
	var parts []string
	for _, t := range texts {
		t = resolve(t)
		if t.Kind != yaml.ScalarNode {
			l.problem(t, at+s.path, "must be a single value")
			return
		}
		expanded, unset := expand(t.Value, l.env)
		switch null := t.Tag == "!!null"; {
		case unset != "":
			l.problem(t, at+s.path, "${%s} is not set in the environment", unset)
			return
		case s.bounds && (null || expanded == ""):
			l.problem(t, at+s.path, "has no value; leave it out where nothing is to be restricted")
			return
		case null:
			continue // as if it weren't there
		}
		parts = append(parts, expanded)
	}
	if whole, ok := s.value.(interface{ SetAll([]string) error }); ok {
		if v.Tag != "!!null" {
			_ = whole.SetAll(parts) // anything will do
		}
	} else if len(parts) > 0 {
		l.set(l.where(v, at+s.path), s, strings.Join(parts, ","))
	}
}

func (l *loader) where(n *yaml.Node, path string) string {
	return fmt.Sprintf("%s:%d: %s", l.file, n.Line, path)
}

func (l *loader) problem(n *yaml.Node, path, format string, args ...any) {
	l.problems.add(l.where(n, path), format, args...)
}

// resolve returns the node that an alias stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// expand replaces each ${NAME} by the variable's value; $${ stands for ${ itself. unset names a variable that there isn't.
func expand(s string, env map[string]string) (expanded, unset string) {
	expanded = regexp.MustCompile(`\$?\$\{[A-Za-z_][A-Za-z0-9_]*\}`).ReplaceAllStringFunc(s, func(found string) string {
		if strings.HasPrefix(found, "$$") {
			return found[1:]
		}
		name := found[2 : len(found)-1]
		v, ok := env[name]
		if !ok {
			unset = name
		}
		return v
	})
	return expanded, unset
}
