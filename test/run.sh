#!/bin/bash
#
# run.sh: what `make test` runs.
#
# LAYERS="regress tap" runs only these layers, TESTS="003 fence" only these files of
# the TAP layer, by number or folder, PG_CONFIG=... another PostgreSQL.

set -u
. "$(dirname "$0")/lib/private.sh"
private_run test test/layers.sh
