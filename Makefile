# make        what CI runs
# make test   format, vet, staticcheck, tests under the race detector, each fuzz target for a short while
# make test-all   the scenarios of test/ with real components: Kafka, Traefik, Chromium
# make bench  the benchmarks
# make build  ./streamgw

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := ci

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)
FUZZTIME ?= 5s
BENCH    ?= .
COUNT    ?= 1

.PHONY: ci test test-all lint unit fuzz bench build

ci: test test-all

test: lint unit fuzz

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "gofmt -w these:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags integration ./...
	go tool staticcheck -tags integration ./...

unit:
	go test -race -timeout 5m ./...

# Each target by itself: go test takes one at a time.
fuzz:
	@for file in $$(git grep -l '^func Fuzz' -- '*_test.go' || true); do \
	  for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
	    echo "fuzz $$target in $$(dirname "$$file") for $(FUZZTIME)"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"; \
	  done; \
	done

test-all:
	test/run

bench:
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./internal/... ./cmd/...

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o streamgw ./cmd/streamgw
