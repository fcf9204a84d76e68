#!/bin/bash
#
# run.sh: does anything grow under a mixed load?
#
#	--minutes N		how long (5); 60 says something
#	--every N		seconds between two samples (10)
#	--rate N		transactions a second, of all clients together (400)
#	--publish		the table, the samples and the picture into docs/
#
# Table on the terminal; samples, picture and table in bench/results, or in $RESULTS.

set -u
. "$(dirname "$0")/../../test/lib/private.sh"

usage() { sed -n 's/^#\t//p' "$SOURCE/bench/bounds/run.sh" >&2; exit 2; }

minutes=5 every=10 rate=400 publish=
while [ $# -gt 0 ]; do
	case $1 in
		--publish) publish=yes ;;
		--minutes | --every | --rate)
			[[ ${2:-} =~ ^[1-9][0-9]*$ ]] || usage
			printf -v "${1#--}" '%s' "$2"
			shift ;;
		*) usage ;;
	esac
	shift
done

results=${RESULTS:-$SOURCE/bench/results}
mkdir -p "$results" || exit 1
private_ready build
as_owner bash "$PRIVATE/src/bench/bounds/servers.sh" "$minutes" "$every" "$rate" &
wait $!
status=$?
cp "$PRIVATE/tmp/bounds.csv" "$results"/ 2>/dev/null || exit 1
perl -I"$SOURCE/bench/lib" "$SOURCE/bench/bounds/report.pl" "$results" || status=1
[ -n "$publish" ] && { perl -I"$SOURCE/bench/lib" "$SOURCE/bench/bounds/publish.pl" "$results" \
	"$SOURCE" || status=1; }
exit $status
