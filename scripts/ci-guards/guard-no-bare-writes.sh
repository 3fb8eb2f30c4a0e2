#!/usr/bin/env bash
# Nothing in agent/ and shared/ writes, renames, removes or syncs a file outside
# of a durable step: where there is no step, no test can crash.
set -euo pipefail
# shellcheck source=scripts/ci-guards/tree.sh
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

# See guard-no-bare-tickers.sh.
cd "$guard_dir"
findings=$(guard_files '*.go' | go run ./writes "$guard_root")
guard_report guard-no-bare-writes "$findings" \
  'do it in a step of its own (Hook.Around, shared/durable), or give the reason in scripts/ci-guards/writes/allowed.go'
