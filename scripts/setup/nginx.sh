#!/usr/bin/env bash
# Installs nginx from the distribution (Debian and its relatives) for the tests
# and the demo, which start it themselves from their own directories.
# Idempotent; prints nothing when nginx is there already. The distribution's
# service is neither started nor enabled.
#
# Exit status: 0 nginx is there, 3 it cannot be had on this machine.
set -euo pipefail
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

if command -v nginx >/dev/null; then
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "nginx is missing and this machine has no apt-get: install nginx by hand" >&2
	exit 3
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! sudo -n true 2>/dev/null; then
		echo "nginx is missing: install it with 'sudo apt-get install nginx', or run this as root" >&2
		exit 3
	fi
	as_root=(sudo -n)
fi

# Debian's packages start their service when they are installed, unless this
# file tells them not to. One that the machine has already is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap '"${as_root[@]}" rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
	"${as_root[@]}" chmod 0755 "$policy"
fi

apt() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"
}

echo "installing nginx (its service stays off)"
log=$(mktemp)
if ! { apt update && apt install --yes --no-install-recommends nginx; } >"$log" 2>&1; then
	cat "$log" >&2
	rm -f "$log"
	echo "apt-get could not install nginx: see its messages above" >&2
	exit 3
fi
rm -f "$log"

# Installing enables the service for the next boot; take that back.
"${as_root[@]}" update-rc.d nginx disable >/dev/null 2>&1 ||
	"${as_root[@]}" systemctl disable nginx >/dev/null 2>&1 ||
	echo "nginx is installed, but its service could not be disabled: see 'systemctl status nginx'" >&2

command -v nginx >/dev/null || { echo "nginx was installed but is not in PATH" >&2; exit 3; }
