"""Fence and AsyncFence: what an application calls."""
from __future__ import annotations

import asyncio
import json
import random
import time

from ._counters import Counters
from ._flights import AsyncFlights, Flights
from ._flow import NO_VALUE, Flows, Outcome, new_nonce, nonce_text
from ._link import Cluster, make_link
from ._report import Reporter
from ._run import arun, run
from .database import as_database

MAX_LEASE_MS = 60_000         # what the Redis function takes
PATIENCE_MS = 1000            # of callers that wait for one of their own process, without a lease


def _encode(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _positive_ms(name, value):
    """Refuses seconds, text and None where milliseconds belong."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10**15:
        raise ValueError(f"{name} must be a positive whole number of milliseconds, got {value!r}")
    return value


def _is_key(key):
    if not isinstance(key, (str, bytes)) or not key:
        raise TypeError(f"a key must be text or bytes, and not empty, got {key!r}")
    return key


def _are_keys(keys):
    """Each once, in their order."""
    keys = list(dict.fromkeys(keys))
    if not (set(map(type, keys)) <= {str, bytes} and all(keys)):
        for key in keys:
            _is_key(key)
    return keys


class _Base(Reporter):
    def __init__(self, redis, *, snapshot, ttl_ms=3_600_000, lease_ms=1000, redis_timeout_ms=50,
                 shadow=0.0, encode=_encode, decode=json.loads, on_event=None, wait=None,
                 recheck=None):
        self.ttl_ms = _positive_ms("ttl_ms", ttl_ms)
        self.lease_ms = lease_ms and _positive_ms("lease_ms", lease_ms)
        if self.lease_ms and self.lease_ms > MAX_LEASE_MS:
            raise ValueError(f"lease_ms must be at most {MAX_LEASE_MS}, got {lease_ms}")
        if redis_timeout_ms is not None:
            _positive_ms("redis_timeout_ms", redis_timeout_ms)
        if not 0 <= shadow <= 1:
            raise ValueError(f"shadow must be a share from 0 to 1, got {shadow!r}")
        self.shadow, self.encode, self.decode, self.on_event = shadow, encode, decode, on_event
        self.recheck = recheck
        self.database = as_database(snapshot, self.is_async)
        self.snapshot = self.database or snapshot
        if not callable(self.snapshot):
            raise TypeError("snapshot must be a function that takes a token and gives what "
                            "uncache.snapshot(token) gives, or a connection, a pool or a session")
        self.wait = wait or getattr(self.database, "wait", None)
        if shadow and self.wait is None:
            raise ValueError("shadow needs wait: a function that runs SELECT uncache.wait()")
        self.counters = Counters()
        self.link = make_link(redis, redis_timeout_ms, self.node, self.is_async)
        self.flows = Flows(self)

    def in_transaction(self):
        return self.database is not None and self.database.in_transaction()

    def reads(self):
        return None if self.database is None else self.database.reads()

    @property
    def stats(self):
        """Counters since this object was made, as a dict: hit, miss, stored, refused (another
        writer was faster), unfenced (read without storing: no token, no snapshot, no Redis),
        waited (for another reader's fill), checked, stale (see shadow)."""
        return self.counters.snapshot()

    def _database(self):
        if self.database is None:
            raise TypeError("this needs a fence that was made with a connection, a pool or a "
                            "session as snapshot; a function alone can't run other statements")
        return self.database

    def _ttl(self, ttl_ms):
        return self.ttl_ms if ttl_ms is None else _positive_ms("ttl_ms", ttl_ms)

    def _share(self, outcome):
        """Each caller has an object of its own, as after a hit."""
        return Outcome(self.decode(outcome.raw), outcome.raw, outcome.proven, True)

    def _patience(self):
        return (self.lease_ms or PATIENCE_MS) / 1000


class _Nonces:
    """The options of a fence, for the nonces of tags: bytes that are text."""

    def __init__(self, fence):
        self.fence = fence
        self.encode, self.decode = str.encode, nonce_text

    def __getattr__(self, name):
        return getattr(self.fence, name)


class Fence(_Base):
    """Cache-aside with fenced fills: a value is stored only if the snapshot that read it has seen
    every transaction that invalidated its key.

    redis: a client of redis-py (Redis, a Sentinel's master, RedisCluster) or a URL; the fence
    makes connections of its own from its address and rights.
    snapshot: a connection, pool or session (see pg_uncache.database), or a function: given a
    token it returns what SELECT uncache.snapshot(token) gives, text or None; given a list of
    tokens, a list.
    ttl_ms: how long a value lives; there is no "for ever".
    lease_ms: how long one reader may take to fill while the others wait for its value; None: no
    reader waits.
    redis_timeout_ms: what a Redis that is away costs a request, once.
    shadow: the share of hits that are read anew and compared.
    encode, decode: to bytes and back; JSON unless told.  None is a value.
    on_event(name, details): "away", "back", "unfenced" (for a minute), "stale", "check failed".
    wait: a function that runs SELECT uncache.wait(), where snapshot is only a function.
    recheck: True: ask for the snapshot once more after load(), in case that has written in an
    open transaction.  None: where the database object says that a transaction is open.
    """

    is_async = False
    sleep = staticmethod(time.sleep)

    def __init__(self, redis, **options):
        super().__init__(redis, **options)
        self.flights = Flights(self._patience())
        if isinstance(self.link, Cluster):
            self._get = lambda key: run(self.link.get_many([key]))[0]
        else:
            self._get = self.link.get

    def fetch(self, key, load, *, ttl_ms=None):
        """The value of key: from Redis, or what load() returns, which is then stored.

        load() takes no arguments, reads the database and writes nothing.  Its exception is the
        caller's; one of Redis never is."""
        raw = self._get(key)
        if raw.__class__ is bytes:
            try:
                value = self.decode(raw)
            except Exception:
                value = NO_VALUE
            if value is not NO_VALUE:
                next(self.counters.hits)
                if self.shadow and random.random() < self.shadow:
                    return run(self.flows.check_hit(key, raw, value, load, self._ttl(ttl_ms)))
                return value
            raw = b""
        return self._miss(key, raw, self.flows.read, load, self._ttl(ttl_ms))

    def _miss(self, key, raw, read, *args):
        """raw: None, an exception, or bytes that can't be decoded."""
        _is_key(key)
        self.counters.add("miss")
        if isinstance(raw, Exception):
            return self._without_redis(raw, read, args)
        if isinstance(raw, bytes):
            return run(read(key, *args, refresh=True)).value
        return self.flights.fly(key, lambda: run(read(key, *args)), self._share).value

    def _without_redis(self, error, read, args):
        self.flows.count_fill(error)
        return run(_only_read(self, read, args))

    def fetch_many(self, keys, load_many, *, ttl_ms=None):
        """A dict of the values of all keys.  load_many(missing) returns a mapping (a key that is
        not in it has None as its value) or one value for each, in their order."""
        keys = _are_keys(keys)
        if not keys:
            return {}
        return run(self.flows.read_many(keys, load_many, self._ttl(ttl_ms)))

    def fetch_sql(self, key, sql, params=(), *, one=False, ttl_ms=None):
        """The rows of a SELECT, as a list of dicts of JSON's types (one: the first, or None).
        One statement reads them and the snapshot."""
        self._database()
        return self._cached(key, self.flows.read_sql, sql, params, self._ttl(ttl_ms), one)

    def transaction(self, key, work, *, ttl_ms=None):
        """What work(connection) returns; it may run several queries, in a READ ONLY transaction
        that begins with the snapshot."""
        self._database()
        return self._cached(key, self.flows.read_transaction, work, self._ttl(ttl_ms))

    def _cached(self, key, read, *args):
        raw = self._get(key)
        if raw.__class__ is bytes:
            value = self.flows.decoded(raw)
            if value is not NO_VALUE:
                next(self.counters.hits)
                return value
            raw = b""
        return self._miss(key, raw, read, *args)

    def tags(self, tags, body, *, ttl_ms=None):
        """Call body(nonces), whose text goes into the names of keys that depend on all tags:

        fence.tags(["gen:7"], lambda n: fence.fetch(f"list:7:{n}:page3", load))

        A tag is a key with a rule.  Its nonce is read, or its fill answered, before body() asks
        for a token; the other order could store an old page below a new nonce."""
        return body(".".join([self._nonce(_is_key(tag), self._ttl(ttl_ms)) for tag in tags]))

    def _nonce(self, tag, ttl_ms):
        raw = self._get(tag)
        if isinstance(raw, bytes) and nonce_text(raw):
            return nonce_text(raw)
        if isinstance(raw, Exception):
            return new_nonce()
        flows = Flows(_Nonces(self))
        outcome = run(flows.read(tag, new_nonce, ttl_ms, refresh=raw is not None))
        # A nonce that is not in Redis names pages that nobody will find, which is safe.
        return outcome.value if outcome.proven else new_nonce()


class AsyncFence(_Base):
    """Fence for asyncio: redis is a client of redis.asyncio; snapshot, load, load_many, work and
    wait may be coroutine functions.  See Fence."""

    is_async = True
    sleep = staticmethod(asyncio.sleep)

    def __init__(self, redis, **options):
        super().__init__(redis, **options)
        self.flights = AsyncFlights(self._patience())
        if isinstance(self.link, Cluster):
            self._get = self._get_of_cluster
        else:
            self._get = self.link.get

    async def _get_of_cluster(self, key):
        return (await arun(self.link.get_many([key])))[0]

    async def fetch(self, key, load, *, ttl_ms=None):
        raw = await self._get(key)
        if raw.__class__ is bytes:
            value = self.flows.decoded(raw)
            if value is not NO_VALUE:
                next(self.counters.hits)
                if self.shadow and random.random() < self.shadow:
                    return await arun(
                        self.flows.check_hit(key, raw, value, load, self._ttl(ttl_ms)))
                return value
            raw = b""
        return await self._miss(key, raw, self.flows.read, load, self._ttl(ttl_ms))

    async def _miss(self, key, raw, read, *args):
        _is_key(key)
        self.counters.add("miss")
        if isinstance(raw, Exception):
            self.flows.count_fill(raw)
            return await arun(_only_read(self, read, args))
        if isinstance(raw, bytes):
            return (await arun(read(key, *args, refresh=True))).value
        return (await self.flights.fly(
            key, lambda: arun(read(key, *args)), self._share)).value

    async def fetch_many(self, keys, load_many, *, ttl_ms=None):
        keys = _are_keys(keys)
        if not keys:
            return {}
        return await arun(self.flows.read_many(keys, load_many, self._ttl(ttl_ms)))

    async def fetch_sql(self, key, sql, params=(), *, one=False, ttl_ms=None):
        self._database()
        return await self._cached(key, self.flows.read_sql, sql, params, self._ttl(ttl_ms), one)

    async def transaction(self, key, work, *, ttl_ms=None):
        self._database()
        return await self._cached(key, self.flows.read_transaction, work, self._ttl(ttl_ms))

    async def _cached(self, key, read, *args):
        raw = await self._get(key)
        if raw.__class__ is bytes:
            value = self.flows.decoded(raw)
            if value is not NO_VALUE:
                next(self.counters.hits)
                return value
            raw = b""
        return await self._miss(key, raw, read, *args)

    async def tags(self, tags, body, *, ttl_ms=None):
        nonces = [await self._nonce(_is_key(tag), self._ttl(ttl_ms)) for tag in tags]
        return await body(".".join(nonces))

    async def _nonce(self, tag, ttl_ms):
        raw = await self._get(tag)
        if isinstance(raw, bytes) and nonce_text(raw):
            return nonce_text(raw)
        if isinstance(raw, Exception):
            return new_nonce()
        flows = Flows(_Nonces(self))
        outcome = await arun(flows.read(tag, new_nonce, ttl_ms, refresh=raw is not None))
        return outcome.value if outcome.proven else new_nonce()


def _only_read(fence, read, args):
    """What a miss does where Redis has just not answered: nothing with it."""
    flows = fence.flows
    if read == flows.read:
        return (yield (args[0],))
    if read == flows.read_sql:
        sql, params, _, one = args
        rows, _ = yield fence.database.rows, None, sql, params
        return (rows[0] if rows else None) if one else rows
    value, _ = yield fence.database.transaction, None, args[0]
    return value
