"""pg_repack, pg_partman and PgBouncer with rules, under load."""
import os

from support import (BIN, Oracle, Server, free_ports, is_, ok, run, start, start_redis,
                     until)


def repack(server, oracle):
    """The table is rewritten and exchanged below its triggers, while it is written."""
    rules = "SELECT string_agg(r::text, chr(10) ORDER BY r::text) FROM uncache.rules r"
    before = server.sql(rules)
    filenode = "SELECT pg_relation_filenode('item')"
    old = server.sql(filenode)
    commits = oracle.commits
    for what in (["--table", "item"], ["--table", "item", "--order-by", "version"],
                 ["--table", "item", "--only-indexes"]):
        run(f"{BIN}/pg_repack", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres",
            "-d", "postgres", "--no-superuser-check", *what)
    ok("pg_repack has rewritten the table", server.sql(filenode) != old)
    is_("... its rules are as they were", server.sql(rules), before)
    ok("... and work", until(60, lambda: oracle.commits > commits + 50), oracle.errors[-3:])
    problems = "SELECT count(*) FROM uncache.rules WHERE problem <> ''"
    is_("... with no problem", server.sql(problems), 0)


def partman(server, cache):
    """Partitions that come and go, with one rule on the parent."""
    server.sql("CREATE SCHEMA partman", "CREATE EXTENSION pg_partman SCHEMA partman",
               "CREATE TABLE event (id int NOT NULL, at int NOT NULL, note text)"
               " PARTITION BY RANGE (at)",
               "SELECT uncache.attach('event', 'event:{id}')",
               "SELECT partman.create_parent('public.event', 'at', 'native', '10',"
               " p_start_partition := '0')",
               "UPDATE partman.part_config SET premake = 2, retention = '20',"
               " retention_keep_table = false WHERE parent_table = 'public.event'")

    def deleted(row, statement):
        cache.set(f"event:{row}", "old")
        server.sql(statement, "SELECT uncache.wait()")
        return cache.get(f"event:{row}") is None

    ok("a row of a partition of pg_partman deletes its key",
       deleted(1, "INSERT INTO event VALUES (1, 15, '')"))
    partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'event'::regclass"
    first = server.sql(partitions)
    server.sql("INSERT INTO event SELECT 100 + i, i, '' FROM generate_series(20, 29) i")
    server.sql("CALL partman.run_maintenance_proc()")
    for step in range(3, 9):
        server.sql(f"INSERT INTO event SELECT {step}, {step * 10}, ''",
                   "CALL partman.run_maintenance_proc()")
    new = server.sql("SELECT tableoid::regclass::text FROM event WHERE id = 8")
    ok(f"a partition made by its maintenance ({new}) has the rule",
       deleted(8, "UPDATE event SET note = 'new' WHERE id = 8"))
    ok("... and its maintenance drops old ones",
       server.sql("SELECT count(*) FROM event WHERE at < 30") == 0, first, server.sql(partitions))
    ok("... which leaves the rule without a problem",
       server.sql("SELECT count(*) FROM uncache.rules WHERE relation = 'event'::regclass"
                  " AND problem <> ''") == 0)
    is_("... and delivery on", server.sql("SELECT state FROM uncache.stat"), "connected")


def pgbouncer_port(server):
    port = free_ports(1)[0]
    with open("pgbouncer.ini", "w") as ini:
        print("[databases]", f"* = host=127.0.0.1 port={server.port} user=postgres", "[pgbouncer]",
              "listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir =",
              "auth_type = any", "pool_mode = transaction", "default_pool_size = 4",
              "max_client_conn = 200", sep="\n", file=ini)
    program = next(p for p in ("/usr/sbin/pgbouncer", "/usr/bin/pgbouncer") if os.path.exists(p))
    start([program, "-q", "pgbouncer.ini"], "pgbouncer.log")
    return port


def main():
    redis_port = free_ports(1)[0]
    cache = start_redis(redis_port)
    server = Server("data", f"uncache.redis_url = 'redis://127.0.0.1:{redis_port}'",
                    "uncache.fence_ttl = '5min'", "max_connections = 100").start()
    server.sql("CREATE EXTENSION pg_uncache", "CREATE EXTENSION pg_repack",
               "CREATE TABLE item (id int PRIMARY KEY, version int)",
               f"INSERT INTO item SELECT i, 0 FROM generate_series(1, {Oracle.ROWS}) i",
               "SELECT uncache.attach('item', 'item:{id}', 'plain:{id}')")
    pooled = f"host=127.0.0.1 port={pgbouncer_port(server)} user=postgres dbname=postgres"
    # Six sessions and three writers share four connections.
    oracle = Oracle(cache, pooled, [pooled] * 6).start()
    ok("writers and fenced readers behind PgBouncer work",
       until(60, lambda: oracle.commits > 100 and oracle.stored > 20), oracle.errors[-3:])
    repack(server, oracle)
    partman(server, cache)
    oracle.finish()
    ok("all is delivered", server.sql("SELECT uncache.wait('30 s')"))
    is_(f"no stale read of {oracle.hits} hits", oracle.stale[:5], [])
    is_(f"no commit of {oracle.commits} is lost", oracle.lost[:5], [])
    is_("Redis holds what the database holds", oracle.wrong(), [])
    ok("plain readers are found to be stale", oracle.sees_plain_readers("plain:{}"))
    server.stop()


main()
