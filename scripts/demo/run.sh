#!/usr/bin/env bash
# Builds what the demonstration needs and hands over to it.
#   DEMO_EXIT=1   stop by itself after the last step; exit 0 only if every step was seen
set -euo pipefail
cd "$(dirname "$0")/../.."

echo "building certctl"
make --no-print-directory build
scripts/setup/pebble.sh
scripts/setup/nginx.sh || echo "nginx cannot be had here: the demonstration serves with a small TLS server of its own"

# The demonstration is built first, so that Ctrl-C reaches it and not "go run".
mkdir -p .tools/bin
go build -o .tools/bin/certctl-demo ./scripts/demo
exec .tools/bin/certctl-demo
