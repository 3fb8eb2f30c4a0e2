#!/usr/bin/env bash
# The race detector needs a C compiler. Idempotent; quiet when there is one.
set -euo pipefail
if command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1; then
	exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "no C compiler: install gcc, which the race detector needs" >&2
	exit 1
fi
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
