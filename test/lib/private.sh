# private.sh: run a script with a PostgreSQL and a Redis of its own.  To be
# sourced by bash.
#
# Model: everything lives in one temporary folder, $PRIVATE.  It holds a copy of
# the machine's PostgreSQL (which finds its files relative to its programs, so
# that `make install` goes into the copy and needs no rights), a copy of this
# source tree, built there, and whatever the script makes.  PostgreSQL refuses
# to run as root: root hands the folder to an ordinary user, and the script runs
# as that user.
#
# Failure: at the end, however it comes, every process that works in the folder
# is ended by its process id, and the folder is removed.  Only a SIGKILL of this
# shell leaves them behind.
#
# KEEP=1 keeps the folder, to look into after a failure.
#
# Limits: needs Linux's /proc to find what is left over.

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$SOURCE/test/lib/find.sh"

# What an outer make would like to tell an inner one is not meant for it.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL

fail()
{
	echo "$*" >&2
	exit 1
}

#
# private_ready PACKAGES
#
# Install PACKAGES (see packages.sh), make the folder and build in it.
#
private_ready()
{
	# A warning is an error where the code is worked on.
	[ "$1" = build ] || STRICT=-Werror
	bash "$SOURCE/test/lib/packages.sh" "$1" || exit 1
	PG_CONFIG=$(find_pg_config) || fail "no PostgreSQL with its headers found"
	private_folder
	private_tree
	private_build "$1"
}

#
# private_run PACKAGES SCRIPT [ARGUMENT]...
#
# Be ready, and run SCRIPT, a path in the source tree.  Ends this shell with SCRIPT's
# exit code.
#
private_run()
{
	local status

	private_ready "$1"
	shift
	as_owner bash "$PRIVATE/src/$1" "${@:2}" &
	PRIVATE_CHILD=$!
	wait $PRIVATE_CHILD
	status=$?
	exit $status
}

private_folder()
{
	PRIVATE=$(mktemp -d "${TMPDIR:-/tmp}/uncache.XXXXXX") || fail "no temporary folder"
	# The path of a Unix socket must stay below 108 bytes.
	if [ ${#PRIVATE} -gt 40 ]; then
		rmdir "$PRIVATE"
		PRIVATE=$(mktemp -d /tmp/uncache.XXXXXX) || fail "no temporary folder"
	fi
	trap private_leave EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM

	OWNER=()
	if [ "$(id -u)" -eq 0 ]; then
		local user=nobody

		id postgres >/dev/null 2>&1 && user=postgres
		chown "$user" "$PRIVATE"
		OWNER=(setpriv --reuid "$(id -u "$user")" --regid "$(id -g "$user")" --clear-groups)
	fi
	as_owner mkdir "$PRIVATE/bin" "$PRIVATE/tmp" "$PRIVATE/sock" "$PRIVATE/src"
	as_owner ln -s "$(find_redis_program)" "$PRIVATE/bin/redis-server"
	as_owner ln -s "$(find_redis_cli)" "$PRIVATE/bin/redis-cli"
}

#
# Run a command as the owner of the folder, in it, with an environment that no
# setting of the caller can disturb.  What is started in the background would
# ignore SIGINT; give it back.
#
as_owner()
{
	local system=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin

	(
		cd "$PRIVATE" || exit 1
		exec "${OWNER[@]}" env -i --default-signal=INT,QUIT \
			PATH="$PRIVATE/bin:${TREE_BIN:+$TREE_BIN:}$system" \
			HOME="$PRIVATE" TMPDIR="$PRIVATE/tmp" LC_ALL=C.UTF-8 TERM="${TERM:-dumb}" \
			PRIVATE="$PRIVATE" PG_CONFIG="${TREE_BIN:+$TREE_BIN/pg_config}" \
			TESTS="${TESTS:-}" LAYERS="${LAYERS:-}" JOBS="${JOBS:-}" \
			UNCACHE_LONG_TESTS="${UNCACHE_LONG_TESTS:-}" \
			UNCACHE_BOUND_SECONDS="${UNCACHE_BOUND_SECONDS:-}" UNCACHE_COPT="${UNCACHE_COPT:-}" \
			UNCACHE_UNIT="${UNCACHE_UNIT:-}" UNCACHE_TEST_PATIENCE="${UNCACHE_TEST_PATIENCE:-60}" \
			PGCTLTIMEOUT="${PGCTLTIMEOUT:-60}" "$@"
	)
}

# Copy PostgreSQL.  Its programs must be real files: a link would lead the copy
# back to the original's libraries.
private_tree()
{
	local dirs include

	dirs=$(for what in bindir pkglibdir sharedir; do "$PG_CONFIG" --$what; done)
	include=$("$PG_CONFIG" --includedir)
	mkdir "$PRIVATE/pg"
	tar -C / --exclude='*/bitcode' -cf - $(sed 's,^/,,' <<<"$dirs" | sort -u) |
		tar -C "$PRIVATE/pg" -xf - || fail "could not copy PostgreSQL"
	mkdir -p "$PRIVATE/pg${include%/*}"
	[ -e "$PRIVATE/pg$include" ] || ln -s "$include" "$PRIVATE/pg$include"
	own pg
	TREE_BIN=$PRIVATE/pg$("$PG_CONFIG" --bindir)
}

# Tests get a library in which they can make things go wrong.
private_build()
{
	local BUILD_OPTIONS=

	[ "$1" = demo ] || [ "$1" = build ] || BUILD_OPTIONS=FAULT_POINTS=1
	tar -C "$SOURCE" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
		--exclude=node_modules -cf - . |
		tar -C "$PRIVATE/src" -xf - || fail "could not copy the source"
	own src
	if ! as_owner make -s -j2 -C src $BUILD_OPTIONS COPT="${STRICT:-} ${UNCACHE_COPT:-}" \
			with_llvm=no PG_CONFIG="$TREE_BIN/pg_config" install \
			>"$PRIVATE/build.log" 2>&1; then
		cat "$PRIVATE/build.log" >&2
		fail "pg_uncache could not be built"
	fi
}

own()
{
	[ ${#OWNER[@]} -eq 0 ] || chown -R --reference="$PRIVATE" "$PRIVATE/$1"
}

# Processes whose working directory is in the folder; servers go there.
private_processes()
{
	local process

	for process in /proc/[0-9]*; do
		case $(readlink "$process/cwd" 2>/dev/null) in
			"$PRIVATE" | "$PRIVATE"/*) echo "${process#/proc/}" ;;
		esac
	done
}

# Wait up to $1 tenths of a second for them to end.
private_quiet()
{
	local i

	for ((i = 0; i < $1; i++)); do
		[ -z "$(private_processes)" ] && return 0
		sleep 0.1
	done
	return 1
}

# Ask kindly, then less so: SIGQUIT is PostgreSQL's immediate shutdown.
private_leave()
{
	local signal pids

	trap '' INT TERM HUP
	cd /
	for signal in TERM QUIT KILL; do
		pids=$(private_processes)
		[ -z "$pids" ] && break
		kill -$signal $pids 2>/dev/null
		kill -CONT $pids 2>/dev/null
		private_quiet 30
	done
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $PRIVATE"
	else
		rm -rf "$PRIVATE"
	fi
}
