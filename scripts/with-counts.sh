#!/usr/bin/env bash
# Runs a command, usually go test, and then prints what tests of whole properties
# say that they covered (internal/counts): faults tried, promises broken. What was
# counted is printed also when the command fails.
#
# CERTCTL_COUNTS_REQUIRED names a file of lines "NAME" or "NAME 0": every one of
# them must have been counted, and be more than 0, or 0 where it says so. A line
# that ends with "root" is about a test that mounts file systems, and only root can;
# one that ends with "netns" about a test that makes network namespaces, which in a
# container root may not either; one that ends with "history" about one that builds
# the version before this one from the history, which a shallow clone or an archive of
# the source lacks.
set -euo pipefail
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
export CERTCTL_COUNTS_FILE=$counts

# netns says whether this process may make network namespaces with interfaces.
netns() {
	local capabilities
	capabilities=$(awk '/^CapEff:/ { print $2 }' /proc/self/status)
	((16#$capabilities >> 12 & 1)) && # CAP_NET_ADMIN
		unshare --net sh -c 'exec 3<>/dev/net/tun' 2>/dev/null
}

status=0
"$@" || status=$?
printf '\n== counts\n'
sort "$counts" | awk -F '\t' '{ printf "%-36s %8d  %s\n", $1, $2, $3 }'
if [ "$status" -eq 0 ] && [ -n "${CERTCTL_COUNTS_REQUIRED:-}" ]; then
	namespaces=1
	netns || { namespaces=0; echo "not required, for no network namespaces can be made here: $(grep -c ' netns$' "$CERTCTL_COUNTS_REQUIRED") counts"; }
	previous=$(grep -v '^#' internal/upgrade/previous.txt)
	history=1
	git cat-file -e "$previous^{commit}" 2>/dev/null || { history=0; echo "not required, for the history does not reach back to $previous: $(grep -c ' history$' "$CERTCTL_COUNTS_REQUIRED") counts"; }
	awk -F '\t' -v user="$(id -u)" -v namespaces="$namespaces" -v history="$history" '
		FILENAME == ARGV[1] { counted[$1] = 1; sum[$1] += $2; next }
		/^#/ || !NF { next }
		user != 0 && / root$/ { next }
		!namespaces && / netns$/ { next }
		!history && / history$/ { next }
		{ split($0, word, " "); name = word[1] }
		!(name in counted) { print "not counted: " name; bad = 1; next }
		word[2] == "0" && sum[name] != 0 { print name " is " sum[name] ", and must be 0"; bad = 1 }
		word[2] != "0" && sum[name] <= 0 { print name " is " sum[name] ": nothing was tried"; bad = 1 }
		END { exit bad }
	' "$counts" "$CERTCTL_COUNTS_REQUIRED" >&2 || status=1
fi
exit "$status"
