# find.sh: where PostgreSQL and Redis are on this machine.  To be sourced.
#
# Each function prints what it finds; nothing, with a non-zero exit code, when
# there is none.

# The pg_config of the newest PostgreSQL that has both a server and the headers
# to build for it, or $PG_CONFIG where that is set.
find_pg_config()
{
	local candidate

	if [ -n "${PG_CONFIG:-}" ]; then
		usable_pg_config "$PG_CONFIG" && command -v "$PG_CONFIG"
		return
	fi
	for candidate in $(ls -d /usr/lib/postgresql/*/bin/pg_config /usr/pgsql-*/bin/pg_config \
			2>/dev/null | sort -rV) pg_config; do
		if usable_pg_config "$candidate"; then
			command -v "$candidate"
			return
		fi
	done
	return 1
}

usable_pg_config()
{
	local major

	command -v "$1" >/dev/null || return 1
	major=$("$1" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
	[ "${major:-0}" -ge 15 ] &&
		[ -x "$("$1" --bindir)/postgres" ] &&
		[ -e "$("$1" --includedir-server)/postgres.h" ] &&
		[ -e "$("$1" --pgxs)" ]
}

# Major of the newest server in Debian's places that pg_uncache can run in.
find_server_major()
{
	local major

	major=$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null |
		sed 's,/usr/lib/postgresql/\([0-9]*\)/.*,\1,' | sort -n | tail -n 1)
	[ "${major:-0}" -ge 15 ] && echo "$major"
}

#
# A program that is a Redis server when it is called redis-server.  Debian's
# redis-tools has the same binary under the name redis-check-rdb: enough to run
# a server of our own, and it brings no service with it.
#
find_redis_program()
{
	command -v "${REDIS_SERVER:-redis-server}" ||
		command -v redis-check-rdb || command -v valkey-server
}

find_redis_cli()
{
	command -v "${REDIS_CLI:-redis-cli}" || command -v valkey-cli
}
