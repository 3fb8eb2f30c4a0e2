#!/usr/bin/env bash
# No leftovers of how the code came about: paths that exist on one machine only,
# marks of unfinished work, numbers that only a ticket system can resolve.
set -euo pipefail
# shellcheck source=scripts/ci-guards/tree.sh
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

start='(^|[^[:alnum:]_.~}/-])' # of a path that begins at the root
paths="$start/((work|workspace|builds|tmp)/[[:alnum:]_.]|(home|Users)/[[:alpha:]])"
windows='[A-Za-z]:\\+Users\\+[A-Za-z]'
unfinished='\b(TODO|FIXME|HACK)\b'
tickets='\b([Ii]ssue|[Tt]icket|[Bb]ug) #[0-9]+|\b(see|in|of|by|per|from|for) (issue|ticket) [0-9]+'

# These two name the words in order to refuse them.
own=(':!scripts/ci-guards/guard-words.sh' ':!scripts/ci-guards/guards_test.go')
[[ -e $guard_root/.git ]] || own=()

cd "$guard_root"
# grep: 0 found, 1 found nothing, more is an error and must not pass for clean.
findings=$(guard_files "${own[@]}" |
  xargs -0 -r sh -c 'grep -HnIE -e "$@"; test $? -le 1' sh "$paths|$windows|$unfinished|$tickets" --)
guard_report guard-words "$findings" \
  'use a path that exists everywhere ($HOME, a temporary directory), finish the work, or say the thing itself instead of a ticket number'
