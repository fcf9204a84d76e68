#!/bin/bash
#
# run.sh: what `make test-readers` runs: the examples of docs/readers.md and of
# docs/stream.md, and Django's cache, against a private PostgreSQL and Redis.
#
# Not a part of `make test`, since it needs npm, which installs into the
# private folder.  The rest comes from Debian (see packages.sh).

set -u
. "$(dirname "$0")/../lib/private.sh"
private_run readers test/readers/readers.sh "$(npm config get registry 2>/dev/null)"
