#!/bin/bash
#
# run.sh SECONDS [SEED]: what `make chaos` runs (chaos.pl says what that is).

set -u
. "$(dirname "$0")/../lib/private.sh"
private_run test test/chaos/inside.sh "$@"
