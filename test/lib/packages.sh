#!/bin/bash
#
# packages.sh: install what the demo, the tests or CI need and the machine lacks.
#
#	packages.sh build|test|ci|systems|readers|clients|proof|monitoring|containers|deploy
#
# Model: every need is looked for by what it provides (a command, a header, a
# Perl module), so nothing is installed, and no right is needed, where it is
# there already, wherever it came from.  What is missing is installed by its
# Debian name: as root, or through sudo.  Exit code 0: all is there.  1: not,
# and what to do was printed.
#
# Installing changes as little as it can.  Redis comes from redis-tools, which
# holds the server's program but no service.  PostgreSQL makes no cluster, and
# nothing is started: see install_quietly().
#
# Limits: knows apt only; elsewhere it prints what is missing.

set -u
here=$(dirname "$0")
. "$here/find.sh"

want=$1
missing=()				# words for people
packages=()				# Debian's names

need()					# need WHAT PACKAGE...
{
	missing+=("$1")
	shift
	packages+=("$@")
}

# The major whose packages fit: of the newest server here, else Debian's own.
wanted_major()
{
	local major

	major=$(find_server_major)
	if [ -z "$major" ] && command -v apt-cache >/dev/null; then
		major=$(apt_major)
		# A machine that was made a moment ago has no lists of packages.
		[ -n "$major" ] || { as_root apt-get -qq update >/dev/null && major=$(apt_major); }
	fi
	echo "${major:-15}"
}

apt_major()
{
	apt-cache depends postgresql 2>/dev/null |
		sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1
}

# Fails where this user can't become root.
as_root()
{
	local become=()

	if [ "$(id -u)" -ne 0 ]; then
		become=(sudo)
		# Nobody can answer a question for a password without a terminal.
		[ -t 0 ] || become+=(-n)
		command -v sudo >/dev/null && "${become[@]}" true 2>/dev/null || return 1
	fi
	"${become[@]}" "$@"
}

need_for_build()
{
	command -v gcc >/dev/null || need "a C compiler" gcc libc6-dev
	command -v make >/dev/null || need "GNU make" make
	command -v pkg-config >/dev/null || need "pkg-config" pkg-config
	[ -e /usr/include/hiredis/hiredis.h ] || [ -e /usr/local/include/hiredis/hiredis.h ] ||
		need "hiredis with its headers" libhiredis-dev
	pkg-config --exists libcares 2>/dev/null || [ -e /usr/include/ares.h ] ||
		need "c-ares with its headers" libc-ares-dev
	[ ! -e /usr/include/hiredis/hiredis_ssl.h ] || [ -e /usr/include/openssl/ssl.h ] ||
		need "OpenSSL's headers, for TLS" libssl-dev
	[ -n "$(find_redis_program)" ] && [ -n "$(find_redis_cli)" ] ||
		need "Redis" redis-tools
	if ! pg_config=$(find_pg_config); then
		if [ -n "${PG_CONFIG:-}" ]; then
			echo "PG_CONFIG is $PG_CONFIG, which does not belong to a PostgreSQL 15 or later" \
				"with server and headers." >&2
			exit 1
		fi
		major=$(wanted_major)
		need "PostgreSQL with its server headers" "postgresql-$major" "postgresql-server-dev-$major"
	else
		major=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
	fi
}

need_for_tests()
{
	command -v prove >/dev/null || need "prove" perl
	command -v openssl >/dev/null || need "openssl" openssl
	perl -MIPC::Run -e 1 2>/dev/null || need "Perl's IPC::Run" libipc-run-perl
	command -v pg_prove >/dev/null || need "pg_prove" libtap-parser-sourcehandler-pgtap-perl
	[ -n "${pg_config:-}" ] && [ -e "$("$pg_config" --sharedir)/extension/pgtap.control" ] ||
		need "pgTAP" "postgresql-$major-pgtap"
}

need_for_ci()
{
	command -v clang >/dev/null || need "clang" clang
	command -v pg_bsd_indent >/dev/null || need "pg_bsd_indent" pg-bsd-indent
	[ -n "$(ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a 2>/dev/null)" ] ||
		need "clang's runtime for fuzzing" libclang-rt-dev
}

need_for_systems()
{
	command -v mmdebstrap >/dev/null || need "mmdebstrap" mmdebstrap
	command -v ip >/dev/null || need "ip" iproute2
}

need_for_containers()
{
	command -v mmdebstrap >/dev/null || need "mmdebstrap" mmdebstrap
	command -v buildah >/dev/null || need "buildah" buildah
	command -v docker-compose >/dev/null || need "docker-compose" docker-compose
	command -v yamllint >/dev/null || need "yamllint" yamllint
	python3 -c 'import jsonschema, yaml' 2>/dev/null ||
		need "Python's jsonschema and yaml" python3-jsonschema python3-yaml
	find_redis_program >/dev/null || need "Redis" redis-tools
}

#
# Install without starting anything.  Both files are taken away again at the
# end.  Should this script be killed so hard that it can't, the first one says
# yes again as soon as its process is gone, and the second only keeps the next
# PostgreSQL package from making a cluster.  A policy that the machine has
# already is left as it is.
#
install_quietly='
set -u
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d/pg_uncache-tests.conf
made=()
undo()
{
	[ ${#made[@]} -eq 0 ] || rm -f "${made[@]}"
	rmdir /etc/postgresql-common/createcluster.d 2>/dev/null
}
trap undo EXIT
trap "exit 130" INT
trap "exit 143" TERM HUP
if [ ! -e $policy ]; then
	made+=($policy)
	{
		echo "#!/bin/sh"
		echo "# pg_uncache installs packages: start no service meanwhile. May be removed."
		echo "kill -0 $$ 2>/dev/null && exit 101"
		echo "exit 0"
	} >$policy
	chmod 755 $policy
fi
mkdir -p "${cluster%/*}"
made+=($cluster)
echo "create_main_cluster = false" >$cluster
export DEBIAN_FRONTEND=noninteractive
get() { apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -qq "$@" </dev/null; }
get install -y --no-install-recommends "$@" ||
	{ get update && get install -y --no-install-recommends "$@"; }
'

install()
{
	local log status

	as_root true || return 1
	echo "installing ${packages[*]}"
	log=$(mktemp)
	as_root bash -c "$install_quietly" install "${packages[@]}" >"$log" 2>&1
	status=$?
	[ $status -eq 0 ] || cat "$log" >&2
	rm -f "$log"
	return $status
}

tell()
{
	{
		printf 'Missing here: %s\n' "$(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
		if command -v apt-get >/dev/null; then
			echo "Install it as root, then try again:"
			echo "  apt-get install --no-install-recommends ${packages[*]}"
		else
			echo "Install it with this system's package manager, then try again."
		fi
	} >&2
}

need_for_readers()
{
	need_for_node
	/usr/bin/python3 -c 'import psycopg' 2>/dev/null || need "psycopg 3 for Python" python3-psycopg
	/usr/bin/python3 -c 'import redis' 2>/dev/null || need "redis-py" python3-redis
	/usr/bin/python3 -c 'import django_redis' 2>/dev/null ||
		/usr/bin/python3 -c 'import django.core.cache.backends.redis' 2>/dev/null ||
		need "Django with a cache in Redis" python3-django python3-django-redis
}

need_for_monitoring()
{
	command -v promtool >/dev/null || need "Prometheus" prometheus
	command -v prometheus-postgres-exporter >/dev/null ||
		need "postgres_exporter" prometheus-postgres-exporter
	command -v prometheus-sql-exporter >/dev/null ||
		need "Debian's sql_exporter" prometheus-sql-exporter
	python3 -c 'import yaml' 2>/dev/null || need "Python's yaml" python3 python3-yaml
}

need_for_node()
{
	command -v node >/dev/null || need "Node.js" nodejs
	command -v npm >/dev/null || need "npm" npm
}

# For $CLIENTS; what else a client's tests need its test/packages lists by Debian's names.
need_for_clients()
{
	local client package

	command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || need "PgBouncer" pgbouncer
	for client in ${CLIENTS:-node python ruby php}; do
		[ $client != node ] || need_for_node
		for package in $(sed 's/#.*//' "$here/../../clients/$client/test/packages" 2>/dev/null); do
			[ "$(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
				need "$package" "$package"
		done
	done
}

# Programs that PostgreSQL is run with.
need_for_deploy()
{
	local major package

	major=$(wanted_major)
	for package in patroni etcd-server pgbackrest python3-etcd python3-psycopg2 python3-redis \
			"postgresql-$major-repack" "postgresql-$major-partman"; do
		[ "$(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			need "$package" "$package"
	done
}

look()
{
	missing=()
	packages=()
	case $want in
		build) need_for_build ;;
		test) need_for_build; need_for_tests ;;
		ci) need_for_build; need_for_tests; need_for_ci ;;
		systems) need_for_systems ;;
		readers) need_for_build; need_for_readers ;;
		clients) need_for_build; need_for_clients ;;
		proof) need_for_build; need_for_node ;;
		monitoring) need_for_build; need_for_monitoring ;;
		containers) need_for_containers ;;
		deploy) need_for_build; need_for_deploy ;;
	esac
	[ ${#missing[@]} -eq 0 ]
}

case $want in
	build | test | ci | systems | readers | clients | proof | monitoring | containers | deploy) ;;
	*)
		sed -n 's/^#\tpackages.sh/usage: packages.sh/p' "$0" >&2
		exit 2 ;;
esac

look && exit 0
if ! command -v apt-get >/dev/null || ! install; then
	tell
	exit 1
fi
look && exit 0
tell
exit 1
