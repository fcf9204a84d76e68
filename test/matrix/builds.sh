#!/bin/bash
#
# builds.sh: build for one PostgreSQL with every compiler, without TLS, and without c-ares.
#
# PG_CONFIG says for which, else the newest.  Whatever make prints while it builds
# the library counts as a warning, and fails the build.  (`make` alone would say
# what the build can't do, too.)  The last line is "N passed, N failed".

set -u
source=$(cd "$(dirname "$0")/../.." && pwd)
. "$source/test/lib/find.sh"
pg_config=$(find_pg_config) || { echo "no PostgreSQL with its headers found" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
passed=0
failed=0

# build WHAT MAKE-ARGUMENT...: in a copy of its own, since objects that were
# built otherwise would be taken for these.
build()
{
	local what=$1

	shift
	rm -rf "${folder:?}/"*
	tar -C "$source" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
		--exclude=node_modules -cf - . | tar -C "$folder" -xf - || exit 1
	if make -s -C "$folder" -j2 with_llvm=no PG_CONFIG="$pg_config" "$@" pg_uncache.so \
			>"$folder/log" 2>&1 &&
			[ ! -s "$folder/log" ] && [ -e "$folder/pg_uncache.so" ]; then
		printf 'ok      builds without a warning %s\n' "$what"
		passed=$((passed + 1))
	else
		printf 'FAILED  builds without a warning %s\n' "$what"
		head -n 30 "$folder/log"
		failed=$((failed + 1))
	fi
}

build "with gcc" CC=gcc
build "with clang" CC=clang
if pkg-config --exists hiredis_ssl openssl; then
	build "without TLS" CC=gcc HIREDIS_SSL=no
fi
if pkg-config --exists libcares; then
	build "without c-ares" CC=gcc CARES=no
fi
build "with fault points" CC=gcc FAULT_POINTS=1

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
