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
	"uncache.fence_ttl = 5min" "wal_level = replica" || exit 1
psql -XAtq -v ON_ERROR_STOP=1 >/dev/null 2>&1 <<-SQL || exit 1
	CREATE EXTENSION pg_uncache;
	CREATE TABLE stale (id int PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 50);
	INSERT INTO stale SELECT g, 0 FROM generate_series(0, 63) g;
	SELECT uncache.attach('stale', 'stale:{id}');
	CREATE TABLE listed (LIKE stale INCLUDING ALL) WITH (fillfactor = 50);
	INSERT INTO listed SELECT * FROM stale;
	SELECT uncache.attach('listed', 'gen:{id / 8}');
SQL
# What it reads is a little old, so that a page filled from there could be.
pg_basebackup -D "$PRIVATE/standby" -c fast -R -X stream || exit 1
echo "recovery_min_apply_delay = 20ms" >>"$PRIVATE/standby/postgresql.conf"
pg_ctl -D "$PRIVATE/standby" -o "-p $((PGPORT + 1))" -l "$PRIVATE/standby.log" -w start \
	>/dev/null || exit 1
stop_standby() { pg_ctl -D "$PRIVATE/standby" -m immediate stop >/dev/null; }
trap stop_standby EXIT
server="host=$PGHOST user=$PGUSER dbname=postgres port"

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
				"$server=$PGPORT" "$server=$((PGPORT + 1))" "$REDIS_SOCKET" |
				tee -a "$csv" >&2 || exit 1
		done
	done
done
perl "$here/report.pl" "$csv" "$PRIVATE/tmp/staleness.svg" "$PRIVATE/tmp/staleness.md"
