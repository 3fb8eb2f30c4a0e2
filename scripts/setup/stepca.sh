#!/usr/bin/env bash
# Installs step-ca into .tools/bin. Does nothing if it is there. The first build takes a minute.
set -euo pipefail

version=v0.30.2
module=github.com/smallstep/certificates

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$root/.tools/bin
mkdir -p "$bin"

# Test packages run side by side and may all find the program missing.
exec 9>"$root/.tools/stepca.lock"
flock 9

# The binary knows which version of its module it is: no stamp that could lie.
current=$(go version -m "$bin/step-ca" 2>/dev/null | awk '$1 == "mod" { print $2 "@" $3 }') || true
[[ $current != "$module@$version" ]] || exit 0

echo "installing step-ca $version" >&2
cd "$root/.tools" # settings of the caller's module and target platform do not apply
env -u GOFLAGS -u GOOS -u GOARCH GOWORK=off CGO_ENABLED=0 GOBIN="$bin" \
  go install -trimpath "$module/cmd/step-ca@$version"
