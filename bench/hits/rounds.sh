#!/bin/bash
#
# rounds.sh SECONDS READS WRITES LANES: a primary, a standby and Redis; then each lane at each
# number of writes a second.

set -u
here=$(dirname "$0")
. "$here/../../test/lib/servers.sh"

seconds=$1 reads=$2 writes=$3 lanes=$4
csv=$PRIVATE/tmp/hits.csv
program=$PRIVATE/tmp/hits
primary="host=$PGHOST port=$PGPORT user=$PGUSER dbname=postgres"

gcc -O2 -Wall -Wextra -Werror -Wno-unused-parameter -o "$program" "$here/hits.c" \
	-I"$(pg_config --includedir)" -lpq -lhiredis -lpthread -lm || exit 1
redis_start || exit 1
postgres_start "uncache.fence_ttl = 5min" "wal_level = replica" || exit 1
psql -XAtq -v ON_ERROR_STOP=1 >/dev/null 2>&1 <<-SQL || exit 1
	CREATE EXTENSION pg_uncache;
	CREATE TABLE hot (id int PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 50);
	INSERT INTO hot VALUES (1, 0);
	SELECT uncache.attach('hot', 'hot:{id}');
SQL
pg_basebackup -D "$PRIVATE/standby" -c fast -R -X stream || exit 1
pg_ctl -D "$PRIVATE/standby" -o "-p $((PGPORT + 1))" -l "$PRIVATE/standby.log" -w start \
	>/dev/null || exit 1
stop_standby() { pg_ctl -D "$PRIVATE/standby" -m immediate stop >/dev/null; }
trap stop_standby EXIT

fence_is_on()
{
	[ "$(psql -XAtqc 'SELECT fence FROM uncache.stat')" = on ]
}

await 60 "the fence" fence_is_on || exit 1
"$program" --header | tee "$csv" >&2
for lane in $lanes; do
	case $lane in
		*standby) reader=${primary/port=$PGPORT/port=$((PGPORT + 1))} ;;
		*) reader=$primary ;;
	esac
	for n in $writes; do
		"$program" "$lane" "$n" "$reads" "$seconds" "$primary" "$reader" "$REDIS_SOCKET" |
			tee -a "$csv" >&2 || exit 1
	done
done
echo "beats: $(psql -XAtqc 'SELECT beats FROM uncache.stat')" >&2
