#!/bin/bash
#
# inside.sh SECONDS [SEED]: chaos.pl in the folder that private.sh made.

set -u
cd "$PRIVATE/src" || exit 1
pgxs=$(dirname "$(pg_config --pgxs)")/../..
mkdir -p tmp_check
TESTDIR=$PWD PG_REGRESS=$pgxs/src/test/regress/pg_regress \
	exec perl -I "$pgxs/src/test/perl" -I test/lib test/chaos/chaos.pl "$@"
