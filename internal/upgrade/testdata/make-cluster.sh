#!/usr/bin/env bash
# Makes the stored cluster of one version anew: internal/upgrade/testdata/make-cluster.sh COMMIT NAME
#   NAME.cluster.tar.gz   three nodes that were stopped in order, and an agent
# It holds their data directories (c1/, c2/, c3/), the agent's state (agent/), and what
# the nodes said before their end (expected/), as their own command line prints it.
# Behind them are: three joins and a removal, a rotation of the cluster's CA, a snapshot
# file of the schedule, and join tokens that are open, used and revoked. Needs jq and git.
set -euo pipefail
if (($# != 2)); then
  sed -n '2,7s/^# //p' "$0" >&2
  exit 2
fi
commit=$1 name=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
declare -A running=()
finish() {
  for pid in "${running[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  git -C "$here" worktree remove --force "$work/source" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

git -C "$here" worktree add --quiet --detach "$work/source" "$commit"
mkdir "$work/bin" "$work/home"
(cd "$work/source" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/bin/" ./agent/cmd/certctl-agent ./coordinator/cmd/certctl-coordinator ./coordinator/cmd/certctl)
export PATH=$work/bin:$PATH HOME=$work/home XDG_CONFIG_HOME=$work/home/config
touch "$work/coordinator.yaml"

await() { # LIMIT WHAT COMMAND...: until the command succeeds
  local limit=$1 what=$2 i
  shift 2
  for ((i = 0; i < limit * 5; i++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  echo "make-cluster.sh: not within $limit s: $what" >&2
  cat "$work"/*.log >&2
  exit 1
}

base=$((20000 + RANDOM % 20000))
port() { echo $((base + 2 * ${1#c} + $2)); } # NODE 0 (for all) or 1 (for nodes)
url() { echo "https://localhost:$(port "$1" 0)"; }
node() { # NAME ARGUMENTS...
  local id=$1
  shift
  ${replacing:-} certctl-coordinator "$@" --config "$work/coordinator.yaml" --set "data_dir=$work/$id" --set "node_id=$id" \
    --set "server.listen=127.0.0.1:$(port "$id" 0)" --set "server.url=$(url "$id")" --set "cluster.listen=127.0.0.1:$(port "$id" 1)" \
    --set "cluster.advertise=127.0.0.1:$(port "$id" 1)" --set cluster.stabilization=1s --set log.format=json --set fleet.sync_interval=1s
}
start() {
  replacing=exec node "$1" run >"$work/$1.log" 2>&1 & # the process is the program's own
  running[$1]=$!
  await 60 "$1 answers" certctl whoami --server "$(url "$1")"
}
stop() {
  kill "${running[$1]}"
  wait "${running[$1]}" || true
  unset "running[$1]"
}
join() {
  certctl cluster join-token create --quiet >"$work/token"
  node "$1" join --token-file "$work/token" >/dev/null
  start "$1"
}
well() { { certctl cluster health -o json || true; } | jq -e --argjson n "$1" '.voters == $n and .voters_working == $n'; }
rotated() { { certctl cluster health -o json || true; } | jq -e '.ca_rotation == null'; }

export CERTCTL_CA_FILE=$work/c1/root.pem CERTCTL_TOKEN_FILE=$work/c1/admin.token
CERTCTL_SERVER_URL=$(url c1)
export CERTCTL_SERVER_URL
start c1
join c2
join c3
await 60 "three vote" well 3
certctl token create --names '**.example.com' --uses 1 --ttl 1d -o json >"$work/token.json"
cat >"$work/agent.yaml" <<YAML
state_dir: $work/agent
control: {socket: $work/agent.socket}
renewal: {tick_interval: 200ms}
certificates: [{name: www, names: [www.example.com], issuer: coordinator}]
YAML
jq -r .token "$work/token.json" >"$work/token"
certctl-agent enroll --config "$work/agent.yaml" --server "$CERTCTL_SERVER_URL" --token-file "$work/token" >/dev/null
certctl-agent run --config "$work/agent.yaml" >"$work/agent.log" 2>&1 &
running[agent]=$!
serials() { certctl certificates list -o json | jq -e '[.items[] | select((.serial // "") != "")] | length == 1'; }
await 60 "the host has its certificate" serials
join c4
await 60 "four vote" well 4
certctl cluster remove c4 --yes >/dev/null
kill -9 "${running[c4]}"
unset 'running[c4]'
await 60 "three are left" well 3
certctl cluster rotate-ca --yes >/dev/null
await 60 "the CA of the cluster is replaced" rotated
certctl cluster join-token create --quiet --ttl 7d --description open >"$work/open"
certctl cluster join-token create -o json >"$work/revoked.json"
certctl cluster join-token revoke "$(jq -r .id "$work/revoked.json")" --yes >/dev/null
sleep 3 # until the agent has said all, and knows the nodes
stop agent
# One more start of the leader: a snapshot file of the schedule has most of it then.
stop c1
start c1
await 60 "all work" well 3

mkdir "$work/expected"
for list in agents certificates token; do certctl "$list" list -o json >"$work/expected/$list.json"; done
certctl cluster join-token list -o json >"$work/expected/join-tokens.json"
certctl cluster members -o json >"$work/expected/members.json"
certctl ca show -o json >"$work/expected/ca.json"
certctl audit list --scope all --all -o json >"$work/expected/facts.json"
git -C "$here" rev-parse "$commit" >"$work/expected/commit.txt"
mv "$work/open" "$work/expected/open.token"
for id in c3 c2 c1; do stop "$id"; done
tar --sort=name --owner=0 --group=0 --numeric-owner -C "$work" -cf - c1 c2 c3 agent expected | gzip -9n >"$here/$name.cluster.tar.gz"
ls -l "$here/$name.cluster.tar.gz"
