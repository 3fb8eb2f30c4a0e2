# Sourced by the guards: which tree is checked, and which files in it.
# shellcheck shell=bash

guard_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
guard_root=${GUARD_ROOT:-$(git -C "$guard_dir" rev-parse --show-toplevel)}
guard_root=$(cd "$guard_root" && pwd -P)

# guard_files [PATHSPEC...] prints the files of the tree, relative to its root
# and each ended by NUL: in a repository what is committed or would be, so that
# local builds are not looked at; elsewhere everything.
guard_files() {
  local pattern all
  if [[ -e $guard_root/.git ]]; then
    # A file that is deleted but still in the index is listed: leave it out.
    git -C "$guard_root" ls-files -z --cached --others --exclude-standard -- "$@" |
      (cd "$guard_root" && while IFS= read -r -d '' file; do
        if [[ -f $file ]]; then printf '%s\0' "$file"; fi
      done)
    return
  fi
  all=()
  for pattern in "$@"; do all+=(-o -path "./$pattern"); done
  if ((${#all[@]} > 0)); then all=('(' "${all[@]:1}" ')'); fi
  (cd "$guard_root" && find . -type f "${all[@]}" -print0 | sed -z 's|^\./||')
}

# guard_report NAME FINDINGS MEND ends the guard: with success and one line if
# FINDINGS is empty, otherwise by printing them and how to mend them.
guard_report() {
  if [[ -z $2 ]]; then
    echo "$1: ok"
    exit 0
  fi
  printf '%s\n%s: %s\n' "$2" "$1" "$3" >&2
  exit 1
}
