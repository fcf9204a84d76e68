#!/bin/bash
#
# servers.sh: start the servers of the benches in the folder that private.sh
# made, build what the benches need, and run them.

set -u
. "$(dirname "$0")/../test/lib/servers.sh"
cd "$PRIVATE/src/bench" || exit 1

tree=$PRIVATE/pg/usr
# A thousand masters of a cluster are a thousand sockets.
ulimit -n "$(ulimit -Hn)"
export LD_LIBRARY_PATH=$tree/lib/$(gcc -print-multiarch)
export PYTHONPATH=$tree/lib/python3/dist-packages
export PATH=$PATH:$tree/bin
export PGDATA=$PRIVATE/data

free_port()						# free_port: one of the loopback's
{
	perl -MIO::Socket::INET -e '
		print IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 1)->sockport'
}

make -s -C module with_llvm=no install &&
	gcc -O2 -Wall -o client client.c -I"$(pg_config --includedir)" -L"$(pg_config --libdir)" \
		-lpq -lhiredis -lpthread &&
	gcc -O2 -Wall -o delay delay.c -lpthread &&
	gcc -O2 -Wall -D_GNU_SOURCE -o masters masters.c || exit 1

preload="shared_preload_libraries = 'pg_uncache'"
if [ -e "$(pg_config --pkglibdir)/pgmemcache.so" ] && [ -x "$tree/bin/memcached" ]; then
	memcached_port=$(free_port)
	"$tree/bin/memcached" -l 127.0.0.1 -p "$memcached_port" -U 0 &
	preload="shared_preload_libraries = 'pg_uncache, pgmemcache'
pgmemcache.default_servers = '127.0.0.1:$memcached_port'"
fi

cat >"$PRIVATE/pgqd.ini" <<INI
[pgqd]
base_connstr = host=$PRIVATE/sock port=$PGPORT user=$PGUSER
initial_database = bench
database_list = bench
logfile = $PRIVATE/pgqd.log
INI

# What is measured goes over TCP on the loopback, as redis_url does by default.
REDIS_PORT=$(free_port)
export REDIS_PORT
redis_start --bind 127.0.0.1 --port "$REDIS_PORT" || exit 1
# As a server that matters is set up; and nothing that comes and goes by itself.
postgres_start "$preload" "fsync = on" "synchronous_commit = on" "shared_buffers = 512MB" \
	"max_wal_size = 16GB" "checkpoint_timeout = 1d" "autovacuum = off" "jit = off" \
	"uncache.redis_url = 'redis://127.0.0.1:$REDIS_PORT'" "max_connections = 300" \
	"max_locks_per_transaction = 256" "max_files_per_process = 8000" "wal_level = replica" || exit 1
PG_PID=$(head -n 1 "$PGDATA/postmaster.pid") REDIS_PID=$REDIS_PID exec perl -Ilib bench.pl "$@"
