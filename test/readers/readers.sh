#!/bin/bash
#
# readers.sh [REGISTRY]: run the drivers, one an example.  Prints TAP lines; the last
# line is "N passed, N failed".

set -u
. "$(dirname "$0")/../lib/servers.sh"
cd "$PRIVATE/src/test/readers" || exit 1

redis_start || exit 1
postgres_start "uncache.fence_ttl = '5min'" "uncache.wait_timeout = '5s'" \
	"uncache.stream = 'uncache:deleted'" || exit 1
psql -Xqv ON_ERROR_STOP=1 >/dev/null 2>&1 <<'SQL' || exit 1
CREATE EXTENSION pg_uncache;
CREATE TABLE users (id int PRIMARY KEY, name text);
SELECT uncache.attach('users', 'user:{id}', ':1:user:{id}');
SQL
fence_is_on() { [ "$(psql -XAtc 'SELECT fence FROM uncache.stat')" = on ]; }
await 20 "the fence to come on" fence_is_on || exit 1

# pg and ioredis, beside the examples, where they look for them
examples=$PRIVATE/src/docs/examples
if ! (cd "$examples" && npm install --silent --no-audit --no-fund --no-save \
		${1:+--registry "$1"} pg ioredis) >"$PRIVATE/npm.log" 2>&1; then
	cat "$PRIVATE/npm.log" >&2
	echo "npm could not install pg and ioredis" >&2
	exit 1
fi

# What the examples take for their Redis, so that it can go away.
/usr/bin/python3 proxy.py "$REDIS_SOCKET" "$PRIVATE/proxy.port" &
export PROXY_PID=$!
await 10 "the proxy to listen" test -e "$PRIVATE/proxy.port" || exit 1
proxy=redis://127.0.0.1:$(cat "$PRIVATE/proxy.port")

export DATABASE_URL="postgresql:///postgres?host=$PGHOST&port=$PGPORT&user=$PGUSER"
log=$PRIVATE/readers.log
drive()
{
	echo "# $*"
	timeout 60 "$@" 2>&1 || echo "not ok - $* has ended with code $?"
}
{
	REDIS_URL=$proxy DIRECT_URL=$REDIS_SOCKET drive node drive.js
	REDIS_URL=$proxy DIRECT_URL=unix://$REDIS_SOCKET drive /usr/bin/python3 drive.py
	REDIS_URL=unix://$REDIS_SOCKET drive /usr/bin/python3 django_cache.py
	REDIS_URL=$proxy DIRECT_URL=$REDIS_SOCKET drive node stream_l1.mjs
	REDIS_URL=$proxy DIRECT_URL=unix://$REDIS_SOCKET drive /usr/bin/python3 stream_purger.py
} | tee "$log"
kill $PROXY_PID

passed=$(grep -c '^ok ' "$log")
failed=$(grep -c '^not ok ' "$log")
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
