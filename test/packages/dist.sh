#!/bin/sh
#
# dist.sh: what `make dist` runs: pg_uncache-VERSION.zip, the archive for PGXN.
#
#	DIST=folder			where it goes; the top of the source tree otherwise
#
# Of what git knows, as it is in the working tree; .gitattributes says what is left out.

set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
version=$(sed -n 's/^   "version": "\(.*\)",$/\1/p' "$top/META.json")
file=${DIST:-$top}/pg_uncache-$version.zip
git="git -C $top -c safe.directory=* -c user.name=none -c user.email=none"

state=$($git stash create)
$git archive --format=zip --prefix="pg_uncache-$version/" -o "$file" "${state:-HEAD}"
[ -z "$state" ] || echo "with changes that are not committed:"
echo "$file"
