#!/usr/bin/env bash
# Builds the pinned linter into .tools/bin. Idempotent; prints nothing when
# there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=v2.15.0
bin=.tools/bin/golangci-lint
if [ -x "$bin" ] && "$bin" version 2>/dev/null | grep -qF "${version#v}"; then
	exit 0
fi
mkdir -p .tools/bin
echo "building golangci-lint $version (about a minute, once)"
GOBIN="$PWD/.tools/bin" GOFLAGS= go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
