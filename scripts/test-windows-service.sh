#!/usr/bin/env bash
# Runs the Windows builds of the agent and the coordinator under wine: the tests
# of what only Windows has, then for each program the verbs of the service from
# install to uninstall, and the questions to the running agent over its pipe.
#
#   scripts/test-windows-service.sh
#
# Installs wine (450 MB, Debian and its relatives). Everything happens in a
# throw-away prefix. wine is not Windows: it has no recovery actions, no
# accounts, Unix modes in place of access lists, and a service manager that
# forgives much. What is seen here is that the programs speak with a service
# manager as they should.
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
go build -trimpath -o "$scratch/certctl-coordinator.exe" ./coordinator/cmd/certctl-coordinator
# Packages, and those of their tests that wine can run: release 8 does not know
# the request by which testing's TempDir is removed.
tests=(
	shared/service .
	agent/control .
	agent/deploy/file 'List|Everybody|CarriedOver|Inherited'
	shared/settings OthersMayWrite
	shared/durable 'OthersAreGranted|WhoOwns'
)
for ((i = 0; i < ${#tests[@]}; i += 2)); do
	go test -c -o "$scratch/$i.test.exe" "./${tests[i]}"
done
unset GOOS GOARCH CGO_ENABLED

echo "making a Windows"
wineboot --init >"$scratch/wineboot" 2>&1 || { cat "$scratch/wineboot" >&2; die "wineboot failed"; }
# The service manager of this first start forgets what it is told.
"$server" --wait
cp .tools/wine/bcryptprimitives.dll "$drive/windows/system32/"
program="$drive/Program Files/certctl" # a space, as in most paths of Windows
mkdir -p "$program" "$drive/ProgramData/certctl"
cp "$scratch"/certctl-*.exe "$program/"
cd "$drive"

# wine ends every service when the last ordinary program has ended.
wine cmd /c ping -n 900 127.0.0.1 >/dev/null 2>&1 &
holder=$!

echo "tests of what only Windows has"
for ((i = 0; i < ${#tests[@]}; i += 2)); do
	cp "$scratch/$i.test.exe" "$drive/t.exe"
	timeout 120 wine 'C:\t.exe' "-test.run=${tests[i + 1]}" >"$scratch/out" 2>&1 || die "they fail: ${tests[i]}"
	grep -qx PASS <(tr -d '\r' <"$scratch/out") || die "they did not run: ${tests[i]}"
	! grep -q 'no tests to run' "$scratch/out" || die "there are none: ${tests[i]}"
	printf '  ok: %s\n' "${tests[i]}"
done

name= # the program that is asked
ask() { timeout 120 wine "C:\\Program Files\\certctl\\$name.exe" "$@" 2>&1 | tr -d '\r' >"$scratch/out"; }
ok() {
	local what=$1
	shift
	ask "$@" || die "failed: $what"
	printf '  ok: %s\n' "$what"
}
refused() {
	local what=$1 text=$2
	shift 2
	if ask "$@"; then die "was not refused: $what"; fi
	grep -qF -- "$text" "$scratch/out" || die "does not say \"$text\": $what"
	printf '  ok: %s\n' "$what"
}
says() { grep -qF -- "$1" "$scratch/out" || die "the answer does not hold: $1"; }
# logged TEXT TIMES: before long the service's log holds so many lines of it.
logged() {
	local end=$((SECONDS + 60))
	local log=$drive/ProgramData/certctl/logs/$name.log
	until [ "$(grep -cF -- "$1" "$log" 2>/dev/null)" -ge "$2" ]; do
		[ "$SECONDS" -lt "$end" ] || die "the service's log does not hold $2 times: $1"
		sleep 0.2
	done
}

# verbs PROGRAM READY: from install to uninstall. Once it runs and has logged
# READY, PROGRAM_made looks at what it made and PROGRAM_asked asks it.
verbs() {
	name=certctl-$1
	local ready=$2 says=$1 made=$drive/ProgramData/certctl-$1
	local config='C:\ProgramData\certctl\'$1.yaml file=$drive/ProgramData/certctl/$1.yaml
	echo "the verbs of $name"
	ok "version" version
	refused "a status before there is a service" "not installed" service status
	refused "a start before there is a service" "install it with" start
	refused "an installation with a configuration that is not there" "no configuration file" install --config "$config"

	mkdir -m 777 "$made"
	refused "an installation where everybody may enter the directory of the state" \
		"run \"icacls C:\\ProgramData\\$name /inheritance:r /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F\"" install
	rmdir "$made"
	ok "install, without a configuration" install
	[ "$(stat -c %A "$made" | cut -c8-10)" = --- ] || die "what install made is for everybody: $(stat -c %A "$made")"
	ok "uninstall" uninstall
	"${1}_good" >"$made/$1.yaml"
	ok "check-config in the directory that install made" check-config
	chmod 777 "$made"
	refused "check-config of a file that everybody may replace" \
		"run \"icacls C:\\ProgramData\\$name /inheritance:r /remove:g *S-1-1-0 /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F\"" check-config
	chmod 700 "$made"
	chmod 666 "$made/$1.yaml"
	refused "check-config of a file that everybody may write" \
		"run \"icacls C:\\ProgramData\\$name\\$1.yaml /inheritance:r /remove:g *S-1-1-0 /grant:r *S-1-5-18:F *S-1-5-32-544:F\"" check-config
	rm "$made/$1.yaml"

	"${1}_good" >"$file"
	ok "install" install --config "$config"
	says "\"C:\\Program Files\\certctl\\$name.exe\" run --config $config --service"
	refused "a second installation" "installed already" install
	ok "install --force" install --config "$config" --force
	refused "a status while it does not run" "does not run" service status
	says "starts at boot: true"

	ok "start" start
	says "runs: running"
	ok "service status" service status --output json
	says '"running": true'
	logged "\"msg\":\"$says starts\"" 1
	logged "$ready" 1
	"${1}_made" "$made"
	printf '  ok: it has done its start-up\n'
	"${1}_asked" "$file"
	ok "start, when it runs" start

	ok "stop" stop
	says "does not run: stopped"
	logged "\"msg\":\"$says stops\"" 1
	refused "a status after stop" "does not run" service status --output json
	says '"exit_status": 0'
	ok "stop, when it does not run" stop
	ok "restart, when it does not run" restart
	ok "restart" restart
	logged "\"msg\":\"$says starts\"" 3
	logged "\"msg\":\"$says stops\"" 2

	printf 'log:\n  levle: debug\n' >"$file"
	refused "a restart with a misspelt setting" "ended with exit code 1" restart
	logged levle 1
	refused "its status" "does not run" service status --output json
	says '"exit_status": 1'
	"${1}_good" >"$file"
	ok "start once it is mended" start
	refused "the service's own flag in a console" "is for the service manager of Windows" run --service

	ok "uninstall, while it runs" uninstall
	logged "\"msg\":\"$says stops\"" 3
	refused "a second uninstall" "not installed" uninstall
	"${1}_made" "$made" # uninstall leaves it
}

agent_good() { printf 'log:\n  level: debug\n'; }
agent_made() { [ -f "$1/state.db" ] || die "there is no state file"; }
agent_asked() {
	# wine leads the first client to an instance of the pipe that nobody serves:
	# TestClientThatComesBeforeTheAgentAccepts in agent/control.
	ask status || true
	ok "status over the pipe" status
	says "certificates"
	{
		agent_good
		printf 'issuers:\n  nowhere: {acme: {directory: "https://127.0.0.1:1/directory", terms_agreed: true}}\n'
		printf 'certificates:\n  - {name: web, names: [web.example], issuer: nowhere}\n'
	} >"$1"
	ok "reload over the pipe" reload
	says web
	ok "list over the pipe" list
	says web
	refused "renew over the pipe, of what nobody issues" "this attempt failed: read the directory" renew web
	refused "a renewal of what is not there" "certctl-agent list" renew other
	printf 'log:\n  levle: debug\n' >"$1"
	refused "a reload of a misspelt setting" levle reload
	agent_good >"$1"
	ok "reload of what it began with" reload
	ok "status once more" status --output json
}

coordinator_good() { printf 'server:\n  listen: 127.0.0.1:0\n'; }
coordinator_made() {
	local file
	for file in root.pem admin.token seal.key; do
		[ -s "$1/$file" ] || die "the service has not made $file"
	done
}
coordinator_asked() { :; } # it has no pipe

verbs agent '"msg":"control socket is open"'
verbs coordinator '"msg":"listening"'
echo "test-windows-service: all of it holds"
