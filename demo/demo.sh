#!/bin/bash
#
# demo.sh: the main job in front of one's eyes, with a real PostgreSQL and a
# real Redis in $PRIVATE.
#
# Everything indented is what psql and redis-cli printed.  Each step checks
# what it claims; the first one that does not hold ends the demo with exit
# code 1.

set -u
. "$(dirname "$0")/../test/lib/servers.sh"

if [ -t 1 ]; then
	bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m')
else
	bold='' dim='' plain=''
fi

step()
{
	printf '\n%s%s%s\n' "$bold" "$1" "$plain"
}

proved()
{
	printf '  %s=> %s%s\n' "$bold" "$1" "$plain"
}

#
# sql STATEMENT: in the one session of this demo, and show what psql printed.
# The marker tells where the output of a statement ends.
#
sql()
{
	local line

	printf '  %spsql>%s %s\n' "$dim" "$plain" "$1"
	SQL_OUTPUT=
	printf '%s\n\\echo end-of-output\n' "$1" >&"${PSQL[1]}"
	while IFS= read -r line <&"${PSQL[0]}"; do
		[ "$line" = end-of-output ] && break
		[ -n "$line" ] && printf '         %s\n' "$line"
		SQL_OUTPUT+=$line$'\n'
	done
	case $SQL_OUTPUT in
		*ERROR:* | *FATAL:* | *WARNING:*) broken "PostgreSQL objected" ;;
	esac
}

redis()
{
	printf '  %sredis>%s %s\n' "$dim" "$plain" "$*"
	REDIS_OUTPUT=$(redis-cli -s "$REDIS_SOCKET" --no-raw "$@")
	printf '%s\n' "$REDIS_OUTPUT" | sed 's/^/         /'
}

# redis_says ANSWER COMMAND...: the answer must be this one.
redis_says()
{
	local expected=$1

	shift
	redis "$@"
	[ "$REDIS_OUTPUT" = "$expected" ] ||
		broken "expected $expected"
}

# Not shown: put the keys back that a reader would have filled in.
fill()
{
	redis-cli -s "$REDIS_SOCKET" mset "$@" >/dev/null
}

key_is_gone()
{
	[ "$(redis-cli -s "$REDIS_SOCKET" exists "$1")" = 0 ]
}

broken()
{
	printf '\nThe demo failed: %s.\nThe end of the server log:\n' "$1" >&2
	tail -n 20 "$PRIVATE/postgres.log" >&2
	exit 1
}

open_session()
{
	coproc PSQL { psql -X --quiet --set=VERBOSITY=terse --pset=footer=off 2>&1; }
}

prepare()
{
	redis_start --appendonly yes --appendfsync always || exit 1
	postgres_start "uncache.wait_timeout = '2s'" || exit 1
	open_session
	postgres=$(postgres --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/')
	redis=$(redis-cli -s "$REDIS_SOCKET" info server |
		sed -n 's/^redis_version:\([0-9.]*\).*/\1/p')
	step "PostgreSQL $postgres and Redis $redis are running in $PRIVATE"
	sql "CREATE EXTENSION pg_uncache;"
	sql "CREATE TABLE users (id int PRIMARY KEY, email text, org int);"
	sql "INSERT INTO users VALUES (1, 'ann@example.com', 7), (2, 'bob@example.com', 7);"
	sql "SELECT uncache.attach('users', 'user:{id}', 'email:{email}');"
	await 20 "the worker to connect" worker_is connected || broken "the worker did not connect"
}

worker_is()
{
	[ "$(psql -XAtq -c 'SELECT state FROM uncache.stat')" = "$1" ]
}

worker_is_not()
{
	! worker_is "$1"
}

show_commit()
{
	step "1. COMMIT"
	fill user:1 'Ann, as cached' user:2 'Bob, as cached'
	sql "BEGIN;"
	sql "UPDATE users SET org = 8 WHERE id = 1;"
	redis_says '"Ann, as cached"' GET user:1
	sql "COMMIT;"
	redis_says '(nil)' GET user:1
	redis_says '"Bob, as cached"' GET user:2
	proved "The key of the changed row was there until COMMIT and is gone after it; \
no other key was touched."
}

show_rollback()
{
	step "2. ROLLBACK"
	sql "BEGIN;"
	sql "DELETE FROM users WHERE id = 2;"
	sql "SELECT key FROM uncache.transaction_keys();"
	sql "ROLLBACK;"
	redis_says '"Bob, as cached"' GET user:2
	proved "What is rolled back deletes nothing, though the transaction could show \
what it would have deleted."
}

show_savepoint()
{
	step "3. A savepoint"
	fill user:1 'Ann, as cached'
	sql "BEGIN;"
	sql "UPDATE users SET org = 9 WHERE id = 1;"
	sql "SAVEPOINT s;"
	sql "UPDATE users SET org = 9 WHERE id = 2;"
	sql "ROLLBACK TO s;"
	sql "COMMIT;"
	redis_says '(nil)' GET user:1
	redis_says '"Bob, as cached"' GET user:2
	proved "Of one transaction exactly the part that was committed has deleted its key."
}

show_rename()
{
	step "4. A row that changes its key"
	fill email:bob@example.com 2 email:robert@example.com 'nobody'
	sql "UPDATE users SET email = 'robert@example.com' WHERE id = 2;"
	redis_says '(integer) 0' EXISTS email:bob@example.com email:robert@example.com
	proved "The old name is deleted, and the new one, under which a reader may have cached \
that there is nothing."
}

show_truncate()
{
	step "5. TRUNCATE beside a neighbour's keys"
	sql "CREATE TABLE sessions (id int PRIMARY KEY);"
	sql "SELECT uncache.attach('sessions', 'session:{id}');"
	fill session:1 a session:2 b session:3 c session:settings d session:4:cart e
	redis KEYS 'session:*'
	sql "TRUNCATE sessions;"
	sql "SELECT uncache.wait();"
	redis KEYS 'session:*'
	[ "$(redis-cli -s "$REDIS_SOCKET" --raw keys 'session:*' | sort | tr '\n' ' ')" = \
		'session:4:cart session:settings ' ] ||
		broken "these are not the two keys that should be left"
	proved "Every key that the rule could have made is gone (the table was empty: \
they were found in Redis); keys that only look alike are still there."
}

show_outage()
{
	step "6. Redis is killed"
	fill user:1 'Ann, as cached'
	redis_kill
	printf '  %sshell>%s kill -9 the Redis server\n' "$dim" "$plain"
	await 20 "the worker to notice" worker_is_not connected || broken "the worker has not noticed"
	sql "UPDATE users SET org = 10 WHERE id = 1;"
	sql "SELECT xid, keys, attempts FROM uncache.backlog;"
	printf '  %sshell>%s start Redis again; it reads its keys back from disk\n' "$dim" "$plain"
	redis_start --appendonly yes --appendfsync always || broken "Redis did not start"
	await 20 "the key to go" key_is_gone user:1 || broken "user:1 is still in Redis"
	redis_says '(nil)' GET user:1
	sql "SELECT state, transactions_delivered, outbox_rows FROM uncache.stat;"
	proved "The commit did not fail, its key was remembered in PostgreSQL, \
and it was deleted as soon as Redis was back."
}

prepare
show_commit
show_rollback
show_savepoint
show_rename
show_truncate
show_outage
step "All six held. PostgreSQL and Redis are stopped now and $PRIVATE is removed."
