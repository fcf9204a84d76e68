"""AsyncFence: the cases of clients/conformance in an event loop, and what they can't say."""
import asyncio
import contextlib
import logging
import os
import signal
import threading
import time

import psycopg
import redis
import redis.asyncio

import t_conformance
import tap
from tap import AsyncFence, Fence, client, connect, fails, ok, same

logging.getLogger("pg_uncache").setLevel(logging.CRITICAL)
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()


def wait(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(tap.PATIENCE_S)


class Session:
    """An AsyncConnection, for tests that block; what they load runs in threads of the loop."""

    def __init__(self, connection):
        self.connection = connection

    def execute(self, *args):
        async def run():
            cursor = await self.connection.execute(*args)
            return Rows(cursor.description, await cursor.fetchall() if cursor.description else [])
        return wait(run())

    def close(self):
        wait(self.connection.close())


class Rows:
    def __init__(self, description, rows):
        self.description, self.rows = description, rows

    def fetchone(self):
        return self.rows[0] if self.rows else None

    def fetchall(self):
        return self.rows


class Blocking:
    """An AsyncFence with the methods of Fence."""

    def __init__(self, redis_url, snapshot, **options):
        connection = snapshot.connection if isinstance(snapshot, Session) else None

        async def make():
            self.fence = AsyncFence(
                redis.asyncio.Redis.from_url(redis_url),
                snapshot=connection or threaded(snapshot), **options)
        wait(make())

    @property
    def stats(self):
        return self.fence.stats

    @property
    def counters(self):
        return self.fence.counters

    @counters.setter
    def counters(self, counters):
        self.fence.counters = counters

    def fetch(self, key, load, **options):
        return wait(self.fence.fetch(key, threaded(load), **options))

    def fetch_many(self, keys, load, **options):
        return wait(self.fence.fetch_many(keys, threaded(load), **options))

    def fetch_sql(self, *args, **options):
        return wait(self.fence.fetch_sql(*args, **options))

    def transaction(self, key, work, **options):
        async def in_thread(connection):
            return await loop.run_in_executor(None, work, Session(connection))
        return wait(self.fence.transaction(key, in_thread, **options))

    def tags(self, tags, body):
        async def in_thread(nonces):
            return await loop.run_in_executor(None, body, nonces)
        return wait(self.fence.tags(tags, in_thread))


def threaded(call):
    async def run(*args):
        return await loop.run_in_executor(None, call, *args)
    return run


def session(where="primary"):
    port = {"standby": tap.STANDBY_PORT, "pgbouncer": tap.PGBOUNCER_PORT}.get(where)
    return Session(wait(psycopg.AsyncConnection.connect(
        autocommit=True, prepare_threshold=None, **({"port": port} if port else {}))))


class AsyncCase(t_conformance.Case):
    def connect(self, where="primary"):
        return session(where)

    def make_fence(self, snapshot, **options):
        return Blocking(tap.REDIS_URL, snapshot, **options)


async def cancelled():
    """A task that is cancelled harms no other: neither its command's answer nor its flight."""
    r = client()
    r.delete("fence:1", "fence:2")
    connection = await psycopg.AsyncConnection.connect(autocommit=True)
    fence = AsyncFence(redis.asyncio.Redis.from_url(tap.REDIS_URL), snapshot=connection,
                       lease_ms=10_000)
    r.set("fence:1", '"one"')
    r.set("fence:2", '"two"')
    await fence.fetch("fence:1", None)
    os.kill(tap.REDIS_PID, signal.SIGSTOP)
    try:
        task = asyncio.ensure_future(fence.fetch("fence:1", None))
        await asyncio.sleep(0.1)  # it has sent its command by then, or the test is none
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        # The next command, which may get that connection, is on its way before the answer.
        task = asyncio.ensure_future(fence.fetch("fence:2", None))
        await asyncio.sleep(0.1)
    finally:
        os.kill(tap.REDIS_PID, signal.SIGCONT)
    same([await task] + [await fence.fetch("fence:2", None) for _ in range(5)], ["two"] * 6,
         "async: a cancelled command's answer is not another's")

    r.delete("fence:1")
    started = asyncio.Event()

    async def hangs():
        started.set()
        await asyncio.sleep(tap.PATIENCE_S)
    task = asyncio.ensure_future(fence.fetch("fence:1", hangs))
    await started.wait()

    async def load():
        return "loaded"
    others = [asyncio.ensure_future(fence.fetch("fence:1", load)) for _ in range(5)]
    await asyncio.sleep(0.01)
    task.cancel()
    began = time.monotonic()
    same(await asyncio.wait_for(asyncio.gather(*others), tap.PATIENCE_S), ["loaded"] * 5,
         "async: readers behind one that is cancelled go on")
    ok(time.monotonic() - began < 8, "async: and need not wait for its lease")


async def flights():
    r = client()
    r.delete("fence:1")
    held, loads = asyncio.Event(), []
    connection = await psycopg.AsyncConnection.connect(autocommit=True)
    fence = AsyncFence(redis.asyncio.Redis.from_url(tap.REDIS_URL), snapshot=connection,
                       lease_ms=None)
    fence.flights.patience = tap.PATIENCE_S

    async def load():
        loads.append(1)
        if len(loads) == 1:
            await held.wait()
            return "old"
        return "new"
    first = asyncio.ensure_future(fence.fetch("fence:1", load))
    while not loads:
        await asyncio.sleep(0.01)
    with connect() as writer:  # what it reads is older than this
        writer.execute("SELECT uncache.invalidate_keys('fence:1')")
    others = [asyncio.ensure_future(fence.fetch("fence:1", load)) for _ in range(20)]
    while fence.stats["miss"] < 21:
        await asyncio.sleep(0.01)
    held.set()
    same((await first, set(await asyncio.gather(*others)), len(loads)), ("old", {"new"}, 2),
         "async: a flight that reads is not joined, one that waits is")
    same(fence.flights.board.lines, {}, "async: nothing is left of the flights")


async def outage():
    connection = await psycopg.AsyncConnection.connect(autocommit=True)
    fence = AsyncFence(redis.asyncio.Redis.from_url(tap.REDIS_URL), snapshot=connection,
                       redis_timeout_ms=50)

    async def load():
        return "loaded"
    await fence.fetch("fence:1", load)
    sent = []
    execute = fence.link.node.client.execute_command

    def counted(*words):
        sent.append(words)
        return execute(*words)
    fence.link.node.client.execute_command = counted
    os.kill(tap.REDIS_PID, signal.SIGSTOP)
    try:
        began = time.monotonic()
        got = [await fence.fetch("fence:1", load) for _ in range(50)]
        took = time.monotonic() - began
    finally:
        os.kill(tap.REDIS_PID, signal.SIGCONT)
    same((got, [words[0] for words in sent if words[0] != "PING"]), (["loaded"] * 50, ["GET"]),
         "async: with a Redis that hangs one of fifty requests has asked it")
    ok(took >= 0.05, "async: and waited for the timeout", took)
    deadline = time.monotonic() + tap.PATIENCE_S
    while not fence.stats["hit"] and time.monotonic() < deadline:
        await fence.fetch("fence:1", load)
        await asyncio.sleep(0.02)
    ok(fence.stats["hit"], "async: when it is back it is used again")


def wrong_uses():
    fails(TypeError, lambda: AsyncFence(client(), snapshot=lambda token: None), "redis.asyncio",
          "async: a client that blocks is refused")
    fails(TypeError, lambda: Fence(client(), snapshot=session().connection), "AsyncFence",
          "async: a connection of asyncio is refused by Fence")


def main():
    t_conformance.all_cases("async: ", AsyncCase)
    for test in (cancelled, flights, outage):
        wait(test())
    wrong_uses()


tap.run(main)
