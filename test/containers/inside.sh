#!/bin/bash
#
# inside.sh server|cloudnative-pg|without-libraries: what run.sh runs in a container, as the user
# postgres: a new cluster, CREATE EXTENSION, a rule, an UPDATE, and a look whether it is delivered.
#
# server: as the image is.  cloudnative-pg: with the settings and the environment that the
# operator makes from cluster.yaml, in /projected/settings.  without-libraries: the same
# without LD_LIBRARY_PATH; succeeds where the server then does not find hiredis.

set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
export PGHOST=/tmp PGDATABASE=postgres PGUSER=postgres
data=$(mktemp -d)
trap 'pg_ctl -D "$data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$data"' EXIT

initdb -D "$data" -A trust --no-sync >/dev/null
{
	echo "listen_addresses = ''"
	echo "unix_socket_directories = '/tmp'"
	[ "$1" = server ] || cat /projected/settings
	echo "uncache.redis_url = 'unix:///redis/socket'"
	echo "uncache.redis_password_file = '/projected/redis/password'"
} >>"$data/postgresql.conf"

if [ "$1" = cloudnative-pg ]; then
	LD_LIBRARY_PATH=$(sed -n 's/^# LD_LIBRARY_PATH=//p' /projected/settings)
	export LD_LIBRARY_PATH
fi
if ! pg_ctl -D "$data" -w -l "$data/log" start >/dev/null; then
	cat "$data/log"
	[ "$1" = without-libraries ] && grep -q 'could not load library.*libhiredis' "$data/log"
	exit
fi
[ "$1" != without-libraries ]

# What compose.yaml gives a new data folder: the extension, a table, a rule.
psql -Xq -v ON_ERROR_STOP=1 -f /deploy/init.sql
[ "$(psql -XAtqc "SELECT uncache.wait('30 s')")" = t ]
psql -Xq -v ON_ERROR_STOP=1 -c "UPDATE users SET name = 'other' WHERE id = 1"
[ "$(psql -XAtqc "SELECT uncache.wait('30 s')")" = t ] || { cat "$data/log"; exit 1; }
