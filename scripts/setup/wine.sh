#!/usr/bin/env bash
# Installs wine and the cross compiler for its one missing library (Debian and
# its relatives, 450 MB), and builds that library into .tools/wine. Idempotent.
#
# Exit status: 0 wine is there, 3 it cannot be had on this machine.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
compiler=x86_64-w64-mingw32-gcc
source=$root/packaging/windows/testing/bcryptprimitives.c
library=$root/.tools/wine/bcryptprimitives.dll

if ! command -v wine64 >/dev/null && ! [ -x /usr/lib/wine/wine64 ] || ! command -v "$compiler" >/dev/null; then
	command -v apt-get >/dev/null || {
		echo "wine or $compiler is missing and this machine has no apt-get: install both by hand" >&2
		exit 3
	}
	as_root=()
	if [ "$(id -u)" -ne 0 ]; then
		sudo -n true 2>/dev/null || {
			echo "wine or $compiler is missing: run this as root" >&2
			exit 3
		}
		as_root=(sudo -n)
	fi
	apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }
	echo "installing wine and mingw-w64"
	log=$(mktemp)
	if ! { apt update && apt install --yes --no-install-recommends wine wine64 gcc-mingw-w64-x86-64-win32; } >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		exit 3
	fi
	rm -f "$log"
fi

if [ ! -f "$library" ] || [ "$source" -nt "$library" ]; then
	mkdir -p "$(dirname "$library")"
	"$compiler" -O2 -Wall -Werror -shared -o "$library.new" "$source" -ladvapi32
	mv "$library.new" "$library"
fi
