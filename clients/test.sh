#!/bin/bash
#
# test.sh: what `make test-clients` runs: the tests of each client against servers of its own.
#
#	CLIENTS="node php"		only these
#	RACE_SECONDS=30			how long each race lasts; 10 unless told
#
# clients/README.md says what a client's tests find in their environment.

set -u
. "$(dirname "$0")/../test/lib/private.sh"
export CLIENTS=${CLIENTS:-node python ruby php}
private_run clients clients/servers.sh "$CLIENTS" "${RACE_SECONDS:-10}" \
	"$(npm config get registry 2>/dev/null)"
