#!/bin/bash
#
# side_by_side.sh [REGISTRY]: start the servers in $PRIVATE and run shop.mjs against them.

set -u
. "$(dirname "$0")/../../test/lib/servers.sh"
cd "$PRIVATE/src/demo/proof" || exit 1

redis_start || exit 1
postgres_start "uncache.fence_ttl = '5min'" "uncache.wait_timeout = '5s'" || exit 1
psql -Xqv ON_ERROR_STOP=1 >/dev/null 2>&1 <<'SQL' || exit 1
CREATE EXTENSION pg_uncache;
CREATE TABLE products (id int PRIMARY KEY, price int NOT NULL);
SELECT uncache.attach('products', 'plain:product:{id}', 'fenced:product:{id}');
SQL
fence_is_on() { [ "$(psql -XAtc 'SELECT fence FROM uncache.stat')" = on ]; }
await 20 "the fence to come on" fence_is_on || exit 1

echo "installing pg, ioredis, keyv and the package of clients/node"
if ! npm install --silent --no-audit --no-fund --no-save ${1:+--registry "$1"} \
		pg@8 ioredis@6 keyv@5 ../../clients/node >"$PRIVATE/npm.log" 2>&1; then
	cat "$PRIVATE/npm.log" >&2
	echo "npm could not install the libraries" >&2
	exit 1
fi
DATABASE_URL="postgresql:///postgres?host=$PGHOST&port=$PGPORT&user=$PGUSER" \
	REDIS_URL=$REDIS_SOCKET node shop.mjs
