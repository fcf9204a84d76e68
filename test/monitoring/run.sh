#!/bin/bash
#
# run.sh [PICTURE]: what `make test-monitoring` runs: deploy/monitoring against a private
# PostgreSQL and Redis, with a Prometheus and the exporters of Debian.
#
#	PICTURE		also draw the dashboard into this file, as SVG, from some minutes of data
#
# Not a part of `make test`, since the programs are large and seldom there.

set -u
here=$(cd "$(dirname "$0")" && pwd)
picture=${1:-}
if [ -z "$picture" ]; then
	. "$here/../lib/private.sh"
	private_run monitoring test/monitoring/servers.sh
fi

# The test runs as another user, who may not write everywhere.
drawn=$(mktemp)
chmod 666 "$drawn"
trap 'rm -f "$drawn"' EXIT
(. "$here/../lib/private.sh"; private_run monitoring test/monitoring/servers.sh "$drawn") || exit 1
cat "$drawn" >"$picture"
