#!/bin/bash
#
# run.sh: what `make test-deploy` runs: pg_uncache beside the programs that databases are run with:
# Patroni (deploy/patroni), pg_repack, pg_partman, pgBackRest.
#
#	TESTS="patroni"		only these

set -u
. "$(dirname "$0")/../lib/private.sh"
private_run deploy test/deploy/deploy.sh
