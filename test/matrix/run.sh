#!/bin/bash
#
# run.sh: what `make test-matrix` runs: every build and every layer of the tests
# on each major of PostgreSQL, against each kind of server.
#
#	MAJORS="17 18"			only these; all of them otherwise
#	SERVERS=redis			only this kind; redis and valkey otherwise
#	LAYERS, TESTS			as for make test; the layer "builds" is what it has besides
#	JOBS=3					so many files of TAP at a time; 2 otherwise
#	SYSTEMS=/folder			where the systems are kept
#	run.sh prepare			make the systems, and see whether they can be entered and work
#	run.sh clean			remove them
#
# The major that this machine has is tested on the machine itself, the others in
# throw-away systems (systems.sh): as root, in Debian.  Prints a table, and as
# the last line "N passed, N failed".  What was run whole goes into the table of
# docs/tested.md, in the place of what stood there.

set -u
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
. "$SOURCE/test/lib/find.sh"
. "$SOURCE/test/matrix/systems.sh"
all_majors="15 17 18 19"
all_servers="redis valkey"
all_layers="unit model regress isolation pgtap tap faults"
page=$SOURCE/docs/tested.md
passed=0
failed=0
rows=()
# What an outer make would like to tell an inner one is not meant for it.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
log=$(mktemp)
folder=
child=
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A system can be killed: nothing in it outlives it.  What runs on this machine is
# asked, and cleans up after itself.
leave()
{
	rm -f "$log"
	[ -n "$child" ] || return
	if [ -n "$folder" ]; then
		kill -KILL $child
	else
		kill $child
		wait $child
	fi
}

here()							# has this machine itself the major $1?
{
	[ -z "${MATRIX_SYSTEMS_ONLY:-}" ] &&
		PG_CONFIG=/usr/lib/postgresql/$1/bin/pg_config find_pg_config >/dev/null
}

# within MAJOR COMMAND...: on the machine, or in the system $folder.  Becomes the
# command, so call it in a subshell.
within()
{
	local major=$1

	shift
	set -- env PG_CONFIG="/usr/lib/postgresql/$major/bin/pg_config" "$@"
	if [ -z "$folder" ]; then
		cd "$SOURCE" && exec "$@"
	else
		system_run "$folder" "$@"
	fi
}

# figures LINE: of "N passed, N failed", a cell of the table.
figures()
{
	local ok=${1%% *} bad=${1#*, }

	bad=${bad%% *}
	[ "$bad" -eq 0 ] && echo "$ok" || echo "$ok, **$bad failed**"
}

# count WHAT COMMAND...: run it, show what it prints and add up its last line.
# Sets $result to a cell for it, and $by_layer to one for each layer of the tests.
count()
{
	local what=$1 line ok bad layer

	shift
	echo "== $what"
	"$@" >"$log" 2>&1 </dev/null &
	child=$!
	wait $child
	child=
	grep -vE '^[0-9]+ passed, [0-9]+ failed$' "$log"
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
	ok=${line%% *}
	bad=${line#*, }
	bad=${bad%% *}
	[ -n "$line" ] || { ok=0; bad=1; }
	passed=$((passed + ok))
	failed=$((failed + bad))
	result=$(figures "$ok passed, $bad failed")
	by_layer=
	for layer in $all_layers; do
		line=$(sed -n "s/^$layer  *\\([0-9]* passed, [0-9]* failed\\).*/\\1/p" "$log")
		by_layer+=" $([ -n "$line" ] && figures "$line" || echo "not run") |"
	done
}

# The program of a server, or nothing.
server_program()
{
	(within "$1" sh -c "command -v $2-server || command -v $2-check-rdb") ||
		{ [ "$2" = valkey ] && [ -z "$folder" ] && valkey_of_backports; }
}

server_version()
{
	within "$1" bash -c 'exec -a redis-server "$1" --version' version "$2" |
		sed -n 's/.*v=\([0-9.]*\).*/\1/p'
}

hiredis_version()
{
	local version

	version=$(within "$1" pkg-config --modversion hiredis)
	if (within "$1" pkg-config --exists hiredis_ssl openssl); then
		echo "$version with TLS"
	else
		echo "$version, no TLS"
	fi
}

# The last commit that changed what is built and installed; with a + where there
# is more than that.  Tests may be newer.
code_version()
{
	local what=(src Makefile sql/pg_uncache--1.0.sql) version

	version=$(git -C "$SOURCE" log -1 --format='%as %h' -- "${what[@]}" 2>/dev/null)
	[ -z "$version" ] ||
		[ -z "$(git -C "$SOURCE" status --porcelain -- "${what[@]}")" ] || version+=+
	echo "${version:-unknown}"
}

postgres_version()
{
	within "$1" "/usr/lib/postgresql/$1/bin/postgres" --version | sed 's/[^0-9]*\([^ ]*\).*/\1/'
}

# Sets $folder: of the system that has the major, or empty for this machine.
find_place()
{
	local major=$1

	folder=
	if here "$major"; then
		bash "$SOURCE/test/lib/packages.sh" ci
	else
		folder=$(bash "$SOURCE/test/lib/packages.sh" systems >&2 && system_make "$major")
	fi
}

test_major()
{
	local major=$1 place="this machine" tests=$SOURCE server program builds
	local cells

	if ! find_place "$major"; then
		echo "== PostgreSQL $major: its system could not be made"
		failed=$((failed + 1))
		return
	fi
	if [ -n "$folder" ]; then
		place="Debian $(suite_of "$major")"
		tests=/mnt
	fi
	builds="not run"
	if [[ " ${LAYERS:-builds} " == *" builds "* ]]; then
		count "PostgreSQL $major: builds" within "$major" bash "$tests/test/matrix/builds.sh"
		builds=$result
	fi
	[ "${LAYERS:-}" != builds ] || return
	for server in ${SERVERS:-$all_servers}; do
		if ! program=$(server_program "$major" "$server"); then
			echo "== PostgreSQL $major, $server: LEFT OUT, there is no $server for $place"
			continue
		fi
		cells="| $(postgres_version "$major") | $place | $(hiredis_version "$major")"
		cells+=" | ${server^} $(server_version "$major" "$program") | $(code_version) | $builds |"
		count "PostgreSQL $major, $server" within "$major" \
			env REDIS_SERVER="$program" LAYERS="${LAYERS:-}" TESTS="${TESTS:-}" \
				JOBS="${JOBS:-}" make -s -C "$tests" test
		rows+=("$cells$by_layer")
		[ -n "${TESTS:-}" ] || write_page
	done
}

table()
{
	echo "| PostgreSQL | system | hiredis | server | code | builds |$(printf ' %s |' $all_layers)"
	echo "|---|---|---|---|---|---|$(printf -- '---|%.0s' $all_layers)"
	printf '%s\n' "$@"
}

# The rows of the page, but for one; or that one.
page_rows()						# page_rows [-v] MAJOR SERVER
{
	local invert=

	[ "$1" != -v ] || { invert=-v; shift; }
	grep -E '^\| [0-9]' "$page" 2>/dev/null | grep -E $invert "^\| $1[^|]*\|[^|]*\|[^|]*\| $2 "
}

# merge OLD NEW: what the new row did not run, from the old one, if that was about
# the same versions.  A row then names the code of both.
merge()
{
	local old new i kept=

	IFS='|' read -r -a old <<<"$1"
	IFS='|' read -r -a new <<<"$2"
	if [ "${old[*]:1:4}" = "${new[*]:1:4}" ]; then
		for ((i = 6; i < ${#new[@]}; i++)); do
			if [ "${new[i]}" = " not run " ] && [ "${old[i]:- not run }" != " not run " ]; then
				new[i]=${old[i]}
				kept=yes
			fi
		done
		if [ -n "$kept" ]; then
			[[ "${old[5]% }," == *"${new[5]% },"* ]] && new[5]=${old[5]} ||
			new[5]="${old[5]% },${new[5]}"
		fi
	fi
	(IFS='|'; echo "${new[*]}|")
}

# Put the last row into the page.
write_page()
{
	local row=${rows[-1]} all major server text

	major=$(sed 's/[^0-9]*\([0-9]*\).*/\1/' <<<"$row")
	server=$(cut -d '|' -f 5 <<<"$row" | cut -d ' ' -f 2)
	row=$(merge "$(page_rows "$major" "$server")" "$row")
	mapfile -t all < <({ page_rows -v "$major" "$server"; echo "$row"; } |
		sort -t '|' -k 2,2V -k 5,5)
	text=$(
		echo "# What was tested"
		echo
		cat <<'END'
Written by `make test-matrix`: how many tests of each layer passed when it was last run whole with
these versions ([test/README.md](../test/README.md) says what the layers are). "builds" are those
with gcc, with clang, with fault points, and without TLS or c-ares where there are these; a warning
fails them. The tests of TLS need a hiredis with TLS. "code" is the day and the name of the last
commit to what is built; several, where layers were run one at a time. CI runs everything on the
machine's own major, and a part on the others (`.ci/run`).
END
		echo
		table "${all[@]}"
	)
	echo "$text" >"$page"
}

#
# Whether what Debian has there fits together: the compilers, PostgreSQL and its
# headers, hiredis, the servers.  Nothing of ours is in it, so that what fails
# afterwards is our own.
#
works='
set -e
cd "$(mktemp -d)"
echo "#include <postgres.h>
#include <hiredis/hiredis.h>
int main(void) { return redisReaderCreate() == NULL; }" >works.c
for compiler in gcc clang; do
	$compiler -w -I "$("$PG_CONFIG" --includedir-server)" works.c -o works -lhiredis
	./works
done
"$("$PG_CONFIG" --bindir)/postgres" --version
"$("$PG_CONFIG" --bindir)/psql" --version
for server in redis valkey; do
	program=$(command -v $server-server || command -v $server-check-rdb) || continue
	(exec -a redis-server "$program" --version)
done
perl -MIPC::Run -MTAP::Parser::SourceHandler::pgTAP -e 1
'

if [ "${1:-}" = clean ]; then
	systems_clean
	exit
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "make test-matrix makes systems of its own, which needs root" >&2
	exit 1
fi

if [ "${1:-}" = prepare ]; then
	for major in ${MAJORS:-$all_majors}; do
		find_place "$major" && (within "$major" bash -c "$works") || exit 1
	done
	exit
fi

for major in ${MAJORS:-$all_majors}; do
	test_major "$major"
done
echo
table "${rows[@]}"
echo
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
