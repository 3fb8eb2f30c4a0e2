#!/usr/bin/env bash
# Runs a command, usually go test, and then prints what tests of whole properties
# say that they covered (internal/counts): faults tried, promises broken. What was
# counted is printed also when the command fails.
set -euo pipefail
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
export CERTCTL_COUNTS_FILE=$counts

status=0
"$@" || status=$?
printf '\n== counts\n'
sort "$counts" | awk -F '\t' '{ printf "%-36s %8d  %s\n", $1, $2, $3 }'
exit "$status"
