#!/usr/bin/env bash
# No time.NewTicker, time.Tick or time.Sleep outside shared/jitter and
# shared/backoff, nor a timer that a loop or its own function starts again:
# periodic loops without jitter march in step across a fleet.
set -euo pipefail
# shellcheck source=scripts/ci-guards/tree.sh
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

# The files are handed over relative to the root, the program runs in its own
# module: the tree that is checked need not be a module.
cd "$guard_dir"
findings=$(guard_files '*.go' | go run ./tickers "$guard_root")
guard_report guard-no-bare-tickers "$findings" \
  'drive loops with jitter.Loop or jitter.NewJitteredTicker (shared/jitter), wait with backoff.Wait (shared/backoff)'
