#!/usr/bin/env bash
# Everything that must hold before a change lands. Installs what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "set-up"
scripts/setup/cc.sh
scripts/setup/tools.sh
scripts/setup/nginx.sh
scripts/setup/postgres.sh
scripts/setup/pebble.sh
scripts/setup/stepca.sh

step "format"
unformatted=$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l)
if [ -n "$unformatted" ]; then
	printf 'not formatted (run gofmt -w):\n%s\n' "$unformatted" >&2
	exit 1
fi

step "modules"
go mod verify
go mod tidy -diff

step "vet"
CGO_ENABLED=0 go vet ./...

step "the other platforms compile, tests too"
for target in windows/amd64 linux/arm64; do
	echo "$target"
	GOOS=${target%/*} GOARCH=${target#*/} CGO_ENABLED=0 go vet ./...
done

# vet links nothing.
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
GOOS=windows CGO_ENABLED=0 go build -o "$programs" ./agent/cmd/... ./coordinator/cmd/...

step "lint"
CGO_ENABLED=0 .tools/bin/golangci-lint run ./...

step "guards"
scripts/ci-guards/run.sh

step "tests"
# Packages run two at a time: several of them start real servers.
CERTCTL_COUNTS_REQUIRED=scripts/counts.txt CGO_ENABLED=1 scripts/with-counts.sh go test -race -count=1 -timeout 15m -p 2 ./...
