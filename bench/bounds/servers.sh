#!/bin/bash
#
# servers.sh MINUTES EVERY RATE: start PostgreSQL and make what the load needs, then
# run the load.  bounds.pl starts Redis, because it also ends it.

set -u
. "$(dirname "$0")/../../test/lib/servers.sh"

postgres_start "uncache.fence_ttl = '5min'" "shared_buffers = 256MB" || exit 1
psql -Xqv ON_ERROR_STOP=1 >/dev/null 2>&1 <<'SQL' || exit 1
CREATE EXTENSION pg_uncache;
CREATE TABLE item (id int PRIMARY KEY, shop int NOT NULL, n int NOT NULL) WITH (fillfactor = 50);
INSERT INTO item SELECT i, i % 100, 0 FROM generate_series(1, 20000) i;
SELECT uncache.attach('item', 'item:{id}', 'shop:{shop}:items');
VACUUM ANALYZE item;
SQL
exec perl -I"$PRIVATE/src/bench/lib" "$PRIVATE/src/bench/bounds/bounds.pl" "$@" \
	"$PRIVATE/tmp/bounds.csv"
