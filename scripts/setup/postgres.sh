#!/usr/bin/env bash
# Installs PostgreSQL from the distribution (Debian and its relatives) for the
# tests, which start servers of their own from directories of their own.
# Idempotent; prints nothing when PostgreSQL is there already. The distribution's
# service is neither started nor enabled, and it gets no cluster.
#
# Exit status: 0 PostgreSQL is there, 3 it cannot be had on this machine.
set -euo pipefail

there() {
	{ command -v initdb && command -v postgres || compgen -G '/usr/lib/postgresql/*/bin/initdb'; } >/dev/null
}

if there; then
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "PostgreSQL is missing and this machine has no apt-get: install its server, 14 or later, by hand" >&2
	exit 3
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! sudo -n true 2>/dev/null; then
		echo "PostgreSQL is missing: install it with 'sudo apt-get install postgresql', or run this as root" >&2
		exit 3
	fi
	as_root=(sudo -n)
fi

# Debian's packages make a cluster and start their service when they are
# installed, unless these files tell them not to. What the machine has already is
# left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap '"${as_root[@]}" rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
	"${as_root[@]}" chmod 0755 "$policy"
fi
clusters=/etc/postgresql-common/createcluster.conf
if [ ! -e "$clusters" ]; then
	"${as_root[@]}" mkdir -p "$(dirname "$clusters")"
	echo "create_main_cluster = false" | "${as_root[@]}" tee "$clusters" >/dev/null
fi

apt() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"
}

echo "installing PostgreSQL (its service stays off)"
log=$(mktemp)
if ! { apt update && apt install --yes --no-install-recommends postgresql; } >"$log" 2>&1; then
	cat "$log" >&2
	rm -f "$log"
	echo "apt-get could not install PostgreSQL: see its messages above" >&2
	exit 3
fi
rm -f "$log"

# Installing enables the service for the next boot; take that back.
"${as_root[@]}" update-rc.d postgresql disable >/dev/null 2>&1 ||
	"${as_root[@]}" systemctl disable postgresql >/dev/null 2>&1 ||
	echo "PostgreSQL is installed, but its service could not be disabled: see 'systemctl status postgresql'" >&2

there || { echo "PostgreSQL was installed but its programs are not where they are looked for" >&2; exit 3; }
