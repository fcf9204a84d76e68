#!/bin/bash
#
# run.sh: what `make test-upgrade` runs: pg_uncache of one version beside, before and after
# another.
#
# For each older version that there is an update script for, its source is taken from the tag
# vVERSION.  Two made-up versions, one older and one newer than this source, are made in any
# case (make_up.pl), so the test proves itself.
#
#	MAJORS="15 17"			pg_upgrade from one to the other, too, in a Debian of its own: as root
#
# The last line is "N passed, N failed".

set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
[ -z "${MAJORS:-}" ] || exec bash "$top/test/upgrade/majors.sh" $MAJORS

# private.sh copies this folder with the rest of the tree.
rm -rf "$top/test/upgrade/versions"
for script in "$top"/sql/pg_uncache--*--*.sql; do
	[ -e "$script" ] || continue
	old=${script##*/pg_uncache--}
	old=${old%%--*}
	mkdir -p "$top/test/upgrade/versions/$old"
	git -C "$top" -c safe.directory='*' archive "v$old" |
		tar -C "$top/test/upgrade/versions/$old" -xf - || exit 1
done

. "$top/test/lib/private.sh"
private_run test test/upgrade/inside.sh
