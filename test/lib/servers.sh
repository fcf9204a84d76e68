# servers.sh: start and stop the servers in $PRIVATE.  To be sourced by bash,
# in a script that private_run() started.
#
# PostgreSQL and Redis listen on Unix sockets in $PRIVATE/sock, and nowhere
# else.  Who sources this need not stop them: private.sh does, at the end.

export PGHOST=$PRIVATE/sock PGPORT=54321 PGUSER=postgres PGDATABASE=postgres
export REDIS_SOCKET=$PRIVATE/sock/redis
# For redis-cli where a test calls it from within PostgreSQL.
export REDIS_OPTIONS="-s $REDIS_SOCKET"
REDIS_PID=

# redis_start [OPTION]...: start Redis and wait until it answers.
redis_start()
{
	mkdir -p "$PRIVATE/redis"
	redis-server --port 0 --unixsocket "$REDIS_SOCKET" --dir "$PRIVATE/redis" --save '' \
		--loglevel warning "$@" >>"$PRIVATE/redis.log" 2>&1 &
	REDIS_PID=$!
	await 10 "Redis to answer" redis_answers
}

redis_answers()
{
	[ "$(redis-cli -s "$REDIS_SOCKET" ping 2>/dev/null)" = PONG ]
}

redis_kill()
{
	kill -KILL "$REDIS_PID"
	wait "$REDIS_PID" 2>/dev/null
	REDIS_PID=
}

# postgres_start [LINE OF postgresql.conf]...: make a cluster and start it.
postgres_start()
{
	initdb -D "$PRIVATE/data" -U postgres -A trust -E UTF8 --no-locale --no-sync \
		>"$PRIVATE/initdb.log" 2>&1 || { cat "$PRIVATE/initdb.log" >&2; return 1; }
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$PRIVATE/sock'"
		# The folder does not outlive a crash of the machine.
		echo "fsync = off"
		echo "log_line_prefix = '%m [%p] %b %d '"
		echo "shared_preload_libraries = 'pg_uncache'"
		echo "uncache.redis_url = 'unix://$REDIS_SOCKET'"
		[ $# -eq 0 ] || printf '%s\n' "$@"
	} >>"$PRIVATE/data/postgresql.conf"
	if ! pg_ctl -D "$PRIVATE/data" -l "$PRIVATE/postgres.log" -w start >/dev/null; then
		cat "$PRIVATE/postgres.log" >&2
		return 1
	fi
}

postgres_stop()
{
	pg_ctl -D "$PRIVATE/data" -m fast -w stop >/dev/null
}

# await SECONDS WHAT COMMAND...: until the command succeeds.
await()
{
	local deadline=$((SECONDS + $1)) what=$2

	shift 2
	until "$@"; do
		if [ $SECONDS -ge $deadline ]; then
			echo "waited in vain for $what" >&2
			return 1
		fi
		sleep 0.05
	done
}
