"""Snapshots by each driver: a fenced hit, an old snapshot, a transaction, wrong uses."""
import asyncio
import logging
import os
import threading

import psycopg
import psycopg2
import psycopg2.pool
import redis.asyncio
from psycopg.rows import dict_row
from sqlalchemy import Column, Integer, String, create_engine
from sqlalchemy.orm import declarative_base, scoped_session, sessionmaker

import tap
from pg_uncache import Database
from tap import AsyncFence, Fence, client, connect, ok, same

logging.getLogger("pg_uncache").setLevel(logging.CRITICAL)
db = connect()
r = client()
db.execute("DROP TABLE IF EXISTS people")
db.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")
db.execute("SELECT uncache.attach('people', 'people:{id}')")
SQL = "SELECT id, name FROM people WHERE id = %s"


class Person(declarative_base()):
    __tablename__ = "people"
    id = Column(Integer, primary_key=True)
    name = Column(String)


def reset():
    db.execute("DELETE FROM people")
    db.execute("INSERT INTO people VALUES (1, 'first'), (2, 'first')")
    db.execute("SELECT uncache.invalidate_keys('people:1', 'people:2'), uncache.wait()")


def rename(name):
    db.execute("UPDATE people SET name = %s WHERE id = 1", [name])


def name_by(execute):
    """load() by a connection of psycopg 3 or 2."""
    def load(connection):
        with connection.cursor() as cursor:
            cursor.execute("SELECT name AS n FROM people WHERE id = 1")
            row = cursor.fetchone()
            return row["n"] if isinstance(row, dict) else row[0]
    return load


def driver(title, source, connection, load, sql=SQL):
    """What every driver does.  connection: what load() is called with."""
    reset()
    fence = Fence(r, snapshot=source)
    same(fence.fetch("people:1", lambda: load(connection())), "first", f"{title}: a miss loads")
    same(fence.fetch("people:1", None), "first", f"{title}: and is a hit then")

    def behind():
        name = load(connection())
        rename("second")
        return name
    rename("old")
    same((fence.fetch("people:1", behind), r.exists("people:1"), fence.stats["refused"]),
         ("old", 0, 1), f"{title}: what is older than a commit is refused")
    same(fence.fetch_many(["people:1", "people:2"], lambda keys: {
        "people:1": load(connection())}), {"people:1": "second", "people:2": None},
        f"{title}: many keys")
    same(fence.stats["stored"], 3, f"{title}: are stored")
    r.delete("people:1")
    same(fence.fetch_sql("people:1", sql, [1]), [{"id": 1, "name": "second"}],
         f"{title}: fetch_sql")
    same(fence.fetch_sql("people:1", "SELECT 1/0"), [{"id": 1, "name": "second"}],
         f"{title}: whose second call is a hit")
    r.delete("people:1", "people:3")
    same(fence.fetch_sql("people:3", sql, [3], one=True), None,
         f"{title}: one row that is not there")
    same(fence.transaction("people:1", load), "second", f"{title}: transaction")
    same(r.get("people:1"), b'"second"', f"{title}: which is stored")
    r.delete("people:1")
    try:
        fence.transaction("people:1", writes)
        ok(False, f"{title}: a transaction may not write")
    except Exception as error:
        ok("read-only" in str(error), f"{title}: a transaction may not write", error)
    same(load(connection()), "second", f"{title}: and the connection goes on")
    return fence


def writes(connection):
    if hasattr(connection, "exec_driver_sql") or hasattr(connection, "get_bind"):
        return connection.connection().exec_driver_sql("UPDATE people SET name = 'no'")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE people SET name = 'no'")


def psycopg3():
    connection = connect()
    driver("psycopg 3", connection, lambda: connection, name_by("psycopg"))
    rows = connect(row_factory=dict_row)
    driver("psycopg 3 with dict_row", rows, lambda: rows, name_by("psycopg"))
    same(Fence(r, snapshot=connection).fetch_sql(
        "people:1", "SELECT name FROM people WHERE id = %(id)s;", {"id": 1}),
        [{"name": "second"}], "psycopg 3: named parameters")
    open_ = psycopg.connect()
    fence = driver("psycopg 3 without autocommit", Database(lambda: open_), lambda: open_,
                   lambda c: (name_by("psycopg")(c), open_.commit() if c is open_ and not inside(c)
                              else None)[0])
    open_.commit()
    rename("third")
    open_.execute("UPDATE people SET name = 'mine' WHERE id = 2")
    fence.fetch("people:1", lambda: name_by("psycopg")(open_))
    open_.rollback()
    same(r.exists("people:1"), 0, "psycopg 3: a transaction that has written stores nothing")

    # A read-only transaction within one that may write ends, and the other goes on.
    nested = connect()
    with nested.transaction():
        Fence(r, snapshot=nested).transaction("people:1", name_by("psycopg"))
        nested.execute("UPDATE people SET name = 'nested' WHERE id = 2")
    same(db.execute("SELECT name FROM people WHERE id = 2").fetchone()[0], "nested",
         "psycopg 3: a transaction within another leaves that as it was")
    try:
        from psycopg_pool import ConnectionPool
    except ImportError:
        return tap.skip("psycopg_pool", "it is not here")
    with ConnectionPool("", kwargs={"autocommit": True}) as pool:
        driver("psycopg_pool", pool, lambda: connection, name_by("psycopg"))


def inside(connection):
    """Within fence.transaction(), which must not be committed."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_read_only")
        return cursor.fetchone()[0] == "on"


def old_psycopg2():
    connection = psycopg2.connect("")
    connection.autocommit = True
    driver("psycopg2", connection, lambda: connection, name_by("psycopg2"))
    pool = psycopg2.pool.ThreadedConnectionPool(1, 4, "")
    driver("psycopg2's pool", pool, lambda: connection, name_by("psycopg2"))


def sqlalchemy_sessions():
    engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(""))
    make = sessionmaker(engine)
    session = make()

    def load(session):
        name = session.get(Person, 1).name
        return name

    def fresh():
        session.rollback()
        return session

    def load_here(given):
        name = given.get(Person, 1, populate_existing=True).name
        if given is session:
            given.commit()
        return name
    driver("SQLAlchemy", session, lambda: session, load_here)

    reset()
    scoped = scoped_session(make)
    fence = Fence(r, snapshot=scoped)
    kept = scoped.get(Person, 1)
    same(kept.name, "first", "SQLAlchemy: a request has read the row")
    rename("second")
    same(fence.fetch("people:1", lambda: load(scoped)), "second",
         "SQLAlchemy: what it fills is not what it remembers")
    same(r.get("people:1"), b'"second"', "SQLAlchemy: and is stored")
    name = kept.name
    rename("third")
    same(fence.fetch("people:1", lambda: name), "second", "SQLAlchemy: a value that was at hand")
    same((r.exists("people:1"), fence.stats["unfenced"]), (0, 1), "SQLAlchemy: is not stored")
    kept.name = "unsaved"
    same(fence.fetch("people:1", lambda: kept.name), "unsaved",
         "SQLAlchemy: a session with changes")
    same((r.exists("people:1"), kept.name), (0, "unsaved"),
         "SQLAlchemy: stores nothing, and keeps them")
    scoped.rollback()
    fence.fetch("people:1", lambda: load(scoped))
    same(r.get("people:1"), b'"third"', "SQLAlchemy: after a rollback it stores again")
    rename("fourth")

    def flushes():
        scoped.get(Person, 1).name = "mine"
        scoped.flush()
        return scoped.get(Person, 1).name
    fence.fetch("people:1", flushes)
    scoped.rollback()
    same(r.exists("people:1"), 0, "SQLAlchemy: a load that flushes stores nothing")


async def of_asyncpg():
    try:
        import asyncpg
    except ImportError:
        return tap.skip("asyncpg", "it is not here")
    options = {"host": os.environ["PGHOST"], "port": int(os.environ["PGPORT"]),
               "user": os.environ["PGUSER"], "database": os.environ["PGDATABASE"]}
    pool = await asyncpg.create_pool(**options)
    connection = await asyncpg.connect(**options)
    for title, source in (("asyncpg", connection), ("asyncpg's pool", pool)):
        reset()
        fence = AsyncFence(redis.asyncio.Redis.from_url(tap.REDIS_URL), snapshot=source)

        async def load(connection=connection):
            return await connection.fetchval("SELECT name FROM people WHERE id = 1")
        same(await fence.fetch("people:1", load), "first", f"{title}: a miss loads")
        same(r.get("people:1"), b'"first"', f"{title}: and is stored")

        async def behind():
            name = await load()
            rename("second")
            return name
        r.delete("people:1")
        await fence.fetch("people:1", behind)
        same(fence.stats["refused"], 1, f"{title}: what is older than a commit is refused")

        async def many(keys):
            return ["x", "y"]
        await fence.fetch_many(["people:1", "people:2"], many)
        same(fence.stats["stored"], 3, f"{title}: many keys are stored")
        r.delete("people:1")
        same(await fence.fetch_sql("people:1", SQL.replace("%s", "$1"), [1]),
             [{"id": 1, "name": "second"}], f"{title}: fetch_sql")
        r.delete("people:1")
        same(await fence.transaction("people:1", load), "second", f"{title}: transaction")

        async def wrong(connection):
            await connection.execute("UPDATE people SET name = 'no'")
        r.delete("people:1")
        try:
            await fence.transaction("people:1", wrong)
            ok(False, f"{title}: which may not write")
        except asyncpg.PostgresError as error:
            ok("read-only" in str(error), f"{title}: which may not write", error)
    reset()
    async with connection.transaction():
        await connection.execute("UPDATE people SET name = 'mine' WHERE id = 2")
        fence = AsyncFence(redis.asyncio.Redis.from_url(tap.REDIS_URL), snapshot=connection)
        await fence.fetch("people:1", load)
    same(fence.stats["unfenced"], 1, "asyncpg: a transaction that has written stores nothing")


def standby_and_pooler():
    for where, port in (("standby", tap.STANDBY_PORT), ("PgBouncer", tap.PGBOUNCER_PORT)):
        reset()
        reader = connect(port=port, prepare_threshold=None)
        fence = Fence(r, snapshot=reader)
        tap.until(lambda: reader.execute("SELECT count(*) FROM people").fetchone()[0] == 2)

        def load():
            return reader.execute("SELECT name FROM people WHERE id = 1").fetchone()[0]

        def hits():
            return fence.fetch("people:1", load) == "first" and fence.stats["hit"] > 0
        ok(tap.until(hits), f"{where}: a value is stored", fence.stats)
        rename("second")

        def sees_it():
            return fence.fetch("people:1", load) == "second" and r.exists("people:1")
        ok(tap.until(sees_it), f"{where}: and after a write the new one", fence.stats)


def one_connection_a_thread():
    """A function that gives the running request's connection."""
    reset()
    own = threading.local()

    def connection():
        if not hasattr(own, "connection"):
            own.connection = connect()
        return own.connection
    fence, got = Fence(r, snapshot=Database(connection)), []

    def reader():
        got.append(fence.fetch("people:1", lambda: name_by("psycopg")(connection())))
    threads = [threading.Thread(target=reader) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same((got, fence.stats["unfenced"]), (["first"] * 20, 0), "a connection for each thread")


tap.run(psycopg3, old_psycopg2, sqlalchemy_sessions, lambda: asyncio.run(of_asyncpg()),
        standby_and_pooler, one_connection_a_thread)
