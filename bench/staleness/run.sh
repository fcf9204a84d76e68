#!/bin/bash
#
# run.sh: what `make staleness` runs: how stale is a cache under each strategy?
#
#	SESSIONS="1 10 100 200"	sessions side by side
#	SECONDS_EACH=10			of each run
#	ROUNDS=1				of all runs, interleaved
#	STRATEGIES="0 1 ... 9"	numbers in staleness.c
#
# Table on the terminal; CSV, picture and the README's table in bench/results, or in
# $RESULTS.  publish.pl brings them into the documentation.

set -u
. "$(dirname "$0")/../../test/lib/private.sh"

results=${RESULTS:-$SOURCE/bench/results}
mkdir -p "$results" || exit 1
private_ready build
as_owner bash "$PRIVATE/src/bench/staleness/rounds.sh" "${SESSIONS:-1 10 100}" \
	"${SECONDS_EACH:-5}" "${ROUNDS:-1}" "${STRATEGIES:-0 1 2 3 4 5 6 7 8 9}" &
wait $!
status=$?
cp "$PRIVATE"/tmp/staleness.{csv,svg,md} "$results"/ 2>/dev/null &&
	echo "raw data and picture: $results"
exit $status
