#!/bin/bash
#
# servers.sh CLIENTS RACE_SECONDS [NPM-REGISTRY]: start what the clients are tested against
# and run the tests of each.  Prints their TAP lines; the last line is "N passed, N failed".
#
# Model: one primary with a standby and a PgBouncer, one Redis on a port of the loopback, and
# a Redis Cluster of three masters.  Each client has two databases (its keys go to a database
# of the Redis with a number of its own, and to the cluster) and runs alone, so that it may
# stop the Redis for a while.  A client that ends without a plan, or runs another number of
# tests than it planned, has failed.  One that ends with code 77 is left out; its last line says
# what this machine has not.

set -u
. "$(dirname "$0")/../test/lib/servers.sh"
clients=$1
export RACE_SECONDS=$2 npm_config_registry=${3:-https://registry.npmjs.org/}
cd "$PRIVATE/src/clients" || exit 1

export STANDBY_PORT=54322 PGBOUNCER_PORT=54323 REDIS_HOST=127.0.0.1
passed=0
failed=0
failures=

# One Redis and three masters on ports that follow each other; the bus of a master is at its
# port and 10000.  Another process may have one of them: then the next ones are tried.
redis_servers_start()
{
	local try

	for try in 1 2 3 4 5; do
		REDIS_PORT=$((10000 + RANDOM % 20000))
		REDIS_CLUSTER_PORT=$((REDIS_PORT + 1))
		masters_start && return 0
		kill $masters "$REDIS_PID" 2>/dev/null
	done
	cat "$PRIVATE"/redis*.log >&2
	return 1
}

masters_start()
{
	local port ports=

	masters=
	redis_start --bind 127.0.0.1 --port "$REDIS_PORT" || return 1
	for port in 1 2 3; do
		port=$((REDIS_PORT + port))
		ports+=" 127.0.0.1:$port"
		mkdir -p "$PRIVATE/master.$port"
		redis-server --bind 127.0.0.1 --port $port --dir "$PRIVATE/master.$port" --save '' \
			--loglevel warning --cluster-enabled yes >>"$PRIVATE/redis.$port.log" 2>&1 &
		masters+=" $!"
	done
	for port in $ports; do
		await 10 "a master to answer" master_answers "${port#*:}" || return 1
	done
	redis-cli --cluster create $ports --cluster-yes >"$PRIVATE/redis.create.log" 2>&1 || return 1
	await 20 "the cluster to be complete" cluster_is_ok
}

master_answers()
{
	[ "$(redis-cli -h 127.0.0.1 -p "$1" ping 2>/dev/null)" = PONG ]
}

cluster_is_ok()
{
	local port

	for port in 1 2 3; do
		redis-cli -h 127.0.0.1 -p $((REDIS_PORT + port)) cluster info 2>/dev/null |
			grep -q '^cluster_state:ok' || return 1
	done
}

standby_start()
{
	pg_basebackup -D "$PRIVATE/standby" -R -C -S standby -c fast >"$PRIVATE/backup.log" 2>&1 &&
		echo "port = $STANDBY_PORT" >>"$PRIVATE/standby/postgresql.conf" &&
		pg_ctl -D "$PRIVATE/standby" -l "$PRIVATE/standby.log" -w start >/dev/null
}

# In transaction pooling; a few server connections serve many clients.
pgbouncer_start()
{
	local program

	program=$(command -v pgbouncer || echo /usr/sbin/pgbouncer)
	mkdir "$PRIVATE/pgbouncer"
	cat >"$PRIVATE/pgbouncer/pgbouncer.ini" <<-INI
		[databases]
		* = host=$PGHOST port=$PGPORT
		[pgbouncer]
		listen_addr =
		listen_port = $PGBOUNCER_PORT
		unix_socket_dir = $PGHOST
		auth_type = any
		pool_mode = transaction
		default_pool_size = 10
		max_client_conn = 400
		ignore_startup_parameters = extra_float_digits
	INI
	# auth_type any takes the user that the database's line names.
	sed -i "s/^\* = .*/& user=$PGUSER/" "$PRIVATE/pgbouncer/pgbouncer.ini"
	(cd "$PRIVATE/pgbouncer" && exec "$program" -q pgbouncer.ini) \
		>"$PRIVATE/pgbouncer.log" 2>&1 &
	await 10 "PgBouncer to answer" psql -Xqp "$PGBOUNCER_PORT" -d postgres -c '' 2>/dev/null
}

# database NAME URL: with the extension, its keys going to URL.
database_make()
{
	psql -Xqv ON_ERROR_STOP=1 -c "CREATE DATABASE $1" \
		-c "ALTER DATABASE $1 SET uncache.redis_url = '$2'" &&
		psql -Xqv ON_ERROR_STOP=1 -d "$1" -c 'CREATE EXTENSION pg_uncache' &&
		await 30 "the fence of $1" fence_is_on "$1"
}

fence_is_on()
{
	[ "$(psql -XAtd "$1" -c 'SELECT fence FROM uncache.stat')" = on ]
}

# client NAME NUMBER: make its databases, run its tests, count.
client()
{
	local log=$PRIVATE/$1.log status plan ok bad

	export PGDATABASE=uncache_$1 REDIS_DB=$2
	export REDIS_PORT REDIS_CLUSTER_PORT REDIS_PID CONFORMANCE=$PWD/conformance
	export REDIS_URL=redis://127.0.0.1:$REDIS_PORT/$REDIS_DB WORK=$PRIVATE/work.$1
	mkdir "$WORK"
	PGDATABASE=postgres database_make "uncache_$1" "$REDIS_URL" &&
		PGDATABASE=postgres database_make "uncache_$1_cluster" \
			"redis+cluster://127.0.0.1:$REDIS_CLUSTER_PORT" ||
		{ failed=$((failed + 1)); failures+="failed: $1: no databases"$'\n'; return; }
	echo "# $1"
	timeout 900 "$1/test/run" | tee "$log"
	status=${PIPESTATUS[0]}
	kill -CONT "$REDIS_PID"

	if [ $status -eq 77 ]; then
		echo "LEFT OUT: the client $1: $(tail -n 1 "$log")"
		return
	fi
	plan=$(sed -n 's/^1\.\.\([0-9][0-9]*\).*/\1/p' "$log" | tail -n 1)
	ok=$(grep -E '^ok ' "$log" | grep -vciE '# *skip')
	bad=$(grep -c '^not ok ' "$log")
	if [ $bad -eq 0 ] && { [ $status -ne 0 ] ||
			[ "$(grep -c '^ok ' "$log")" != "${plan:-none}" ] || [ $ok -eq 0 ]; }; then
		echo "not ok - ended with code $status, and a plan of ${plan:-none}" | tee -a "$log"
		bad=1
	fi
	passed=$((passed + ok))
	failed=$((failed + bad))
	failures+=$(sed -n "s/^not ok [0-9]* *-* */failed: $1: /p" "$log")$'\n'
}

redis_servers_start || exit 1
postgres_start "uncache.fence_ttl = '5min'" "uncache.wait_timeout = '5s'" \
	"uncache.max_database_workers = 12" "max_worker_processes = 24" "max_connections = 400" \
	"superuser_reserved_connections = 20" || exit 1
standby_start || { cat "$PRIVATE"/{backup,standby}.log >&2; exit 1; }
pgbouncer_start || { cat "$PRIVATE/pgbouncer.log" >&2; exit 1; }

number=0
for name in node python ruby php; do
	number=$((number + 1))
	[[ " $clients " == *" $name "* ]] || continue
	# A client without tests is one that nobody has written yet, or has forgotten here.
	if [ -x "$name/test/run" ]; then
		client "$name" $number
	else
		echo "not ok - clients/$name/test/run is not there"
		failures+="failed: $name: has no test/run"$'\n'
		failed=$((failed + 1))
	fi
done
printf '%s' "$failures" | sed '/^$/d'
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
