# certctl: every task of a developer. "make help" lists them.
SHELL       := /bin/bash
.DEFAULT_GOAL := help
export CGO_ENABLED ?= 0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
PKG     := github.com/certctl/certctl
LDFLAGS := -s -w -X $(PKG)/shared/buildinfo.version=$(VERSION) -X $(PKG)/shared/buildinfo.commit=$(COMMIT)
BINARIES := bin/certctl-agent bin/certctl-coordinator bin/certctl

.PHONY: help
help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-zA-Z_-]*:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the three binaries into bin/
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./agent/cmd/certctl-agent ./coordinator/cmd/certctl-coordinator ./coordinator/cmd/certctl

.PHONY: install
install: ## install what "make build" and "make man" made into $(DESTDIR)/usr/local
	@# Builds nothing: root, under sudo, seldom has Go in its PATH, and should not own what is in bin/.
	@for b in $(BINARIES); do [ -x $$b ] || { echo "there is no $$b: run \"make build\" first" >&2; exit 1; }; done
	install -d $(DESTDIR)/usr/local/bin
	install -m 0755 $(BINARIES) $(DESTDIR)/usr/local/bin/
	@[ ! -d dist/share ] || (cd dist/share && find . -type f -exec install -D -m 0644 {} $(abspath $(DESTDIR)/usr/local/share)/{} \;)

.PHONY: man
man: ## write the manual pages, and the scripts for completion in shells, into dist/share
	rm -rf dist/share
	MANUAL_DIRECTORY=$(CURDIR)/dist/share go test -count=1 -run '^TestManual$$' ./agent/cmd/certctl-agent ./coordinator/cmd/certctl-coordinator ./coordinator/cli

.PHONY: demo
demo: ## watch a host obtain, deploy and renew certificates (DEMO_EXIT=1: unattended)
	@scripts/demo/run.sh

.PHONY: test
test: ## everything that must hold: format, vet, lint, guards, unit and integration tests with -race
	@scripts/test.sh

.PHONY: quick
quick: ## unit tests only, without the race detector
	go test ./...

.PHONY: lint
lint: ## golangci-lint, as in "make test"
	@scripts/setup/tools.sh
	.tools/bin/golangci-lint run ./...

.PHONY: generate
generate: ## regenerate docs/operator/configuration.md, docs/reference/openapi.json, metrics.md, packaging/systemd/*.env and the Go client of the API
	@# The client first: nothing else compiles while it lacks what is used.
	CERTCTL_UPDATE_DOCS=1 go test ./coordinator/api/ ./internal/clientgen/ -run 'Test.*Fresh' -count=1
	CERTCTL_UPDATE_DOCS=1 go test ./internal/docs/ -run 'Test.*Fresh' -count=1

.PHONY: bench
bench: ## benchmarks: schedule, digest, Raft group commit, lists of the API under load
	go test -run '^$$' -bench . -benchmem ./agent/... ./coordinator/... ./shared/...

.PHONY: soak
soak: ## the long runs: hundreds of kill -9, every crash within every recovery, years of outages, a million certificates (an hour or two)
	@scripts/setup/cc.sh && scripts/setup/pebble.sh && scripts/setup/postgres.sh
	CERTCTL_SOAK=1 CGO_ENABLED=1 scripts/with-counts.sh go test -race -count=1 -timeout 4h -v -p 1 -run 'Kill|Crash|YearOfOutages|SmallDisks|Faults|FullDisk|BadNetwork|PostgresIsAway' ./internal/e2e ./internal/crashtest ./agent/renewal ./internal/clusterfaults
	CERTCTL_SOAK=1 go test -count=1 -timeout 1h -v -p 1 -run '^TestScale|ScaleOfADay|SlowOrders' ./coordinator/fleet ./coordinator/daybook ./internal/e2e
	CERTCTL_SOAK=1 go test -count=1 -timeout 1h -v -run 'TestAStorm|TestTenThou' ./coordinator/orders
	CERTCTL_SOAK=1 go test -count=1 -timeout 1h -v -run Cut ./coordinator/history/postgres

.PHONY: test-windows
test-windows: ## run the Windows service verbs under wine (installs wine)
	scripts/test-windows-service.sh

.PHONY: test-systemd
test-systemd: build ## run both services under a real systemd (needs root, debootstrap)
	scripts/test-systemd.sh

.PHONY: clean
clean: ## remove what the build made (.tools stays)
	rm -rf bin dist
