"""pgBackRest: a restore to a point in time, started beside production, on production's Redis."""
import json
import os

from support import (PRIVATE, Oracle, Server, free_ports, is_, ok, run, start_redis, until)


def write_conf(server):
    with open("pgbackrest.conf", "w") as conf:
        print("[global]", f"repo1-path={os.path.abspath('repo')}", f"log-path={os.getcwd()}",
              f"lock-path={os.getcwd()}", f"spool-path={os.getcwd()}", "log-level-console=warn",
              "start-fast=y", "[shop]", f"pg1-path={server.folder}", f"pg1-port={server.port}",
              f"pg1-socket-path={PRIVATE}/sock", "pg1-user=postgres", sep="\n", file=conf)


def pgbackrest(*arguments):
    return run("pgbackrest", f"--config={os.path.abspath('pgbackrest.conf')}", "--stanza=shop",
               *arguments)


def restore(name, moment, *lines):
    """A copy as of the moment, promoted when it is there."""
    os.makedirs(name, mode=0o700)
    pgbackrest("restore", f"--pg1-path={os.path.abspath(name)}", "--type=time",
               f"--target={moment}", "--target-action=promote", "--archive-mode=off")
    copy = Server(name, *lines, make=False)
    copy.start()
    ok(f"{name}: is there, with the rows of then",
       until(60, lambda: copy.sql("SELECT NOT pg_is_in_recovery()")))
    return copy


def main():
    redis_port = free_ports(1)[0]
    cache = start_redis(redis_port)
    address = f"uncache.redis_url = 'redis://127.0.0.1:{redis_port}'"
    conf = os.path.abspath("pgbackrest.conf")
    server = Server("data", address, "uncache.fence_ttl = '5min'", "archive_mode = on",
                    f"archive_command = 'pgbackrest --config={conf} --stanza=shop archive-push %p'",
                    "max_connections = 60")
    write_conf(server)
    server.start()
    server.sql("CREATE EXTENSION pg_uncache", "CREATE TABLE item (id int PRIMARY KEY, version int)",
               f"INSERT INTO item SELECT i, 0 FROM generate_series(1, {Oracle.ROWS}) i",
               "SELECT uncache.attach('item', 'item:{id}', 'plain:{id}')")
    os.makedirs("repo")
    pgbackrest("stanza-create")
    pgbackrest("backup", "--type=full")

    oracle = Oracle(cache, server.dsn(), [server.dsn()] * 4).start()
    fence = "SELECT fence FROM uncache.stat"
    ok("production works, its fence is on",
       until(60, lambda: server.sql(fence) == "on" and oracle.stored > 20), oracle.errors[-3:])
    # pgBackRest takes a backup that had ended, by whole seconds, before the moment.
    ended = json.loads(pgbackrest("info", "--output=json"))[0]["backup"][-1]["timestamp"]["stop"]
    until(10, lambda: server.sql(f"SELECT now() > to_timestamp({ended}) + interval '2 s'"))
    moment = server.sql("SELECT now()::text")
    sum_then = server.sql("SELECT sum(version) FROM item")
    until(60, lambda: server.sql("SELECT sum(version) FROM item") > sum_then + 200)
    server.sql("SELECT pg_switch_wal()")

    # As docs/operations.md says: with delivery off.
    quiet = restore("quiet", moment, "uncache.delivery = off")
    ok("quiet: has the rows of then, and the rules",
       quiet.sql("SELECT sum(version) FROM item") < server.sql("SELECT sum(version) FROM item")
       and quiet.sql("SELECT count(*) FROM uncache.rules") > 0)
    quiet.sql("UPDATE item SET version = version + 1000")
    ok("quiet: delivers nothing", quiet.sql("SELECT state FROM uncache.stat") == "paused")
    is_("quiet: a reader of it gets no snapshot that would store",
        stores(cache, quiet), False)
    stored = oracle.stored
    ok("quiet: production fills on", until(60, lambda: oracle.stored > stored + 20))
    is_("quiet: ... with its fence on", server.sql(fence), "on")
    quiet.stop()

    # The mistake: with production's address.  The newer timeline takes the fence.
    wrong = restore("wrong", moment)
    ok("wrong: takes the fence, and production says so",
       until(60, lambda: server.sql(fence) == "superseded"), server.sql(fence))
    told = server.sql("SELECT last_error FROM uncache.stat")
    ok("wrong: last_error names the way out", "reclaim_fence" in told, told)
    wrong.stop()
    ok("wrong: reclaim_fence() takes it back",
       until(30, server.sql, "SELECT uncache.reclaim_fence()"))
    ok("wrong: production's fence is on again", until(60, lambda: server.sql(fence) == "on"))
    stored = oracle.stored
    ok("wrong: and it fills", until(60, lambda: oracle.stored > stored + 20))

    oracle.finish()
    ok("all is delivered", server.sql("SELECT uncache.wait('30 s')"))
    is_(f"no stale read of {oracle.hits} hits", oracle.stale[:5], [])
    is_(f"no commit of {oracle.commits} is lost", oracle.lost[:5], [])
    is_("Redis holds what production's database holds", oracle.wrong(), [])
    ok("plain readers are found to be stale", oracle.sees_plain_readers("plain:{}"))
    server.stop()


def stores(cache, server):
    """Whether a fenced reader of this server can store a value."""
    cache.delete("item:1")
    token = (cache.execute_command("FCALL", "uncache_get", 1, "item:1") + [None])[1]
    if token is None:
        return False
    snapshot = server.sql(f"SELECT uncache.snapshot('{token.decode()}')")
    return snapshot is not None and bool(cache.execute_command(
        "FCALL", "uncache_set", 1, "item:1", snapshot, 60000, "stale"))


main()
