#!/usr/bin/env bash
# Makes the stored data directories of one version anew: internal/upgrade/testdata/make.sh COMMIT NAME
#   NAME-stopped.tar.gz   a coordinator that was stopped in order
#   NAME-killed.tar.gz    the same one, started again, and killed with -9 while it was written to
# Each holds the data directory (data/) and what the coordinator said before its
# end (expected/), as its own command line prints it. Needs jq and git.
set -euo pipefail
if (($# != 2)); then
  sed -n '2,6s/^# //p' "$0" >&2
  exit 2
fi
commit=$1 name=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  git -C "$here" worktree remove --force "$work/source" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

git -C "$here" worktree add --quiet --detach "$work/source" "$commit"
mkdir "$work/bin" "$work/home"
(cd "$work/source" && CGO_ENABLED=0 go build -trimpath -o "$work/bin/" ./agent/cmd/certctl-agent ./coordinator/cmd/certctl-coordinator ./coordinator/cmd/certctl)
export PATH=$work/bin:$PATH HOME=$work/home XDG_CONFIG_HOME=$work/home/config
touch "$work/coordinator.yaml"

await() { # LIMIT WHAT COMMAND...: until the command succeeds
  local limit=$1 what=$2 i
  shift 2
  for ((i = 0; i < limit * 5; i++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  echo "make.sh: not within $limit s: $what" >&2
  cat "$work"/*.log >&2
  exit 1
}

# The port stays the same, since the agents are told of it once.
address=127.0.0.1:0
start() {
  : >"$work/coordinator.log"
  certctl-coordinator run --config "$work/coordinator.yaml" --set "data_dir=$work/data" --set "server.listen=$address" \
    --set log.format=json --set fleet.sync_interval=1s >"$work/coordinator.log" 2>&1 &
  coordinator=$!
  pids+=("$coordinator")
  await 60 "the coordinator listens" grep -q '"msg":"listening"' "$work/coordinator.log"
  address=$(jq -r 'select(.msg == "listening") | .address' "$work/coordinator.log")
  export CERTCTL_SERVER_URL=https://localhost:${address##*:} CERTCTL_CA_FILE=$work/data/root.pem CERTCTL_TOKEN_FILE=$work/data/admin.token
  await 60 "the coordinator answers" certctl whoami
}

expect() { # what the coordinator says
  mkdir -p "$work/expected"
  certctl agents list -o json >"$work/expected/agents.json"
  certctl certificates list -o json >"$work/expected/certificates.json"
  certctl token list -o json >"$work/expected/tokens.json"
  certctl api-token list -o json >"$work/expected/api-tokens.json"
  certctl assignments list -o json >"$work/expected/assignments.json"
  certctl renewals list -o json >"$work/expected/renewals.json"
  certctl ca show -o json >"$work/expected/ca.json"
  certctl audit list --scope all --all -o json >"$work/expected/facts.json"
  certctl version >"$work/expected/version.txt"
  git -C "$here" rev-parse "$commit" >"$work/expected/commit.txt"
  cp "$work/made/"* "$work/expected/"
}

pack() {
  tar --sort=name --owner=0 --group=0 --numeric-owner -C "$work" -cf - data expected | gzip -9n >"$here/$1.tar.gz"
  rm -rf "$work/expected"
}

agent() { # NAME TOKEN CONFIGURATION
  mkdir -p "$work/$1"
  printf '%s\n' "$3" >"$work/$1/agent.yaml"
  printf '%s\n' "$2" >"$work/$1/token"
  certctl-agent enroll --config "$work/$1/agent.yaml" --server "$CERTCTL_SERVER_URL" --token-file "$work/$1/token" >/dev/null
  certctl-agent run --config "$work/$1/agent.yaml" >"$work/$1.log" 2>&1 &
  pids+=("$!")
}

configuration() { # NAME CERTIFICATE DNSNAME
  cat <<YAML
state_dir: $work/$1/state
control: {socket: $work/$1/socket}
renewal: {tick_interval: 200ms}
assignments: {allow_paths: [$work/$1/certs]}
certificates: [{name: $2, names: [$3], issuer: coordinator}]
YAML
}

serials() { certctl certificates list -o json | jq -e --argjson n "$1" '[.items[] | select(.serial != null and .serial != "")] | length == $n'; }
ask() { certctl "$@" -o json; }

start
mkdir "$work/made"
ask token create --names '**.example.com' --uses 2 --ttl 1d --label env=prod --label site=north --description 'two hosts' >"$work/token.json"
agent one "$(jq -r .token "$work/token.json")" "$(configuration one www www.one.example.com)"
agent two "$(jq -r .token "$work/token.json")" "$(configuration two www www.two.example.com)"
await 60 "both hosts have their certificates" serials 2
cat >"$work/assignment.yaml" <<YAML
name: everywhere
selector: env=prod
certificate: {names: [both.example.com], deployments: [{files: {combined: $work/one/certs/both.pem, create_directories: true}}]}
YAML
certctl assignments apply -f "$work/assignment.yaml" >/dev/null
await 60 "one host has the assigned certificate, and the other one refuses it" serials 3

ask token create --names web.example.com --ttl 7d --uses 0 --description open >"$work/open.json"
ask token create --names old.example.com --ttl 1h >"$work/revoked.json"
certctl token revoke "$(jq -r .id "$work/revoked.json")" >/dev/null
ask api-token create --name grafana --role viewer >"$work/viewer.json"
jq -r .token "$work/viewer.json" >"$work/made/viewer.token"
jq -r .token "$work/open.json" >"$work/made/open.token"
ask api-token create --name gone --role operator >"$work/gone.json"
certctl api-token revoke "$(jq -r .id "$work/gone.json")" >/dev/null
certctl renew --all --selector 'env=prod' --over 12h --reason 'stored data' >/dev/null
row() { ask certificates list | jq -r --arg host "$1" "[.items[] | select(.name == \"www\" and (.names[0] | contains(\$host)))][0].$2"; }
row one serial >"$work/made/revoked-serial.txt"
serial=$(<"$work/made/revoked-serial.txt")
certctl revoke --serial "$serial" --reason superseded --yes >/dev/null
replaced() { [[ $(row one serial) != "$serial" ]]; }
await 60 "the revoked certificate is replaced" replaced
sleep 2 # until nothing is reported any more
for pid in "${pids[@]:1}"; do kill "$pid"; done
sleep 1
expect
kill "$coordinator"
wait "$coordinator"
pack "$name-stopped"

# A snapshot is behind it now, so that the log is the tail.
pids=()
start
ask token create --names late.example.com --ttl 7d >"$work/late.json"
certctl agents retire "$(ask agents list | jq -r '[.items[] | select(.labels.env == "prod")][0].id')" --reason 'stored data' --yes >/dev/null
expect
while ask token create --names busy.example.com --ttl 7d >"$work/busy.json"; do
  jq -r .id "$work/busy.json" >>"$work/acknowledged"
done 2>/dev/null &
busy=$!
sleep 2
kill -9 "$coordinator"
wait "$busy" 2>/dev/null || true
[[ -s $work/acknowledged ]]
cp "$work/acknowledged" "$work/expected/acknowledged.txt"
pack "$name-killed"
ls -l "$here/$name"-*.tar.gz
