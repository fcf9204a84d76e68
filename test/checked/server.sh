# server.sh: a PostgreSQL with assertions, built from Debian's source.  To be
# sourced by bash.
#
# Model: the source is that of the major that the machine has, fetched by apt with
# lists of its own, so that nothing of the machine's configuration is touched.  It
# is built once (five minutes on two idle cores) and kept in CHECKED, by default
# a folder in /var/tmp, for the next time.  A build that was broken off leaves
# nothing that could be taken for a server.
#
# Failure: checked_server prints why, and returns 1 where the source or what it
# takes to build it can't be had.

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$SOURCE/test/lib/find.sh"

CHECKED=${CHECKED:-/var/tmp/pg_uncache-checked}

# What makes another server of the same source.
CHECKED_OPTIONS=(--enable-cassert --enable-debug --enable-tap-tests
	--without-readline --without-zlib)
CHECKED_FLAGS="-O1 -g -fno-omit-frame-pointer"
# Tells valgrind of memory contexts; it costs nothing without valgrind.
[ ! -e /usr/include/valgrind/memcheck.h ] || CHECKED_FLAGS+=" -DUSE_VALGRIND"

# checked_server: print the folder of the server, having built it if need be.
checked_server()
{
	local major work name server

	major=$("$(find_pg_config)" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/') || return 1
	name=$major-$(printf '%s' "${CHECKED_OPTIONS[*]} $CHECKED_FLAGS" | cksum | cut -d ' ' -f 1)
	server=$CHECKED/$name
	if [ -x "$server/bin/postgres" ]; then
		echo "$server"
		return
	fi
	mkdir -p "$CHECKED" || return 1
	if [ ! -O "$CHECKED" ]; then
		echo "$CHECKED belongs to somebody else; set CHECKED to another folder." >&2
		return 1
	fi
	work=$(mktemp -d "$CHECKED/work.XXXXXX") || return 1
	if checked_fetch "$major" "$work" && checked_build "$work" "$server" >"$work/log" 2>&1 &&
		mv "$work/install$server" "$server"; then
		rm -rf "$work"
		echo "$server"
		return
	fi
	[ ! -e "$work/log" ] || tail -n 30 "$work/log" >&2
	rm -rf "$work"
	return 1
}

# Of the versions that the lists name the mirror may lack the newest ones.
checked_fetch()
{
	local major=$1 work=$2 version apt

	if ! command -v apt-get >/dev/null || [ ! -e /etc/os-release ]; then
		echo "Only Debian's source of PostgreSQL is known how to get." >&2
		return 1
	fi
	mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
	checked_sources >"$work/apt/sources.list"
	apt=(-qq -o Dir::Etc::SourceList="$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::State::Lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache"
		-o APT::Sandbox::User=root)
	apt-get "${apt[@]}" update >"$work/apt.log" 2>&1 || { tail -n 5 "$work/apt.log" >&2; return 1; }
	for version in $(apt-cache "${apt[@]}" showsrc "postgresql-$major" |
		sed -n 's/^Version: //p' | sort -urV); do
		(cd "$work" && apt-get "${apt[@]}" --download-only source "postgresql-$major=$version") \
			>"$work/apt.log" 2>&1 &&
			tar -C "$work" -xf "$work"/*.orig.tar.* && return
	done
	echo "The source of PostgreSQL $major can't be had." >&2
	tail -n 5 "$work/apt.log" >&2
	return 1
}

# The machine's own sources of Debian's packages, for their sources.
checked_sources()
{
	local key=/usr/share/keyrings/debian-archive-keyring.gpg

	apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' \
		'Created-By: Packages' |
		sed -n "s|^Debian |deb-src [signed-by=$key] |p" | sort -u
}

checked_build()
{
	local work=$1 server=$2

	cd "$work"/postgresql-*/ || return 1
	./configure --prefix="$server" "${CHECKED_OPTIONS[@]}" CFLAGS="$CHECKED_FLAGS" &&
		nice make -s -j"$(nproc)" &&
		make -s DESTDIR="$work/install" install &&
		make -s -C contrib/file_fdw DESTDIR="$work/install" install &&
		cp src/tools/valgrind.supp "$work/install$server/share/" &&
		chmod -R a+rX "$work/install$server"
}
