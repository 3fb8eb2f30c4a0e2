#!/usr/bin/env bash
# Runs the Windows build of the agent under wine: the tests of its service
# manager's side, and then the verbs of the service from install to uninstall.
#
#   scripts/test-windows-service.sh
#
# Installs wine (450 MB, Debian and its relatives). Everything happens in a
# throw-away prefix. wine is not Windows: it has no recovery actions, no
# accounts, and a service manager that forgives much. What is seen here is that
# the program speaks with a service manager as it should.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
scripts/setup/wine.sh

die() { printf 'test-windows-service: %s\n' "$*" >&2; exit 1; }

scratch=$(mktemp -d)
export WINEPREFIX=$scratch/prefix WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml="
holder=
server=$(command -v wineserver || command -v /usr/lib/wine/wineserver64 || command -v /usr/lib/wine/wineserver) || die "wine has no wineserver"
cleanup() {
	status=$?
	set +e # all of it, whatever fails
	if [ "$status" -ne 0 ] && [ -f "$scratch/out" ]; then
		echo "---- the last answer" >&2
		cat "$scratch/out" >&2
		echo "---- the service's log" >&2
		cat "$drive/ProgramData/certctl/logs/"*.log >&2 2>/dev/null || true
	fi
	[ -z "$holder" ] || kill "$holder" 2>/dev/null || true
	"$server" --kill 2>/dev/null || true # this prefix's
	"$server" --wait 2>/dev/null || true
	rm -rf "$scratch"
	exit "$status"
}
drive=$WINEPREFIX/drive_c
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "building for Windows"
export GOOS=windows GOARCH=amd64 CGO_ENABLED=0
go build -trimpath -o "$scratch/certctl-agent.exe" ./agent/cmd/certctl-agent
go test -c -o "$scratch/service.test.exe" ./shared/service
unset GOOS GOARCH CGO_ENABLED

echo "making a Windows"
wineboot --init >"$scratch/wineboot" 2>&1 || { cat "$scratch/wineboot" >&2; die "wineboot failed"; }
# The service manager of this first start forgets what it is told.
"$server" --wait
cp .tools/wine/bcryptprimitives.dll "$drive/windows/system32/"
program="$drive/Program Files/certctl" # a space, as in most paths of Windows
mkdir -p "$program" "$drive/ProgramData/certctl"
cp "$scratch/certctl-agent.exe" "$program/"
cd "$drive"

# wine ends every service when the last ordinary program has ended.
wine cmd /c ping -n 900 127.0.0.1 >/dev/null 2>&1 &
holder=$!

echo "tests of the service manager's side"
cp "$scratch/service.test.exe" "$drive/"
timeout 120 wine 'C:\service.test.exe' >"$scratch/out" 2>&1 || die "they fail"
grep -qx PASS <(tr -d '\r' <"$scratch/out") || die "they did not run"

agent() { timeout 60 wine 'C:\Program Files\certctl\certctl-agent.exe' "$@" 2>&1 | tr -d '\r' >"$scratch/out"; }
ok() {
	local what=$1
	shift
	agent "$@" || die "failed: $what"
	printf '  ok: %s\n' "$what"
}
refused() {
	local what=$1 text=$2
	shift 2
	if agent "$@"; then die "was not refused: $what"; fi
	grep -qF -- "$text" "$scratch/out" || die "does not say \"$text\": $what"
	printf '  ok: %s\n' "$what"
}
says() { grep -qF -- "$1" "$scratch/out" || die "the answer does not hold: $1"; }
log=$drive/ProgramData/certctl/logs/certctl-agent.log
# logged TEXT TIMES: within 10 seconds the service's log holds so many lines of it.
logged() {
	local end=$((SECONDS + 10))
	until [ "$(grep -cF -- "$1" "$log" 2>/dev/null)" -ge "$2" ]; do
		[ "$SECONDS" -lt "$end" ] || die "the service's log does not hold $2 times: $1"
		sleep 0.2
	done
}
config='C:\ProgramData\certctl\agent.yaml'

echo "the verbs"
ok "version" version
refused "a status before there is a service" "not installed" service status
refused "a start before there is a service" "install it with" start
refused "an installation with a configuration that is not there" "no configuration file" install --config "$config"
printf 'log:\n  level: debug\n' >"$drive/ProgramData/certctl/agent.yaml"
ok "install" install --config "$config"
says '"C:\Program Files\certctl\certctl-agent.exe" run --config C:\ProgramData\certctl\agent.yaml --service'
refused "a second installation" "installed already" install
ok "install --force" install --config "$config" --force
refused "a status while it does not run" "does not run" service status
says "starts at boot: true"

ok "start" start
says "runs: running"
ok "service status" service status --output json
says '"running": true'
[ -f "$drive/ProgramData/certctl-agent/state.db" ] || die "the service has made no state file"
logged '"msg":"agent starts"' 1
logged '"msg":"control socket is open"' 1
printf '  ok: the agent has done its start-up\n'
ok "start, when it runs" start

ok "stop" stop
says "does not run: stopped"
logged '"msg":"agent stops"' 1
refused "a status after stop" "does not run" service status --output json
says '"exit_status": 0'
ok "stop, when it does not run" stop
ok "restart, when it does not run" restart
ok "restart" restart
logged '"msg":"agent starts"' 3
logged '"msg":"agent stops"' 2

printf 'log:\n  levle: debug\n' >"$drive/ProgramData/certctl/agent.yaml"
refused "a restart with a misspelt setting" "ended with exit code 1" restart
logged levle 1
refused "its status" "does not run" service status --output json
says '"exit_status": 1'
printf 'log:\n  level: debug\n' >"$drive/ProgramData/certctl/agent.yaml"
ok "start once it is mended" start
refused "the service's own flag in a console" "is for the service manager of Windows" run --service

ok "uninstall, while it runs" uninstall
logged '"msg":"agent stops"' 3
refused "a second uninstall" "not installed" uninstall
[ -f "$drive/ProgramData/certctl-agent/state.db" ] || die "uninstall removed the state"
echo "test-windows-service: all of it holds"
