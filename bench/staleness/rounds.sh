#!/bin/bash
#
# rounds.sh SESSIONS SECONDS ROUNDS STRATEGIES: run the strategies in turn and
# report.  The exit code is 1 when a fenced strategy was stale: that is a defect.

set -u
here=$(dirname "$0")
. "$here/../../test/lib/servers.sh"

sessions=$1 seconds=$2 rounds=$3 strategies=$4
csv=$PRIVATE/tmp/staleness.csv
program=$PRIVATE/tmp/staleness

gcc -O2 -Wall -Wextra -Werror -o "$program" "$here/staleness.c" \
	-I"$(pg_config --includedir)" -lpq -lhiredis -lpthread || exit 1
redis_start || exit 1
postgres_start "max_connections = 300" "shared_buffers = 256MB" \
	"uncache.fence_ttl = 5min" || exit 1
psql -XAtq -v ON_ERROR_STOP=1 >/dev/null 2>&1 <<-SQL || exit 1
	CREATE EXTENSION pg_uncache;
	CREATE TABLE stale (id int PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 50);
	INSERT INTO stale SELECT g, 0 FROM generate_series(0, 63) g;
	SELECT uncache.attach('stale', 'stale:{id}');
SQL

fence_is_on()
{
	[ "$(psql -XAtqc 'SELECT fence FROM uncache.stat')" = on ]
}

"$program" --header >"$csv"
for round in $(seq "$rounds"); do
	for n in $sessions; do
		for strategy in $strategies; do
			redis-cli -s "$REDIS_SOCKET" flushall >/dev/null
			await 30 "the fence" fence_is_on || exit 1
			"$program" "$strategy" "$n" "$seconds" \
				"host=$PGHOST port=$PGPORT user=$PGUSER dbname=postgres" \
				"$REDIS_SOCKET" | tee -a "$csv" >&2 || exit 1
		done
	done
done
perl "$here/report.pl" "$csv" "$PRIVATE/tmp/staleness.svg" "$PRIVATE/tmp/staleness.md"
