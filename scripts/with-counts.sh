#!/usr/bin/env bash
# Runs a command, usually go test, and then prints what tests of whole properties
# say that they covered (internal/counts): faults tried, promises broken. What was
# counted is printed also when the command fails.
#
# CERTCTL_COUNTS_REQUIRED names a file of lines "NAME" or "NAME 0": every one of
# them must have been counted, and be more than 0, or 0 where it says so. A line
# that ends with "root" is about a test that mounts file systems, and only root can.
set -euo pipefail
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
export CERTCTL_COUNTS_FILE=$counts

status=0
"$@" || status=$?
printf '\n== counts\n'
sort "$counts" | awk -F '\t' '{ printf "%-36s %8d  %s\n", $1, $2, $3 }'
if [ "$status" -eq 0 ] && [ -n "${CERTCTL_COUNTS_REQUIRED:-}" ]; then
	awk -F '\t' -v user="$(id -u)" '
		NR == FNR { counted[$1] = 1; sum[$1] += $2; next }
		/^#/ || !NF { next }
		user != 0 && / root$/ { next }
		{ split($0, word, " "); name = word[1] }
		!(name in counted) { print "not counted: " name; bad = 1; next }
		word[2] == "0" && sum[name] != 0 { print name " is " sum[name] ", and must be 0"; bad = 1 }
		word[2] != "0" && sum[name] <= 0 { print name " is " sum[name] ": nothing was tried"; bad = 1 }
		END { exit bad }
	' "$counts" "$CERTCTL_COUNTS_REQUIRED" >&2 || status=1
fi
exit "$status"
