#!/bin/bash
#
# servers.sh [PICTURE]: start what is watched, and what watches, and run monitoring.py.  The
# last line is "N passed, N failed".

set -u
. "$(dirname "$0")/../lib/servers.sh"
cd "$PRIVATE" || exit 1

# Three ports of the loopback; another process may have them: then three others.
export PROMETHEUS_PORT POSTGRES_EXPORTER_PORT SQL_EXPORTER_PORT
ports_are_free()
{
	local port

	for port in "$@"; do
		! (: </dev/tcp/127.0.0.1/$port) 2>/dev/null || return 1
	done
}

choose_ports()
{
	local try

	for try in 1 2 3 4 5 6 7 8 9; do
		PGPORT=$((10000 + RANDOM % 20000))
		PROMETHEUS_PORT=$((PGPORT + 1))
		POSTGRES_EXPORTER_PORT=$((PGPORT + 2))
		SQL_EXPORTER_PORT=$((PGPORT + 3))
		ports_are_free "$PGPORT" $PROMETHEUS_PORT $POSTGRES_EXPORTER_PORT \
			$SQL_EXPORTER_PORT && return 0
	done
	return 1
}

sql()
{
	psql -XAtq -v ON_ERROR_STOP=1 "$@"
}

databases_start()
{
	local database

	redis_start || return 1
	postgres_start "port = $PGPORT" "listen_addresses = '127.0.0.1'" \
		"uncache.fence_ttl = '5min'" "uncache.wait_timeout = '200ms'" || return 1
	sql -c "CREATE ROLE monitor LOGIN IN ROLE pg_monitor" -c "CREATE DATABASE shop" || return 1
	for database in postgres shop; do
		sql -d $database -c "CREATE EXTENSION pg_uncache" \
			-c "CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)" \
			-c "INSERT INTO item SELECT generate_series(1, 1000)" \
			-c "SET client_min_messages = warning" \
			-c "SELECT uncache.attach('item', '$database:{id}')" \
			>/dev/null || return 1
	done
}

# The files of deploy/monitoring, with the addresses of this test and shorter intervals.
configure()
{
	local from=$PRIVATE/src/deploy/monitoring

	cp "$from/alerts.yml" "$from/postgres_exporter.yml" .
	sed -e "s,127.0.0.1:5432,127.0.0.1:$PGPORT," -e "s,interval: '10s',interval: '1s'," \
		"$from/prometheus-sql-exporter.yml" >sql_exporter.yml
	# The second job is commented out, since it is one or the other.
	sed -e 's,^  #,  ,' -e 's,_interval: 15s,_interval: 1s,' \
		-e "s,127.0.0.1:9187,127.0.0.1:$POSTGRES_EXPORTER_PORT," \
		-e "s,127.0.0.1:9237,127.0.0.1:$SQL_EXPORTER_PORT," \
		-e '/names all metrics sql_/d' -e '/the two jobs, or every/d' \
		-e '/postgres_exporter, or sql_exporter/d' "$from/prometheus.yml" >prometheus.yml
}

exporters_start()
{
	DATA_SOURCE_NAME="postgresql://monitor@127.0.0.1:$PGPORT/postgres?sslmode=disable" \
		prometheus-postgres-exporter --web.listen-address=127.0.0.1:$POSTGRES_EXPORTER_PORT \
		--disable-default-metrics --disable-settings-metrics \
		--extend.query-path=postgres_exporter.yml >postgres_exporter.log 2>&1 &
	prometheus-sql-exporter -config.file sql_exporter.yml \
		-web.listen-address 127.0.0.1:$SQL_EXPORTER_PORT >sql_exporter.log 2>&1 &
	prometheus --config.file=prometheus.yml --storage.tsdb.path=tsdb \
		--web.listen-address=127.0.0.1:$PROMETHEUS_PORT >prometheus.log 2>&1 &
	await 30 "the exporters to listen" answers $POSTGRES_EXPORTER_PORT || return 1
	await 30 "the exporters to listen" answers $SQL_EXPORTER_PORT || return 1
	await 60 "Prometheus to listen" answers $PROMETHEUS_PORT
}

answers()
{
	(: </dev/tcp/127.0.0.1/$1) 2>/dev/null
}

if ! { choose_ports && databases_start && configure && exporters_start; }; then
	tail -n 20 ./*.log
	echo "0 passed, 1 failed"
	exit 1
fi
python3 -B "$PRIVATE/src/test/monitoring/monitoring.py" "${1:-}"
