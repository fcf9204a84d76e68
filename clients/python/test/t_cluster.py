"""A Redis Cluster: keys of several slots, slots that move, a master that hangs."""
import asyncio
import logging
import os
import signal
import time

import redis
import redis.asyncio

import tap
from tap import AsyncFence, Fence, connect, ok, same, until

logging.getLogger("pg_uncache").setLevel(logging.CRITICAL)
DATABASE = os.environ["PGDATABASE"] + "_cluster"
db = connect(dbname=DATABASE)
db.execute("CREATE TABLE IF NOT EXISTS nodes (id int PRIMARY KEY, name text)")
db.execute("SELECT uncache.attach('nodes', 'node:{id}')")
masters = {port: redis.Redis(port=port) for port in range(tap.CLUSTER_PORT, tap.CLUSTER_PORT + 3)}


def cluster():
    return redis.cluster.RedisCluster(host="127.0.0.1", port=tap.CLUSTER_PORT)


def reset():
    db.execute("DELETE FROM nodes")
    db.execute("INSERT INTO nodes SELECT i, 'first' FROM generate_series(1, 100) i")
    db.execute("SELECT uncache.wait()")


def load(id_=1):
    return db.execute("SELECT name FROM nodes WHERE id = %s", [id_]).fetchone()[0]


def stored(key):
    slot = redis.crc.key_slot(key.encode())
    for port, master in masters.items():
        for first, last, address, *_ in master.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last and address[1] == port:
                return master.get(key)


def filled():
    """The worker has made itself known to all masters."""
    fence = Fence(cluster(), snapshot=db)
    keys = [f"node:{i}" for i in range(1, 101)]
    return until(lambda: fence.fetch_many(keys, lambda missing: dict.fromkeys(missing, "first")) and
                 all(stored(key) for key in keys[:20]))


def keys_of_all_masters():
    reset()
    ok(filled(), "cluster: a hundred keys of three masters are stored")
    sessions = cluster()
    fence = Fence(sessions, snapshot=db)
    keys = [f"node:{i}" for i in range(1, 101)]
    same(set(fence.fetch_many(keys, None).values()), {"first"}, "cluster: and are hits")
    db.execute("UPDATE nodes SET name = 'second' WHERE id = 7")
    same(fence.fetch("node:7", lambda: load(7)), "second", "cluster: a write deletes its key")
    same(stored("node:7"), b'"second"', "cluster: which is filled again")

    def behind():
        name = load(8)
        db.execute("UPDATE nodes SET name = 'second' WHERE id = 8")
        return name
    db.execute("UPDATE nodes SET name = 'old' WHERE id = 8")
    same((fence.fetch("node:8", behind), stored("node:8")), ("old", None),
         "cluster: what is older than a commit is refused")


async def asyncio_too():
    reset()
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=tap.CLUSTER_PORT)
    await client.initialize()
    fence = AsyncFence(client, snapshot=lambda token: db.execute(
        "SELECT uncache.snapshot(%s)", [token]).fetchone()[0])
    same(await fence.fetch("node:1", load), "first", "cluster: asyncio: a miss")
    same((await fence.fetch("node:1", None), fence.stats["stored"]), ("first", 1),
         "cluster: asyncio: is a hit then")
    db.execute("UPDATE nodes SET name = 'second' WHERE id < 50")
    keys = [f"node:{i}" for i in range(1, 51)]
    got = await fence.fetch_many(keys, lambda missing: [load(int(key[5:])) for key in missing])
    same(set(got[key] for key in keys[:49]), {"second"}, "cluster: asyncio: many keys")
    await client.close()


def move(key, to):
    """The slot of a key, with what is in it."""
    slot = redis.crc.key_slot(key.encode())
    ids = {port: master.execute_command("CLUSTER", "MYID").decode()
           for port, master in masters.items()}
    source = next(port for port, master in masters.items()
                  for first, last, address, *_ in masters[port].execute_command("CLUSTER", "SLOTS")
                  if first <= slot <= last and address[1] == port)
    if source == to:
        return source
    masters[to].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    masters[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to])
    yield "half way"
    names = masters[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    if names:
        masters[source].execute_command("MIGRATE", "127.0.0.1", to, "", 0, 5000, "KEYS", *names)
    for port in (to, source, *masters):
        masters[port].execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[to])
    yield "there"


def slots_that_move():
    reset()
    fence = Fence(cluster(), snapshot=db)
    fence.fetch("node:5", lambda: load(5))
    home = int(fence.link.node_of("node:5").name.rpartition(":")[2])
    other = next(port for port in masters if port != home)
    for step in move("node:5", other):
        same(fence.fetch("node:5", lambda: load(5)), "first", f"cluster: a slot {step} is read")
    ok(until(lambda: fence.fetch("node:5", lambda: load(5)) and
             fence.link.node_of("node:5") is fence.link.node(("127.0.0.1", other))),
       "cluster: and looked for in its new place")
    for step in move("node:5", home):
        pass


def a_master_that_hangs():
    reset()
    ok(filled(), "cluster: all is stored again")
    fence = Fence(cluster(), snapshot=db, redis_timeout_ms=50)
    fence.fetch("node:1", load)
    port = masters[tap.CLUSTER_PORT].info()["tcp_port"]
    pid = masters[port].info()["process_id"]
    theirs = [f"node:{i}" for i in range(1, 101)
              if fence.link.node_of(f"node:{i}").name.endswith(f":{port}")]
    others = [f"node:{i}" for i in range(1, 101) if f"node:{i}" not in theirs]
    os.kill(pid, signal.SIGSTOP)
    try:
        began, misses = time.monotonic(), fence.stats["miss"]
        for key in theirs:
            fence.fetch(key, lambda: "loaded")
        ok(time.monotonic() - began < 2, "cluster: a master that hangs costs its keys one wait",
           time.monotonic() - began)
        same(fence.stats["miss"] - misses, len(theirs), "cluster: which are read in the database")
        hits = fence.stats["hit"]
        for key in others:
            fence.fetch(key, lambda: "loaded")
        same(fence.stats["hit"] - hits, len(others), "cluster: those of the others are hits")
    finally:
        os.kill(pid, signal.SIGCONT)
    ok(until(lambda: fence.fetch(theirs[0], lambda: "loaded") == "first"),
       "cluster: when it is back it is used again")


tap.run(keys_of_all_masters, lambda: asyncio.run(asyncio_too()), slots_that_move,
        a_master_that_hangs)
