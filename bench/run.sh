#!/bin/bash
#
# run.sh: what `make bench` runs.  `bench/run.sh --help` shows the options.
#
# The servers run on the machine's disk, in a temporary folder below TMPDIR or
# /tmp; what was measured is left in bench/results, or in $RESULTS.  With --publish
# it also goes into the documentation; a section that failed is named there.

set -u
. "$(dirname "$0")/../test/lib/private.sh"

case " $* " in
	*" --help "*) exec perl -I"$SOURCE/bench/lib" "$SOURCE/bench/bench.pl" --help ;;
esac

publish=
options=()
for option; do
	if [ "$option" = --publish ]; then
		publish=yes
	else
		options+=("$option")
	fi
done

results=${RESULTS:-$SOURCE/bench/results}
mkdir -p "$results" || exit 1
bash "$SOURCE/test/lib/packages.sh" build || exit 1
PG_CONFIG=$(find_pg_config) || fail "no PostgreSQL with its headers found"
private_folder
private_tree
private_build build
as_owner mkdir "$PRIVATE/results"
as_owner bash "$PRIVATE/src/bench/peers.sh" "$PRIVATE/pg"
as_owner ln -s "$(command -v redis-benchmark)" "$PRIVATE/bin/redis-benchmark"
as_owner bash "$PRIVATE/src/bench/servers.sh" "${options[@]}" &
wait $!
status=$?
cp "$PRIVATE"/results/* "$results"/ 2>/dev/null && echo "raw data and picture: $results"
[ -n "$publish" ] && { perl "$SOURCE/bench/publish.pl" "$results" "$SOURCE" || status=1; }
exit $status
