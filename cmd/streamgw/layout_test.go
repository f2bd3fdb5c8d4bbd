package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/goodgo/streamgw"

// mayImport is the map of the program: which packages of ours a package may import. A directory that isn't listed takes the
// line of the nearest one above it that ends in "/...". An internal package without a line is an error: a new idea
// first tries to be a file in one of these.
func mayImport() map[string][]string {
	return map[string][]string{
		"cmd/streamgw": {"internal/auth", "internal/bench", "internal/consumer", "internal/devbroker", "internal/expr", "internal/fanout", "internal/gateway",
			"internal/kafka", "internal/outbox", "internal/schema", "internal/stream", "internal/telemetry"},

		"internal/gateway": {"internal/auth", "internal/fanout", "internal/stream"},
		"internal/fanout":  {"internal/stream"},

		"internal/auth":     {"internal/stream"},
		"internal/kafka":    {"internal/stream"},
		"internal/schema":   {"internal/stream"},
		"internal/outbox":   {"internal/stream"},
		"internal/consumer": {"internal/stream"},
		"internal/expr":     {"internal/stream"},

		"internal/stream":            {},
		"internal/stream/streamtest": {"internal/stream"},
		"internal/bench":             {},
		"internal/devbroker":         {},
		"internal/telemetry":         {},

		"events":       {"internal/consumer", "internal/kafka", "internal/stream"},
		"examples/...": {"events"},
		"test/...":     {"internal/bench", "internal/devbroker", "internal/kafka", "internal/stream", "internal/stream/streamtest", "test/..."},
	}
}

// testsMayImport is what every *_test.go may import beside its package's own: the brokers to test against, the promises to
// test for, and the words to do it with.
func testsMayImport() []string {
	return []string{"internal/devbroker", "internal/kafka", "internal/stream", "internal/stream/streamtest"}
}

// onlyImportedBy keeps a module that is hard to live with in one place, beside the program to compare with.
func onlyImportedBy() map[string][]string {
	return map[string][]string{"github.com/IBM/sarama": {"internal/kafka", "test/bench/grouper"}}
}

// noIdea are names that say nothing about what a package holds.
func noIdea() []string {
	return []string{"util", "utils", "helper", "helpers", "common", "misc", "shared", "lib", "base"}
}

func TestEveryImportIsAnArrowOfTheMap(t *testing.T) {
	files := goFiles(t)
	if len(files) < 10 {
		t.Fatalf("found only %d Go files: this test looks in the wrong place", len(files))
	}
	for _, name := range files {
		for _, complaint := range complaints(name, parse(t, name)) {
			t.Error(complaint)
		}
	}
}

// complaints says what a file imports that it may not. name is relative to the module's root.
func complaints(name string, file *ast.File) (found []string) {
	dir, isTest := path.Dir(name), strings.HasSuffix(name, "_test.go")
	allowed, ok := lineOf(dir)
	if !ok {
		return []string{name + ": mayImport has no line for " + dir}
	}
	if slices.Contains(noIdea(), file.Name.Name) {
		found = append(found, name+": the package's name, "+file.Name.Name+", doesn't say what it holds")
	}
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		for only, owners := range onlyImportedBy() {
			if (imported == only || strings.HasPrefix(imported, only+"/")) && !slices.Contains(owners, dir) {
				found = append(found, name+": imports "+imported+", which only "+owners[0]+" does")
			}
		}
		ours, ok := strings.CutPrefix(imported, module+"/")
		if !ok || ours == dir || covers(allowed, ours) || isTest && slices.Contains(testsMayImport(), ours) {
			continue
		}
		found = append(found, name+": imports "+ours+", an arrow that the map doesn't have")
	}
	return found
}

// lineOf returns the line of a directory, or of the nearest one above it that covers it.
func lineOf(dir string) ([]string, bool) {
	if line, ok := mayImport()[dir]; ok {
		return line, true
	}
	for up := dir; up != "."; up = path.Dir(up) {
		if line, ok := mayImport()[up+"/..."]; ok {
			return line, true
		}
	}
	return nil, false
}

// covers reports whether a line lists a package, itself or by a directory above it.
func covers(line []string, pkg string) bool {
	return slices.ContainsFunc(line, func(l string) bool {
		above, isTree := strings.CutSuffix(l, "/...")
		return l == pkg || isTree && (pkg == above || strings.HasPrefix(pkg, above+"/"))
	})
}

func TestEveryArrowOfTheMapHasALineAtItsEnd(t *testing.T) {
	lines := mayImport()
	for from, line := range lines {
		for _, to := range line {
			if _, ok := lines[to]; !ok {
				t.Errorf("%s may import %s, which has no line", from, to)
			}
		}
	}
}

func TestEveryPackageSaysWhatItPromises(t *testing.T) {
	documented := map[string]bool{}
	for _, name := range goFiles(t) {
		if !strings.HasSuffix(name, "_test.go") {
			documented[path.Dir(name)] = documented[path.Dir(name)] || parse(t, name).Doc != nil
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(documented)) {
		if !documented[dir] {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func TestTheMapIsEnforced(t *testing.T) {
	for name, tt := range map[string]struct{ file, source, want string }{
		"an arrow upwards":           {"internal/stream/a.go", `import _ "github.com/goodgo/streamgw/internal/kafka"`, "imports internal/kafka, an arrow"},
		"between siblings":           {"internal/kafka/a.go", `import _ "github.com/goodgo/streamgw/internal/schema"`, "imports internal/schema, an arrow"},
		"a test with a real broker":  {"internal/fanout/a_test.go", `import _ "github.com/goodgo/streamgw/internal/devbroker"`, ""},
		"a test of a sibling":        {"internal/fanout/a_test.go", `import _ "github.com/goodgo/streamgw/internal/gateway"`, "imports internal/gateway, an arrow"},
		"a test from outside":        {"internal/fanout/a_test.go", `import _ "github.com/goodgo/streamgw/internal/fanout"`, ""},
		"a package without a line":   {"internal/queue/a.go", ``, "no line for internal/queue"},
		"sarama in its place":        {"internal/kafka/a.go", `import _ "github.com/IBM/sarama"`, ""},
		"sarama elsewhere":           {"internal/fanout/a_test.go", `import _ "github.com/IBM/sarama/mocks"`, "which only internal/kafka does"},
		"an example of its own":      {"examples/webhook/a.go", `import _ "github.com/goodgo/streamgw/internal/stream"`, "imports internal/stream, an arrow"},
		"a scenario that shares":     {"test/traefik/a_test.go", `import _ "github.com/goodgo/streamgw/test/process"`, ""},
		"something from the library": {"internal/stream/a.go", `import _ "strings"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := parser.ParseFile(token.NewFileSet(), tt.file, "package a\n"+tt.source, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(complaints(tt.file, file), "\n")
			if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	file, err := parser.ParseFile(token.NewFileSet(), "a.go", "package util", parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	if got := complaints("internal/stream/a.go", file); len(got) != 1 {
		t.Errorf("a package util: got %q", got)
	}
}

// root is the module's, from this directory.
const root = "../.."

// goFiles returns every Go file of the module, relative to its root.
func goFiles(t *testing.T) (files []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := path.Base(name); d.IsDir() && (base != "." && strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules") {
			return fs.SkipDir
		}
		if strings.HasSuffix(name, ".go") {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func parse(t *testing.T, name string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return file
}
