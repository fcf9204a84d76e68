#!/bin/bash
#
# run.sh asserts|sanitizers|valgrind: the tests on a server that looks closer.
#
#	asserts		PostgreSQL with assertions, and with freed memory overwritten
#	sanitizers	the same, with pg_uncache built for ASan and UBSan
#	valgrind	the same, each process of the server under valgrind; very slow
#
# LAYERS and TESTS say what is run, as with `make test`; the defaults are below.
# WHOLE=1 runs all files of all layers that are in C (model is not).
# What ASan, UBSan or valgrind find is printed at the end, and is a failure.
# Exit code 77: the server could not be built here, and why was printed.
#
# Model: the server of server.sh is linked into a folder of this run's own, with a
# script in the place of the program postgres.  Findings go to files beside it.

set -u
. "$(dirname "$0")/server.sh"

kind=${1:-}
case $kind in
	asserts | sanitizers) some="001 003 011 080 081 082 085 092 093" ;;
	valgrind) some="001 003 085" ;;
	*) echo "usage: run.sh asserts|sanitizers|valgrind" >&2; exit 2 ;;
esac
layers="regress isolation pgtap tap faults"
if [ -n "${WHOLE:-}" ]; then
	layers="unit $layers"
	some=
fi

bash "$SOURCE/test/lib/packages.sh" test || exit 77
server=$(checked_server) || exit 77

folder=$(mktemp -d /tmp/uncache-checked.XXXXXX) || exit 1
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
cp -al "$server/." "$folder/" 2>/dev/null || cp -a "$server/." "$folder/"
cp "$("$(find_pg_config)" --sharedir)"/extension/pgtap* \
	"$("$folder/bin/pg_config" --sharedir)/extension/"
mkdir "$folder/found"
chmod 755 "$folder"
chmod 1777 "$folder/found"

# put_before COMMAND...: run the server itself, not what makes or asks it, with
# these words before it.
put_before()
{
	mv "$folder/bin/postgres" "$folder/bin/postgres.plain"
	cat >"$folder/bin/postgres" <<-END
		#!/bin/bash
		case " \$* " in
			*" -V "* | *" --version "* | *" --boot "* | *" --single "* | *" --check "* | *" -C "*)
				exec "\${0%/*}/postgres.plain" "\$@" ;;
		esac
		exec $* "\${0%/*}/postgres.plain" "\$@"
	END
	# A restart would call what postmaster.opts says, which is the plain one.
	mv "$folder/bin/pg_ctl" "$folder/bin/pg_ctl.plain"
	cat >"$folder/bin/pg_ctl" <<-END
		#!/bin/bash
		exec -a "\$0" "\${0%/*}/pg_ctl.plain" "\$@" -p "\${0%/*}/postgres"
	END
	chmod 755 "$folder/bin/postgres" "$folder/bin/pg_ctl"
}

case $kind in
	sanitizers)
		# Tests measure memory; what ASan keeps from being used again is in it.
		export UNCACHE_TEST_PATIENCE=240 UNCACHE_UNIT=SANITIZE=1
		export UNCACHE_COPT="-fsanitize=address,undefined -Wno-maybe-uninitialized"
		asan=detect_leaks=0:quarantine_size_mb=16:abort_on_error=1:log_path=$folder/found/asan
		ubsan=halt_on_error=1:abort_on_error=1:print_stacktrace=1:log_path=$folder/found/ubsan
		libraries=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)
		put_before env "LD_PRELOAD=$libraries" "ASAN_OPTIONS=$asan" "UBSAN_OPTIONS=$ubsan" ;;
	valgrind)
		command -v valgrind >/dev/null || { echo "valgrind is missing here." >&2; exit 77; }
		export UNCACHE_TEST_PATIENCE=900 PGCTLTIMEOUT=600 UNCACHE_UNIT=VALGRIND=1
		put_before valgrind --quiet --leak-check=no --track-origins=yes --num-callers=25 \
			"--suppressions=$folder/share/valgrind.supp" "--log-file=$folder/found/valgrind.%p" ;;
esac

LAYERS=${LAYERS:-$layers} TESTS=${TESTS:-$some} PG_CONFIG=$folder/bin/pg_config \
	bash "$SOURCE/test/run.sh"
status=$?

find "$folder/found" -type f -empty -delete
if [ -n "$(ls "$folder/found")" ]; then
	echo "---- found by $kind"
	head -n 60 "$folder/found"/*
	exit 1
fi
exit $status
