#!/usr/bin/env bash
# No private key in the repository, not even a test's: what is published once
# is copied into real configurations and found by every scanner.
set -euo pipefail
# shellcheck source=scripts/ci-guards/tree.sh
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

# A key is the header with base64 after it, on the same line (escaped in a
# string) or on one of the next few (RFC 1421 headers stand between). The header
# alone is what code and documentation about keys need.
finder='
  FNR == 1 { header = 0; file = FILENAME; sub(/^\.\//, "", file) }
  /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----/ {
    header = FNR
    rest = $0
    sub(/.*PRIVATE KEY-----/, "", rest)
    if (rest ~ long) { print file ":" FNR ": a private key"; header = 0 }
    next
  }
  /-----END/ { header = 0 }
  header && FNR <= header + 5 && $0 ~ long { print file ":" header ": a private key"; header = 0 }
'
cd "$guard_root"
# No interval expression: not every awk has them.
long=$(printf '[A-Za-z0-9+\\/]%.0s' {1..40})
# The prefix keeps awk from reading a name such as a=b.pem as an assignment.
findings=$(guard_files | sed -z 's|^|./|' | LC_ALL=C xargs -0 -r awk -v long="$long" "$finder")
guard_report guard-no-secrets "$findings" \
  'remove the key, replace it wherever it was used, and let tests generate theirs'
