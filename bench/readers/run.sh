#!/bin/bash
#
# run.sh [ROUNDS]: what a fenced read costs a reader, beside a plain one, in one run.
#
# A private PostgreSQL and Redis, and the client of clients/python with redis-py and psycopg from
# Debian; bench.py has the lanes.  The tables go to stdout.

set -u
. "$(dirname "$0")/../../test/lib/private.sh"
private_run readers bench/readers/servers.sh "${1:-40}"
