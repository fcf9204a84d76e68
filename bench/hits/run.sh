#!/bin/bash
#
# run.sh: how often a hot key hits, by writes of its row a second.
#
#	SECONDS_EACH=30			of each run
#	READS=20				a second
#	WRITES="0.2 1 5 20"		a second
#	LANES="primary standby repeatable"
#
# Table on the terminal; CSV in bench/results/hits.csv, or in $RESULTS.

set -u
. "$(dirname "$0")/../../test/lib/private.sh"

results=${RESULTS:-$SOURCE/bench/results}
mkdir -p "$results" || exit 1
private_ready build
as_owner bash "$PRIVATE/src/bench/hits/rounds.sh" "${SECONDS_EACH:-30}" "${READS:-20}" \
	"${WRITES:-0.2 1 5 20}" "${LANES:-primary standby repeatable}" &
wait $!
status=$?
cp "$PRIVATE/tmp/hits.csv" "$results"/ 2>/dev/null
exit $status
