#!/usr/bin/env bash
# No package is named after nothing: such a package attracts whatever has no
# place, and everything comes to depend on it.
set -euo pipefail
# shellcheck source=scripts/ci-guards/tree.sh
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

# Keep in step with rules.VagueNames (internal/rules), which a test compares.
vague='util|utils|common|helper|helpers|type|types|model|models|manager|managers|misc|base'

cd "$guard_root"
findings=$(guard_files '*.go' |
  xargs -0 -r sh -c 'grep -HnE -e "$@"; test $? -le 1' sh "^package +($vague)(_test)?([^[:alnum:]_]|\$)" --)
guard_report guard-package-names "$findings" \
  'name the package after what it is about'
