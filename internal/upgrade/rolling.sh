#!/usr/bin/env bash
# Upgrades a cluster of three nodes from an earlier version to this one, node by
# node and under load: internal/upgrade/rolling.sh COMMIT
set -euo pipefail
if (($# != 1)); then
  sed -n '2,3s/^# //p' "$0" >&2
  exit 2
fi
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
finish() {
  git -C "$top" worktree remove --force "$work/source" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
git -C "$top" worktree add --quiet --detach "$work/source" "$1"
(cd "$work/source" && CGO_ENABLED=0 go build -trimpath -o "$work/" ./coordinator/cmd/certctl-coordinator)
cd "$top"
CERTCTL_PREVIOUS=$work/certctl-coordinator CGO_ENABLED=0 go test -count=1 -v -timeout 30m -run '^TestRollingUpgrade$' ./internal/e2e
