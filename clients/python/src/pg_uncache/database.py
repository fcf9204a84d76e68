"""Asking PostgreSQL for snapshots, by the driver that the application has.

Fence(redis, snapshot=X) takes for X a psycopg 3 or psycopg2 connection, a psycopg pool, a
SQLAlchemy session or scoped_session, Django's connection; AsyncFence an AsyncConnection, an
AsyncConnectionPool, an asyncpg connection or pool.  Database(f) is for a function f that gives
the connection of the running request.

The reads of load() must reach the same server as the snapshot, later than it.  With a connection
or session that is so if load() uses it; with a pool if all its connections lead to one server.

An object of this module can do what a function that only takes tokens can't:
  rows(token, sql, params)    one statement for rows and snapshot: (list of dicts, snapshot)
  transaction(token, work)    READ ONLY, the snapshot first: (what work() gave, snapshot)
  wait()                      SELECT uncache.wait()
  in_transaction()            whether what load() has written may still be rolled back
  mark()                      an object that is another one when a transaction has ended; None
                              where that is not known
  reads()                     how many statements have run, or None where that is not known: a
                              value that was "read" without any comes from an ORM's memory
"""
from __future__ import annotations

import contextlib
import json
import threading
import weakref

_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR = range(4)  # libpq's transaction states
_SNAPSHOT = "SELECT uncache.snapshot(%s)"
_ARRAY = "SELECT uncache.snapshot(%s::text[])"
_WAIT = "SELECT uncache.wait()"


def _row_sql(sql, token):
    """One row: the snapshot, and the rows of sql as JSON text."""
    return (f"SELECT uncache.snapshot({token}::text), (SELECT coalesce(json_agg(uncache_row), "
            f"'[]')::text FROM ({sql.strip().rstrip(';')}) uncache_row)")


def _with_token(sql, params, token):
    if hasattr(params, "keys"):
        return _row_sql(sql, "%(uncache_token)s"), {**params, "uncache_token": token}
    return _row_sql(sql, "%s"), [token, *params]


def _frame(status, autocommit):
    """How a read-only transaction begins and ends in a connection of this state.  The end is a
    statement, or None for the connection's rollback()."""
    if status == _IN_TRANSACTION:
        return (["SAVEPOINT uncache_read", "SET TRANSACTION READ ONLY"],
                "ROLLBACK TO SAVEPOINT uncache_read; RELEASE SAVEPOINT uncache_read")
    if autocommit:
        return ["BEGIN READ ONLY"], "ROLLBACK"
    return ["SET TRANSACTION READ ONLY"], None  # the driver begins one


class Database:
    """psycopg 3 and psycopg2: a connection, a pool, or a function that gives a connection."""

    def __init__(self, source):
        self.source = source
        self.is_pool = hasattr(source, "getconn")

    @contextlib.contextmanager
    def connection(self):
        if not self.is_pool:
            yield self.source() if callable(self.source) else self.source
        elif hasattr(self.source, "connection"):
            with self.source.connection() as connection:
                yield connection
        else:  # of psycopg2, whose pools know no "with"
            connection = self.source.getconn()
            try:
                yield connection
            finally:
                connection.rollback()
                self.source.putconn(connection)

    def one(self, connection, sql, params=()):
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchone()

    def __call__(self, tokens):
        sql = _SNAPSHOT if isinstance(tokens, str) else _ARRAY
        with self.connection() as connection:
            return _first(self.one(connection, sql, [tokens]))

    def wait(self):
        with self.connection() as connection:
            return _first(self.one(connection, _WAIT))

    def rows(self, token, sql, params):
        with self.connection() as connection:
            snapshot, rows = _both(self.one(connection, *_with_token(sql, params, token)))
        return json.loads(rows), snapshot

    def transaction(self, token, work):
        with self.connection() as connection:
            begin, end = _frame(connection.info.transaction_status, connection.autocommit)
            with connection.cursor() as cursor:
                try:
                    for sql in begin:
                        cursor.execute(sql)
                    snapshot = token and _first(self.one(connection, _SNAPSHOT, [token]))
                    return work(connection), snapshot
                finally:
                    cursor.execute(end) if end else connection.rollback()

    def in_transaction(self):
        if self.is_pool:
            return False
        with self.connection() as connection:
            return connection.info.transaction_status != _IDLE

    def mark(self):
        return None

    def reads(self):
        return None


def _first(row):
    """The only column, whatever the connection makes of a row."""
    return next(iter(row.values() if hasattr(row, "values") else row))


def _both(row):
    return tuple(row.values() if hasattr(row, "values") else row)


class AsyncDatabase(Database):
    """psycopg 3: an AsyncConnection, an AsyncConnectionPool, or a function that gives one."""

    @contextlib.asynccontextmanager
    async def connection(self):
        if self.is_pool:
            async with self.source.connection() as connection:
                yield connection
        else:
            yield self.source() if callable(self.source) else self.source

    async def one(self, connection, sql, params=()):
        async with connection.cursor() as cursor:
            await cursor.execute(sql, params)
            return await cursor.fetchone()

    async def __call__(self, tokens):
        sql = _SNAPSHOT if isinstance(tokens, str) else _ARRAY
        async with self.connection() as connection:
            return _first(await self.one(connection, sql, [tokens]))

    async def wait(self):
        async with self.connection() as connection:
            return _first(await self.one(connection, _WAIT))

    async def rows(self, token, sql, params):
        async with self.connection() as connection:
            snapshot, rows = _both(await self.one(connection, *_with_token(sql, params, token)))
        return json.loads(rows), snapshot

    async def transaction(self, token, work):
        async with self.connection() as connection:
            begin, end = _frame(connection.info.transaction_status, connection.autocommit)
            async with connection.cursor() as cursor:
                try:
                    for sql in begin:
                        await cursor.execute(sql)
                    snapshot = token and _first(await self.one(connection, _SNAPSHOT, [token]))
                    return await work(connection), snapshot
                finally:
                    await (cursor.execute(end) if end else connection.rollback())

    def in_transaction(self):
        if self.is_pool:
            return False
        connection = self.source() if callable(self.source) else self.source
        return connection.info.transaction_status != _IDLE


class Asyncpg(AsyncDatabase):
    """asyncpg: a connection or a pool.  Parameters are $1, $2 and so on."""

    def __init__(self, source):
        self.source = source
        self.is_pool = hasattr(source, "acquire")

    @contextlib.asynccontextmanager
    async def connection(self):
        if self.is_pool:
            async with self.source.acquire() as connection:
                yield connection
        else:
            yield self.source

    async def one(self, connection, sql, params=()):
        return await connection.fetchrow(sql.replace("%s", "$1"), *params)

    async def rows(self, token, sql, params):
        params = [*params, token]
        async with self.connection() as connection:
            snapshot, rows = await connection.fetchrow(
                _row_sql(sql, f"${len(params)}"), *params)
        return json.loads(rows), snapshot

    async def transaction(self, token, work):
        async with self.connection() as connection:
            inside = connection.is_in_transaction()
            transaction = connection.transaction(readonly=not inside)
            await transaction.start()
            try:
                if inside:  # a savepoint, which a transaction that may write can make read only
                    await connection.execute("SET TRANSACTION READ ONLY")
                snapshot = token and _first(await self.one(connection, _SNAPSHOT, [token]))
                return await work(connection), snapshot
            finally:
                await transaction.rollback()

    def in_transaction(self):
        return not self.is_pool and self.source.is_in_transaction()


class SQLAlchemy(Database):
    """A Session, a scoped_session, or a function that gives the session of this request.

    A session answers from its identity map: after the snapshot its objects are expired, so that
    what load() reads comes from the database.  A session with changes that are not flushed would
    lose them by that; it gets no snapshot, and the value is not stored."""

    def __init__(self, source):
        self.source = source
        self.is_pool = False

    def session(self):
        source = self.source
        if hasattr(source, "registry"):  # scoped_session
            return source()
        return source if hasattr(source, "identity_map") else source()

    def execute(self, sql, params=()):
        session = self.session()
        connection = session.connection()
        _count_statements(connection.engine)
        return session, connection.exec_driver_sql(sql, _driver_params(params)).fetchone()

    def __call__(self, tokens):
        session = self.session()
        if session.new or session.dirty or session.deleted:
            return None if isinstance(tokens, str) else [None] * len(tokens)
        sql = _SNAPSHOT if isinstance(tokens, str) else _ARRAY
        # SQLAlchemy takes a list among the parameters for several rows of them.
        words = tokens if isinstance(tokens, str) else "{" + ",".join(tokens) + "}"
        session, row = self.execute(sql, [words])
        session.expire_all()
        return row[0]

    def wait(self):
        return self.execute(_WAIT)[1][0]

    def rows(self, token, sql, params):
        _, (snapshot, rows) = self.execute(*_with_token(sql, params, token))
        return json.loads(rows), snapshot

    def transaction(self, token, work):
        """work() is given a session of its own."""
        from sqlalchemy.orm import Session
        with Session(bind=self.session().get_bind()) as session:
            connection = session.connection()
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            snapshot = token and connection.exec_driver_sql(_SNAPSHOT, (token,)).fetchone()[0]
            try:
                return work(session), snapshot
            finally:
                session.rollback()

    def in_transaction(self):
        return bool(self.session().in_transaction())

    def mark(self):
        return self.session().get_transaction()

    def reads(self):
        return _statements.count


class _Statements(threading.local):
    count = 0


_statements = _Statements()
_counted_engines: weakref.WeakSet = weakref.WeakSet()


def _count_statements(engine):
    if engine in _counted_engines:
        return
    from sqlalchemy import event
    _counted_engines.add(engine)

    @event.listens_for(engine, "before_cursor_execute")
    def count(connection, cursor, statement, *rest):
        if "uncache.snapshot(" not in statement:
            _statements.count += 1


def _driver_params(params):
    return params if hasattr(params, "keys") else tuple(params)


class Django(Database):
    """The running thread's connection of a Django database, by its alias."""

    def __init__(self, alias="default"):
        self.alias, self.is_pool = alias, False

    @property
    def wrapper(self):
        from django.db import connections
        wrapper = connections[self.alias]
        # ConnectionProxy and the wrapper of a thread have no field of ours until here.
        if "uncache_reads" not in wrapper.__dict__:
            wrapper.uncache_reads = 0
            wrapper.execute_wrappers.insert(0, _count_django(wrapper))
        return wrapper

    def one(self, connection, sql, params=()):
        with self.wrapper.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchone()

    @contextlib.contextmanager
    def connection(self):
        yield None

    def transaction(self, token, work):
        """work() is given Django's connection."""
        from django.db import transaction
        wrapper = self.wrapper
        with transaction.atomic(using=self.alias):
            with wrapper.cursor() as cursor:
                cursor.execute("SET TRANSACTION READ ONLY")
                snapshot = token and _first(self.one(None, _SNAPSHOT, [token]))
            return work(wrapper), snapshot

    def in_transaction(self):
        wrapper = self.wrapper
        return wrapper.in_atomic_block or not wrapper.get_autocommit()

    def mark(self):
        """Django makes a new list of commit hooks whenever a transaction, or a savepoint that is
        rolled back, ends.  Where the program begins transactions by itself it does not: then
        no mark is like another."""
        wrapper = self.wrapper
        if not wrapper.in_atomic_block and not wrapper.get_autocommit():
            return object()
        return wrapper.run_on_commit

    def reads(self):
        return self.wrapper.uncache_reads


def _count_django(wrapper):
    def count(execute, sql, params, many, context):
        if "uncache.snapshot(" not in str(sql):
            wrapper.uncache_reads += 1
        return execute(sql, params, many, context)
    return count


def as_database(source, is_async):
    """An object of this module for what an application hands over; None for a function."""
    found = _as_database(source)
    if found is not None and isinstance(found, AsyncDatabase) != is_async:
        raise TypeError(f"Fence takes what blocks, AsyncFence what belongs to asyncio; "
                        f"snapshot is {type(source).__name__}")
    return found


def _as_database(source):
    if isinstance(source, Database):
        return source
    module, name = type(source).__module__, type(source).__name__
    if module.startswith("asyncpg"):
        return Asyncpg(source)
    if module.startswith("sqlalchemy"):
        return SQLAlchemy(source)
    if module.startswith("django"):
        return Django(source.alias)
    if module.startswith("psycopg"):
        return AsyncDatabase(source) if name.startswith("Async") else Database(source)
    return None
