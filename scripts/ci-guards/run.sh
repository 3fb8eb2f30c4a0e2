#!/usr/bin/env bash
# Runs every guard-*.sh beside this file and fails if one of them does.
#
# A guard takes no arguments and checks the tree at GUARD_ROOT, by default the
# checkout that it lies in. It exits 0 with one line, or not 0 with a line
# "file:line: what is wrong" for each offender and how to mend it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

failed=()
found=0
for guard in "$here"/guard-*.sh; do
  [[ -f $guard ]] || continue # the pattern itself, when nothing matches it
  found=$((found + 1))
  # All of them run, so that one round shows everything there is to mend.
  bash "$guard" || failed+=("$(basename "$guard" .sh)")
done

if ((found == 0)); then
  echo "run.sh: no guard-*.sh in $here: nothing was checked" >&2
  exit 1
fi
if ((${#failed[@]} > 0)); then
  echo "run.sh: ${#failed[@]} of $found guards failed: ${failed[*]}" >&2
  exit 1
fi
echo "run.sh: $found guards passed"
