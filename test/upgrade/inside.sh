#!/bin/bash
#
# inside.sh: build each version into a PostgreSQL of its own, and run the tests.  For run.sh,
# in the folder that private.sh made; its PostgreSQL has this source's version.

set -u
. "$(dirname "$0")/../lib/servers.sh"
cd "$PRIVATE/src" || exit 1
here=$(pg_config --version >/dev/null && dirname "$(pg_config --bindir)")
below=${here#"$PRIVATE/pg"}
log=$PRIVATE/versions.log

# build VERSION SOURCE: into a copy of the PostgreSQL, $PRIVATE/VERSION.
build()
{
	cp -al "$PRIVATE/pg" "$PRIVATE/$1" &&
		make -s -C "$2" -j2 with_llvm=no FAULT_POINTS=1 \
			PG_CONFIG="$PRIVATE/$1$below/bin/pg_config" install >>"$log" 2>&1 ||
		{ cat "$log"; exit 1; }
}

# The scripts that lead to it from older versions are part of a version, too.
make_up()
{
	mkdir "$PRIVATE/made-up-$1"
	git_less_copy "$PRIVATE/made-up-$1"
	perl test/upgrade/make_up.pl "$PRIVATE/made-up-$1" "$1" || exit 1
	build "$1" "$PRIVATE/made-up-$1"
}

git_less_copy()
{
	tar --exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude=./test -cf - . |
		tar -C "$1" -xf -
}

older=made-up
for folder in test/upgrade/versions/*; do
	[ -d "$folder" ] || continue
	build "${folder##*/}" "$folder"
	older+=" ${folder##*/}"
done
make_up older
make_up newer
# The made-up older version's way to this one.
cp "$PRIVATE/made-up-older/update.sql" \
	"$(pg_config --sharedir)/extension/pg_uncache--0.9--$(sed -n \
		"s/^default_version = '\(.*\)'/\1/p" pg_uncache.control).sql"

pgxs=$(dirname "$(pg_config --pgxs)")/../..
mkdir -p tmp_check
TESTDIR=$PWD TESTDATADIR=$PWD/tmp_check TESTLOGDIR=$PWD/tmp_check/log \
	PG_REGRESS=$pgxs/src/test/regress/pg_regress \
	PERL5LIB=$pgxs/src/test/perl:$PWD/test/lib:$PWD/test/upgrade \
	UPGRADE_VERSIONS="$older" UPGRADE_BELOW=$below \
	prove --verbose --timer --jobs "${JOBS:-2}" \
	$(ls test/upgrade/*.t | grep "${TESTS:-}") >"$PRIVATE/tap.log" 2>&1
status=$?
passed=$(grep -E '^ok [0-9]+' "$PRIVATE/tap.log" | grep -vciE '# *skip')
failed=$(grep -cE '^not ok [0-9]+' "$PRIVATE/tap.log")
[ $status -eq 0 ] || [ $failed -gt 0 ] || failed=1
if [ $failed -gt 0 ]; then
	grep -E -A 15 '^# *Failed test|^not ok|Dubious|died' "$PRIVATE/tap.log" | head -n 200
	tail -n 30 "$PRIVATE/tap.log"
	tail -n 30 tmp_check/log/*.log
fi
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ "$passed" -gt 0 ]
