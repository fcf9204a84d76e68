#!/bin/bash
#
# indent.sh [check]: bring the C sources into PostgreSQL's style, or, with "check", say
# which files are not in it.
#
# pg_bsd_indent does the work, with pgindent's options, but comments may be as wide as
# code.  typedefs.list has the names of types; a new one is added by hand.  What
# pg_bsd_indent spaces wrongly is put right afterwards, as pgindent does.
#
# Exit code 0: all is in style (or has been brought into it); 1: not; 77: pg_bsd_indent
# is missing and can't be installed.

set -u
cd "$(dirname "$0")/../.." || exit 1
. test/lib/find.sh

if ! command -v pg_bsd_indent >/dev/null; then
	[ "$(id -u)" -eq 0 ] && apt-get install -y -qq pg-bsd-indent >/dev/null 2>&1
	if ! command -v pg_bsd_indent >/dev/null; then
		echo "pg_bsd_indent is missing: apt-get install pg-bsd-indent" >&2
		exit 77
	fi
fi

# A function's type and star stand alone on a line, with one blank between them.
indented()						# indented FILE
{
	pg_bsd_indent -bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l98 -lp -lpl \
		-nip -npro -sac -tpg -ts4 -Utypedefs.list <"$1" |
		sed -E 's/^([A-Za-z_][A-Za-z0-9_]*)[ \t]+\*$/\1 */'
}

status=0
new=$(mktemp)
trap 'rm -f "$new"' EXIT
for file in src/*.c src/*/*.c src/*/*.h; do
	[ "$file" != src/fence/uncache_lua.h ] || continue
	indented "$file" >"$new" || exit 1
	cmp -s "$file" "$new" && continue
	if [ "${1:-}" = check ]; then
		echo "$file is not in style: make indent"
		diff "$file" "$new" | head -n 6
		status=1
	else
		cat "$new" >"$file"
	fi
done
exit $status
