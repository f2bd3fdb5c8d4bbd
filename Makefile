# make        what CI runs
# make test   format, vet, staticcheck, tests under the race detector, the counts of benchmarks, each fuzz target for some thousand inputs
# make test-all   the scenarios of test/ with real components: Kafka, Traefik, Chromium
# make bench  the table of docs/performance.md, measured with a real Kafka in ten minutes at most;
#             BENCH='sse|floor' takes the rows whose names match, BENCH_RUNS=3 the median of three
# make microbench   Go's benchmarks; BENCH=Fanout takes some, COUNT=10 repeats them for benchstat
# make kept   what can be counted in Go's benchmarks, against the counts that are committed
# make build  ./streamgw

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := ci

VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null)
FUZZTIME   ?= 20000x
BENCH      ?= .
BENCH_RUNS ?= 1
BENCH_RESULTS ?= .cache/bench
COUNT      ?= 1

.PHONY: ci test test-all lint unit kept fuzz bench microbench build

ci: test test-all

test: lint unit kept fuzz

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "gofmt -w these:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags integration ./...
	go tool staticcheck -tags integration ./...

unit:
	go test -race -timeout 5m ./...

kept:
	go run ./test/bench/kept

# Each target by itself: go test takes one at a time. A count of inputs rather than a time: the end of a time can
# meet a worker in mid-answer, and is then told as a failure ("context deadline exceeded").
fuzz:
	@for file in $$(git grep -l '^func Fuzz' -- '*_test.go' || true); do \
	  for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
	    echo "fuzz $$target in $$(dirname "$$file") with $(FUZZTIME)"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1000x "./$$(dirname "$$file")"; \
	  done; \
	done

test-all:
	test/run

# Built rather than run by go run, which passes on no signal: an interrupted table ends its Kafka too.
bench:
	go build -o .cache/bin/bench ./test/bench
	.cache/bin/bench -rows '$(BENCH)' -runs $(BENCH_RUNS) -results '$(BENCH_RESULTS)'

microbench:
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./internal/... ./cmd/...

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o streamgw ./cmd/streamgw
