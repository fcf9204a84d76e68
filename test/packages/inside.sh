#!/bin/bash
#
# inside.sh: one way to install pg_uncache, in a fresh system.  For run.sh, which starts it
# there as root, with its shared folder at /mnt:
#
#	tree, pg-uncache-*	the name of the source package's folder, and that folder
#	*.zip				the archive of make dist
#	debs				what build_deb has built
#
# Each command ends with exit code 0 where the way works.

set -eu
tree=/mnt/$(cat /mnt/tree)
apt="apt-get -q -o Dpkg::Use-Pty=0"

fail()
{
	echo "FAILED: $*"
	exit 1
}

# The major that this Debian has as its own.
major()
{
	apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p'
}

# ---------- a server in which a COMMIT deletes a key ----------

as_postgres()
{
	(cd /tmp && runuser -u postgres -- "$@")
}

sql()
{
	as_postgres psql --cluster "$(major)/main" -XAtq -v ON_ERROR_STOP=1 -c "$1" "${2:-postgres}"
}

redis_start()
{
	$apt install -y redis-tools >/dev/null
	mkdir -m 777 /tmp/redis
	(exec -a redis-server redis-check-rdb --port 0 --unixsocket /tmp/redis/socket \
		--unixsocketperm 777 --save '' --dir /tmp/redis >/tmp/redis/log 2>&1) &
	await "Redis" redis-cli -s /tmp/redis/socket ping
}

await()							# await WHAT COMMAND...
{
	local what=$1 i

	shift
	for ((i = 0; i < 600; i++)); do
		! "$@" >/dev/null 2>&1 || return 0
		sleep 0.1
	done
	tail -n 20 /var/log/postgresql/* || true
	fail "waited for $what"
}

# Steps 1 and 2 of the README: the library and the address, and a server with them.
server_start()
{
	local conf

	pg_createcluster "$(major)" main >/dev/null
	conf=/etc/postgresql/$(major)/main/postgresql.conf
	{
		echo "shared_preload_libraries = 'pg_uncache'"
		echo "uncache.redis_url = 'unix:///tmp/redis/socket'"
		echo "uncache.wait_timeout = '20s'"
		echo "max_prepared_transactions = 10"
	} >>"$conf"
	# With it the isolation tests look into Redis.
	echo "REDIS_OPTIONS = '-s /tmp/redis/socket'" >>"${conf%/*}/environment"
	pg_ctlcluster "$(major)" main start || fail "the server does not start"
}

port()
{
	pg_lsclusters -h | awk '{print $3}'
}

connected()
{
	[ "$(sql 'SELECT state FROM uncache.stat')" = connected ]
}

has_key()
{
	[ "$(redis-cli -s /tmp/redis/socket exists user:1)" = 1 ]
}

# Steps 3 to 5, and what they are for.
deletes_key()
{
	sql 'CREATE TABLE users (id int PRIMARY KEY, email text)'
	sql "INSERT INTO users VALUES (1, 'ann@example.com')"
	sql "SELECT uncache.attach('users', 'user:{id}')" >/dev/null
	await "the worker to reach Redis" connected
	redis-cli -s /tmp/redis/socket set user:1 old >/dev/null
	has_key || fail "Redis does not store"
	sql "UPDATE users SET email = 'bob@example.com' WHERE id = 1"
	! has_key || fail "the key is there after the COMMIT"
	echo "deleted by PostgreSQL $(sql 'SHOW server_version')"
}

# ---------- Debian packages ----------

build_deb()
{
	cd "$tree"
	$apt update
	$apt install -y dpkg-dev lintian
	$apt build-dep -y ./
	pg_buildext updatecontrol
	dpkg-buildpackage -us -uc
	mkdir -p /mnt/debs
	cp /mnt/*.deb /mnt/*.dsc /mnt/*.changes /mnt/*.buildinfo /mnt/*.xz /mnt/*.orig.tar.gz /mnt/debs
	lintian --allow-root --fail-on error,warning --info /mnt/debs/*.changes
	for library in debian/postgresql-*-uncache/usr/lib/postgresql/*/lib/pg_uncache.so; do
		# In bookworm hiredis has no TLS.
		! pkg-config --exists hiredis_ssl || readelf -d "$library" | grep hiredis_ssl ||
			fail "built without TLS"
		readelf -d "$library" | grep cares || fail "built without c-ares"
	done
}

use_deb()
{
	local said

	$apt update
	$apt install -y autopkgtest
	said=$($apt install -y /mnt/debs/postgresql-*-uncache_*.deb)
	grep 'CREATE EXTENSION pg_uncache' <<<"$said" || fail "no hint"
	ls /usr/share/doc/postgresql-"$(major)"-uncache/README.Debian* || fail "no README.Debian"
	autopkgtest /mnt/debs/postgresql-*-uncache_*.deb "$tree" -- null
}

# Of the server; the package was built with the headers of the newest.
old_minor()
{
	local version packages

	$apt update
	version=$(apt-cache madison "postgresql-$(major)" | awk '{print $3}' | sort -V | head -n 1)
	packages=$(apt-cache policy "postgresql-$(major)-jit" | grep -q "Candidate: [0-9]" &&
		echo "postgresql-$(major)-jit=$version" || true)
	$apt install -y "postgresql-$(major)=$version" "postgresql-client-$(major)=$version" $packages
	$apt install -y --no-upgrade /mnt/debs/postgresql-"$(major)"-uncache_*.deb
	dpkg-query -W "postgresql-$(major)" | grep -F "$version" || fail "apt has upgraded the server"
	redis_start
	server_start
	sql 'CREATE EXTENSION pg_uncache'
	deletes_key
}

# ---------- README ----------

# The commands of the README's first block below "Installation", each in a line, for this major.
readme_commands()
{
	sed -n '/^## Installation/,/^## /p' "$tree/README.md" | sed -n '/^```sh/,/^```/p' |
		sed '1d;/^```/,$d' |
		sed -e :more -e '/\\$/{N;s/\\\n//;b more' -e '}' |
		sed "s/server-dev-15/server-dev-$(major)/; s/apt-get install/& -y/"
}

source()
{
	cd "$tree"
	$apt update
	$apt install -y "postgresql-$(major)"
	readme_commands >/tmp/commands
	grep -q 'apt-get install' /tmp/commands && grep -q 'make install' /tmp/commands ||
		fail "the README has other commands: $(cat /tmp/commands)"
	bash -ex /tmp/commands >/tmp/said 2>&1 || fail "$(tail -n 30 /tmp/said)"
	! pkg-config --exists hiredis_ssl || ! grep 'built without TLS' /tmp/said || fail "no TLS"
	! grep 'built without c-ares' /tmp/said || fail "no c-ares"
	redis_start
	server_start
	sql 'CREATE EXTENSION pg_uncache'
	deletes_key
}

without_tls()
{
	local said

	cd "$tree"
	$apt update
	readme_commands | sed -n 's/ pkg-config / /; /apt-get/p' >/tmp/commands
	bash -ex /tmp/commands
	# What brings TLS may bring pkg-config, too.
	rm -f /usr/bin/pkg-config
	said=$(make with_llvm=no 2>&1) || fail "it does not build without pkg-config: $said"
	tail -n 6 <<<"$said"
	grep 'without TLS' <<<"$said" && grep 'pkg-config' <<<"$said" || fail "make does not say it"
	[ -e pg_uncache.so ] || fail "nothing was built"
}

# ---------- PGXN ----------

pgxn()
{
	local zip

	cd /tmp
	zip=$(ls /mnt/pg_uncache-*.zip)
	$apt update
	$apt install -y "postgresql-$(major)" "postgresql-server-dev-$(major)" pgxnclient gcc \
		libc6-dev make pkg-config libhiredis-dev libc-ares-dev
	command pgxn install --yes "$zip"
	redis_start
	server_start
	as_postgres env PGPORT="$(port)" pgxn load --yes -d postgres "$zip"
	[ -n "$(sql "SELECT extversion FROM pg_extension WHERE extname = 'pg_uncache'")" ] ||
		fail "pgxn load has not created the extension"
	deletes_key
	as_postgres env PGPORT="$(port)" HOME=/tmp pgxn check --yes -d contrib_regression "$zip"
}

"$@"
