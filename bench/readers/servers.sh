#!/bin/bash
#
# servers.sh ROUNDS: start the servers, and run bench.py against them.

set -u
. "$(dirname "$0")/../../test/lib/servers.sh"

redis_start || exit 1
postgres_start "uncache.fence_ttl = '5min'" || exit 1
psql -Xqv ON_ERROR_STOP=1 >/dev/null <<'SQL' || exit 1
CREATE EXTENSION pg_uncache;
CREATE TABLE users (id int PRIMARY KEY, name text, email text, about text);
INSERT INTO users SELECT i, 'name ' || i, i || '@example.com', repeat('x', 200)
FROM generate_series(0, 9999) i;
SELECT uncache.attach('users', 'user:{id}');
VACUUM ANALYZE users;
SQL
fence_is_on() { [ "$(psql -XAtc 'SELECT fence FROM uncache.stat')" = on ]; }
await 20 "the fence to come on" fence_is_on || exit 1
PYTHONPATH=$PRIVATE/src/clients/python/src REDIS_URL=unix://$REDIS_SOCKET \
	exec /usr/bin/python3 "$PRIVATE/src/bench/readers/bench.py" "$1"
