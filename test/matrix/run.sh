#!/bin/bash
#
# run.sh: what `make test-matrix` runs: every build and every layer of the tests
# on each major of PostgreSQL, against each kind of server.
#
#	MAJORS="17 18"			only these; all of them otherwise
#	SERVERS=redis			only this kind; redis and valkey otherwise
#	LAYERS, TESTS			as for make test
#	SYSTEMS=/folder			where the systems are kept
#	run.sh clean			remove them
#
# The major that this machine has is tested on the machine itself, the others in
# throw-away systems (systems.sh): as root, in Debian.  Prints a table, and as
# the last line "N passed, N failed".  A run that leaves nothing out writes the
# table to docs/tested.md.

set -u
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
. "$SOURCE/test/lib/find.sh"
. "$SOURCE/test/matrix/systems.sh"
all_majors="15 17 18 19"
all_servers="redis valkey"
passed=0
failed=0
rows=()
# What an outer make would like to tell an inner one is not meant for it.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

here()							# has this machine itself the major $1?
{
	[ -z "${MATRIX_SYSTEMS_ONLY:-}" ] &&
		PG_CONFIG=/usr/lib/postgresql/$1/bin/pg_config find_pg_config >/dev/null
}

# within MAJOR COMMAND...: on the machine, or in the system $folder.
within()
{
	local major=$1

	shift
	set -- env PG_CONFIG="/usr/lib/postgresql/$major/bin/pg_config" "$@"
	if [ -z "$folder" ]; then
		(cd "$SOURCE" && "$@")
	else
		system_run "$folder" "$@"
	fi
}

# count WHAT COMMAND...: run it, show what it prints and add up its last line.
# Sets $result.
count()
{
	local what=$1 line ok bad

	shift
	echo "== $what"
	"$@" >"$log" 2>&1 </dev/null
	grep -vE '^[0-9]+ passed, [0-9]+ failed$' "$log"
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
	ok=${line%% *}
	bad=${line#*, }
	bad=${bad%% *}
	[ -n "$line" ] || { ok=0; bad=1; }
	passed=$((passed + ok))
	failed=$((failed + bad))
	result="$ok passed, $bad failed"
}

# The program of a server, or nothing.
server_program()
{
	within "$1" sh -c "command -v $2-server || command -v $2-check-rdb"
}

server_version()
{
	within "$1" bash -c 'exec -a redis-server "$1" --version' version "$2" |
		sed -n 's/.*v=\([0-9.]*\).*/\1/p'
}

hiredis_version()
{
	within "$1" pkg-config --modversion hiredis
}

postgres_version()
{
	within "$1" "/usr/lib/postgresql/$1/bin/postgres" --version | sed 's/[^0-9]*\([^ ]*\).*/\1/'
}

test_major()
{
	local major=$1 place tests=/mnt server program builds

	folder=
	place="this machine"
	if here "$major"; then
		tests=$SOURCE
		bash "$SOURCE/test/lib/packages.sh" ci
	elif folder=$(bash "$SOURCE/test/lib/packages.sh" systems >&2 && system_make "$major"); then
		place="Debian $(suite_of "$major")"
	else
		echo "== PostgreSQL $major: its system could not be made"
		failed=$((failed + 1))
		rows+=("| $major | | | | could not be made | |")
		return
	fi
	count "PostgreSQL $major: builds" within "$major" bash "$tests/test/matrix/builds.sh"
	builds=$result
	for server in ${SERVERS:-$all_servers}; do
		program=$(server_program "$major" "$server") || continue
		count "PostgreSQL $major, $server" within "$major" \
			env REDIS_SERVER="$program" LAYERS="${LAYERS:-}" TESTS="${TESTS:-}" make -s -C "$tests" test
		rows+=("| $(postgres_version "$major") | $place | $(hiredis_version "$major") | ${server^} $(server_version "$major" "$program") | $builds | $result |")
	done
}

table()
{
	echo "| PostgreSQL | system | hiredis | server | builds | tests |"
	echo "|---|---|---|---|---|---|"
	printf '%s\n' "${rows[@]}"
}

write_table()
{
	{
		echo "# What was tested"
		echo
		echo "By \`make test-matrix\` on $(date -u +%Y-%m-%d), with all layers of the tests in each row;"
		echo "\"builds\" are those with gcc, with clang, with fault points, and without TLS where there is TLS; a warning fails them."
		echo
		table
	} >"$SOURCE/docs/tested.md"
}

if [ "${1:-}" = clean ]; then
	systems_clean
	exit
fi
[ "$(id -u)" -eq 0 ] || { echo "make test-matrix makes systems of its own, which needs root" >&2; exit 1; }

for major in ${MAJORS:-$all_majors}; do
	test_major "$major"
done
[ -n "${MAJORS:-}${SERVERS:-}${LAYERS:-}${TESTS:-}" ] || write_table
echo
table
echo
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
