#!/usr/bin/env bash
# Installs Pebble, the ACME test CA, and its challenge test server into .tools/bin. Does nothing if they are there.
set -euo pipefail

version=v2.10.1
module=github.com/letsencrypt/pebble/v2

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$root/.tools/bin
mkdir -p "$bin"

# Test packages run side by side and may all find the programs missing.
exec 9>"$root/.tools/pebble.lock"
flock 9

# The binary knows which version of its module it is: no stamp that could lie.
current() { go version -m "$bin/$1" 2>/dev/null | awk '$1 == "mod" { print $2 "@" $3 }'; }

missing=()
for program in pebble pebble-challtestsrv; do
  [[ $(current "$program") == "$module@$version" ]] || missing+=("$module/cmd/$program@$version")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

echo "installing Pebble $version" >&2
cd "$root/.tools" # settings of the caller's module and target platform do not apply
env -u GOFLAGS -u GOOS -u GOARCH GOWORK=off CGO_ENABLED=0 GOBIN="$bin" go install -trimpath "${missing[@]}"
