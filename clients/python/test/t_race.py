# only once: the race is long, and newer libraries change nothing in it
"""A race of 50 sessions: 40 read a few rows through a cache, 10 write them.

A read is stale if it is older than a commit that had returned before it began.  Commits wait
until Redis has answered, so with a correct cache there is none.  The plain lane shows that the
race finds what it looks for; it is read as often done: GET, SELECT, SET.
"""
import asyncio
import json
import logging
import os
import random
import threading
import time

import psycopg
import redis
import redis.asyncio

import tap
from pg_uncache import Database
from tap import SLOW, AsyncFence, Fence, client, connect, ok

logging.getLogger("pg_uncache").setLevel(logging.CRITICAL)
ROWS, READERS, WRITERS = 8, 40, 10
ENOUGH = 1000  # reads of a lane: some of them are refused
db = connect()
db.execute("DROP TABLE IF EXISTS race")
db.execute("CREATE TABLE race (id int PRIMARY KEY, version int)")
db.execute("SELECT uncache.attach('race', 'race:{id}', ':1:race:{id}', 'race:gen')")
SELECT = "SELECT version FROM race WHERE id = %s"


class Race:
    """One lane.  committed: the newest version of each row whose commit has returned; each row
    is written by one session, and its entry by that alone."""

    def __init__(self, seconds):
        db.execute("DELETE FROM race")
        db.execute("INSERT INTO race SELECT i, 0 FROM generate_series(0, %s) i", [ROWS - 1])
        db.execute("SELECT uncache.wait()")
        self.committed = [0] * ROWS
        self.reads = self.stale = self.writes = 0
        self.lock = threading.Lock()
        # On a busy machine opening 40 connections may take as long as the race.
        self.ends = time.monotonic() + seconds
        self.ends_without = self.ends + 60
        self.errors = []
        self.pause = 0.05  # between two writes of a session, at most

    def goes_on(self):
        ends = self.ends if self.reads >= ENOUGH else self.ends_without
        return time.monotonic() < ends and not self.errors

    def write(self, number):
        with connect() as connection:
            while self.goes_on():
                if number >= ROWS:  # the other writers keep the server busy
                    connection.execute("SELECT uncache.invalidate_keys('race:none')")
                else:
                    version = connection.execute(
                        "UPDATE race SET version = version + 1 WHERE id = %s RETURNING version",
                        [number]).fetchone()[0]
                    self.committed[number] = version
                    self.writes += 1
                time.sleep(random.random() * self.pause)

    def judge(self, floor, version):
        with self.lock:
            self.reads += 1
            self.stale += version < floor

    def read(self, make):
        """make() gives read(id), for one session."""
        read = make()
        while self.goes_on():
            id_ = random.randrange(ROWS)
            floor = self.committed[id_]
            self.judge(floor, read(id_))
            time.sleep(random.random() * 0.004)

    def run(self, make, *more):
        def guarded(work, *args):
            try:
                work(*args)
            except Exception as error:
                self.errors.append(error)
        jobs = [(self.write, n) for n in range(WRITERS)]
        jobs += [(self.read, make) for _ in range(READERS)] if make else list(more)
        threads = [threading.Thread(target=guarded, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self


def pause():
    """Between the look at the database and the store: where the race is lost."""
    if random.random() < 0.1:
        time.sleep(random.random() * 0.05)


def plain():
    connection, r = connect(), client()

    def read(id_):
        hit = r.get(f"race:{id_}")
        if hit is not None:
            return json.loads(hit)
        version = connection.execute(SELECT, [id_]).fetchone()[0]
        pause()
        r.set(f"race:{id_}", json.dumps(version), px=60_000)
        return version
    return read


own = threading.local()


def of_thread():
    if not hasattr(own, "connection"):
        own.connection = connect()
    return own.connection


def fenced(fence):
    def make():
        connection = of_thread()

        def read(id_):
            def load():
                version = connection.execute(SELECT, [id_]).fetchone()[0]
                pause()
                return version
            if random.random() < 0.1:
                return fence.fetch_many([f"race:{id_}"], lambda keys: [load()])[f"race:{id_}"]
            return fence.fetch(f"race:{id_}", load)
        return read
    return make


def of_asyncio(race, stats):
    """All readers in one event loop."""
    async def reader(fence, connection):
        while race.goes_on():
            id_ = random.randrange(ROWS)

            async def load():
                version = (await (await connection.execute(SELECT, [id_])).fetchone())[0]
                if random.random() < 0.1:
                    await asyncio.sleep(random.random() * 0.05)
                return version
            floor = race.committed[id_]
            race.judge(floor, await fence.fetch(f"race:{id_}", load))
            await asyncio.sleep(random.random() * 0.004)

    async def main():
        shared = redis.asyncio.Redis.from_url(tap.REDIS_URL)
        fences, connections = [], []
        for _ in range(READERS):
            connections.append(await psycopg.AsyncConnection.connect(autocommit=True))
            # A fence for each task: its snapshots come from the task's connection.
            fences.append(AsyncFence(shared, snapshot=connections[-1]))
        flights = fences[0].flights
        for fence in fences:
            fence.flights = flights  # as one fence has them
        await asyncio.gather(*[reader(*pair) for pair in zip(fences, connections)])
        stats.update(stored=sum(f.stats["stored"] for f in fences),
                     refused=sum(f.stats["refused"] for f in fences),
                     hit=sum(f.stats["hit"] for f in fences))
    return lambda: asyncio.run(main())


def django_store():
    from django.conf import settings
    settings.configure(
        CACHES={"default": {"BACKEND": "pg_uncache.django.DjangoRedisCache",
                            "LOCATION": tap.REDIS_URL, "OPTIONS": {
                                "FENCED": ["race:"], "UNCACHE": {"REDIS_TIMEOUT_MS": 5000}}}},
        DATABASES={"default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"],
            "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"]}}, INSTALLED_APPS=[])
    import django
    django.setup()
    from django.core.cache import cache
    from django.db import connection

    def make():
        def read(id_):
            def load():
                with connection.cursor() as cursor:
                    cursor.execute(SELECT, [id_])
                    version = cursor.fetchone()[0]
                pause()
                return version
            if random.random() < 0.5:
                return cache.get_or_set(f"race:{id_}", load, 60)
            version = cache.get(f"race:{id_}")
            if version is None:
                version = load()
                cache.set(f"race:{id_}", version, 60)
            return version
        return read
    return cache.uncache, make


def dogpile_store():
    from dogpile.cache import make_region

    import pg_uncache.dogpile  # noqa: F401
    region = make_region().configure("pg_uncache", arguments={
        "url": tap.REDIS_URL, "database": Database(of_thread), "fenced": ["race:"],
        "redis_expiration_time": 60, **SLOW})

    def make():
        def read(id_):
            def load():
                version = of_thread().execute(SELECT, [id_]).fetchone()[0]
                pause()
                return version
            return region.get_or_create(f"race:{id_}", load)
        return read
    return region.backend.uncache, make


def pages(race, fence_of, stats):
    """A page of all rows below a fenced tag, by readers on the primary, in REPEATABLE READ
    transactions that last for some reads, and on the standby.  The latter two may serve what
    they read themselves, which is old; what they find in the cache may not be."""
    def reader(number):
        kind = ("primary", "repeatable read", "standby")[number % 3]
        connection = connect(**({"port": tap.STANDBY_PORT} if kind == "standby" else {}))
        fence, turn = fence_of(connection), 0
        while race.goes_on():
            turn += 1
            if kind == "repeatable read" and turn % 4 == 1:
                connection.execute("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ")
                connection.execute("SELECT count(*) FROM race")
            floor, loads = sum(race.committed), []

            def load():
                loads.append(1)
                total = connection.execute("SELECT sum(version)::int FROM race").fetchone()[0]
                pause()
                return total
            got = fence.tags(["race:gen"], lambda nonce: fence.fetch(f"race:page:{nonce}", load))
            if kind == "primary" or not loads:
                race.judge(floor, got)
            time.sleep(random.random() * 0.01)
        with race.lock:
            for name in ("stored", "refused", "hit"):
                stats[name] = stats.get(name, 0) + fence.stats[name]
    return [(reader, number) for number in range(READERS)]


def tags_lane():
    race, stats = Race(tap.RACE_SECONDS / 2), {}
    race.pause = 0.5  # a page that every write orphans is found by nobody
    jobs = pages(race, lambda connection: Fence(client(), snapshot=connection, ttl_ms=60_000),
                 stats)
    report("tags, REPEATABLE READ, standby", race.run(None, *jobs), stats)


def report(title, race, stats):
    print(f"# {title}: {race.reads} reads, {race.stale} stale, {race.writes} writes, {stats}")
    ok(not race.errors, f"race: {title}: no errors", race.errors[:1])
    # A lane in which nothing is stored, hit or refused would prove nothing.
    ok(race.stale == 0 and race.reads > 0, f"race: {title}: no stale read", race.stale)
    ok(stats["stored"] and stats["hit"] and stats["refused"],
       f"race: {title}: values were stored, hit, and refused", stats)


def main():
    deadline, race = time.monotonic() + 60, Race(2).run(plain)
    while not race.stale and time.monotonic() < deadline:
        race = Race(2).run(plain)
    print(f"# plain: {race.reads} reads, {race.stale} stale, {race.writes} writes")
    ok(race.stale > 0 and not race.errors, "race: the plain lane is found to read stale values",
       race.errors[:1])
    client().flushdb()
    for title, make in (("Fence", lambda: fence_lane()), ("Django", django_store),
                        ("dogpile", dogpile_store)):
        store, reader = make()
        race = Race(tap.RACE_SECONDS if title == "Fence" else tap.RACE_SECONDS / 2).run(reader)
        report(title, race, store.stats)
    race, stats = Race(tap.RACE_SECONDS / 2), {}
    report("AsyncFence", race.run(None, (of_asyncio(race, stats),)), stats)
    tags_lane()


def fence_lane():
    fence = Fence(client(), snapshot=Database(of_thread), ttl_ms=60_000)
    return fence, fenced(fence)


tap.run(main)
