#!/bin/bash
#
# majors_inside.sh OLD NEW: for majors.sh, in its system, as root.
#
# Builds the library for both majors, makes rules and a backlog on the older server, runs
# pg_upgrade, and looks whether the newer one delivers.  Prints "N passed, N failed".

set -u
old=/usr/lib/postgresql/$1/bin
new=/usr/lib/postgresql/$2/bin
socket=/tmp/redis.socket
passed=0
failed=0

ok()							# ok WHAT COMMAND...
{
	local what=$1

	shift
	if "$@" >/tmp/said 2>&1; then
		echo "ok      $what"
		passed=$((passed + 1))
	else
		echo "FAILED  $what"
		tail -n 30 /tmp/said
		failed=$((failed + 1))
	fi
}

as_postgres()
{
	(cd /tmp && setpriv --reuid postgres --regid postgres --clear-groups "$@")
}

sql()							# sql COMMAND
{
	as_postgres psql -h /tmp -p 5999 -XAtq -v ON_ERROR_STOP=1 -d postgres -c "$1"
}

redis()
{
	redis-cli -s $socket "$@"
}

redis_start()
{
	(exec -a redis-server redis-check-rdb --port 0 --unixsocket $socket --unixsocketperm 777 \
		--dir /tmp --save '' --appendonly no >>/tmp/redis.log 2>&1) &
	poll redis ping
}

poll()							# for a minute
{
	local i

	for ((i = 0; i < 600; i++)); do
		! "$@" >/dev/null 2>&1 || return 0
		sleep 0.1
	done
	return 1
}

is()							# is VALUE COMMAND...
{
	local value=$1

	shift
	[ "$("$@")" = "$value" ]
}

start()							# start FOLDER PROGRAMS
{
	as_postgres "$2/pg_ctl" -D "$1" -l "$1.log" -w -o "-k /tmp -p 5999 -c listen_addresses=''" start
}

build()
{
	mkdir "/tmp/src-$1" && cp -r /mnt/. "/tmp/src-$1" &&
		make -s -C "/tmp/src-$1" clean with_llvm=no PG_CONFIG="$2/pg_config" &&
		make -s -C "/tmp/src-$1" -j2 with_llvm=no PG_CONFIG="$2/pg_config" install
}

initdb_with()					# initdb_with FOLDER PROGRAMS
{
	as_postgres "$2/initdb" -D "$1" -U postgres -A trust -E UTF8 --locale C --no-sync \
		$("$2/initdb" --help | grep -q -- --no-data-checksums && echo --no-data-checksums) &&
		printf '%s\n' "shared_preload_libraries = 'pg_uncache'" "uncache.wait_timeout = 0" \
			"uncache.redis_url = 'unix://$socket'" "fsync = off" \
			"max_prepared_transactions = 10" >>"$1/postgresql.conf"
}

keys_are_gone()
{
	[ "$(redis exists item:1 item:2 '{item}:all' many:1 many:5000 part:1)" = 0 ]
}

rules='SELECT relation, trigger, events, templates, enabled, problem
	FROM uncache.rules ORDER BY 1, 2'
id postgres >/dev/null 2>&1 || useradd postgres
ok "the library is built for $1" build "$1" "$old"
ok "and for $2" build "$2" "$new"
ok "servers are made" initdb_with /tmp/old "$old"
ok "of both majors" initdb_with /tmp/new "$new"
redis_start
ok "the older one starts" start /tmp/old "$old"
sql 'CREATE EXTENSION pg_uncache'
sql 'CREATE TABLE item (id int PRIMARY KEY, v int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 9) i'
sql "SELECT uncache.attach('item', 'item:{id}', '{{item}}:all')" >/dev/null
sql 'CREATE TABLE part (id int, name text) PARTITION BY RANGE (id);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (10);
	INSERT INTO part VALUES (1, NULL)'
sql "SELECT uncache.attach('part', 'part:{id}')" >/dev/null
ok "it delivers" is t sql "SELECT uncache.wait('1 min')"
for key in item:1 item:2 item:3 '{item}:all' many:1 many:5000 part:1 other:1; do
	redis set "$key" 1 >/dev/null
done

# A backlog of each kind, and Redis away without losing its keys.
sql "ALTER SYSTEM SET uncache.delivery = off"
sql "SELECT pg_reload_conf()" >/dev/null
poll is paused sql 'SELECT state FROM uncache.stat'
sql 'UPDATE item SET v = 1 WHERE id = 1'
sql "SELECT count(uncache.invalidate_keys('many:' || i)) FROM generate_series(1, 5000) i" >/dev/null
sql "BEGIN; UPDATE item SET v = 1 WHERE id = 2; PREPARE TRANSACTION 'two'"
sql "COMMIT PREPARED 'two'"
sql 'TRUNCATE part'
ok "nothing of it is delivered" is 8 redis dbsize
before=$(sql "$rules")
as_postgres "$old/pg_ctl" -D /tmp/old -m fast -w stop >/dev/null

ok "pg_upgrade from $1 to $2" as_postgres "$new/pg_upgrade" -b "$old" -B "$new" -d /tmp/old \
	-D /tmp/new -s /tmp -U postgres
ok "it has deleted nothing" is 8 redis dbsize
ok "the newer server starts" start /tmp/new "$new"
ok "and delivers what the older one had not" poll keys_are_gone
ok "all of it" is t sql "SELECT uncache.wait('1 min')"
ok "and nothing else" is 2 redis exists item:3 other:1
ok "the rules are as they were" is "$before" sql "$rules"
sql "UPDATE item SET v = 2 WHERE id = 3; SELECT uncache.wait('1 min')" >/dev/null
ok "and work" is 0 redis exists item:3
ok "the log has nothing bad" sh -c '! grep -E "PANIC|TRAP|WARNING" /tmp/new.log'

echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
