#!/bin/bash
#
# peers.sh FOLDER: fetch what pg_uncache is compared with, by its Debian name,
# and unpack it below FOLDER (the copy of PostgreSQL), not into the machine.
#
# Needs no rights.  What can't be had is left out; its lane then says "not
# available".

folder=$1
major=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
downloads=$(mktemp -d) || exit 0

command -v apt-get >/dev/null || exit 0
cd "$downloads" || exit 0
for package in "postgresql-$major-pgmemcache" memcached "postgresql-$major-pgq3" pgqd \
		"postgresql-plpython3-$major" python3-redis python3-packaging \
		"postgresql-$major-wal2json"; do
	# The package, and of what it needs all that this machine lacks.
	apt-get -qq -s --no-install-recommends install "$package" 2>/dev/null |
		sed -n 's/^Inst \([^ ]*\) .*/\1/p'
done | sort -u | grep -vE "^(postgresql-(common|client-common)|postgresql(-client)?-$major)$" |
	while read -r package; do
		apt-get -qq download "$package" >/dev/null 2>&1 || echo "peer not available: $package" >&2
	done
for package in *.deb; do
	[ -e "$package" ] && dpkg-deb -x "$package" "$folder"
done
rm -rf "$downloads"
exit 0
