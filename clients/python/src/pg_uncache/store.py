"""What drop-in stores have in common: fenced fills for libraries that only know get and set.

Model.  Under the fenced prefixes a get() that misses takes the token of its miss and, at once,
on the request's own connection, the snapshot; both are remembered for this thread.  The set() of
the same key presents them.  So what the application reads between the two is what the snapshot
speaks of.  set() stores nothing, and counts it, where
  - no get() of this key has missed before, or a transaction or savepoint has ended since: what is
    to be stored may have been read earlier, or been rolled back;
  - the open transaction has written: its rows may be rolled back (the snapshot is then NULL when
    it is asked for again);
  - no statement has run since: the value comes from an ORM's memory.
All other keys are stored as ever, without a fence, and counted as plain.
"""
from __future__ import annotations

import threading
import time
from collections import namedtuple

from ._counters import Counters
from ._flow import Answer, Flows
from ._link import Cluster, make_link
from ._report import Reporter
from ._run import run

# Of one thread.  Misses that nobody fills stay until the request ends, in a program without
# requests until there are so many.
MAX_REMEMBERED = 1000
DAY_MS = 24 * 3600 * 1000  # how long a value lives that a library would keep for ever

Memory = namedtuple("Memory", "token snapshot mark reads")


class _Local(threading.local):
    def __init__(self):
        self.memories = {}


class Store(Reporter):
    """redis: as for Fence.  database: of pg_uncache.database, or a function that takes tokens.
    fenced: prefixes of keys, as the store's user spells them in is_fenced()."""

    is_async = False
    shadow = 0
    recheck = None
    sleep = staticmethod(time.sleep)

    def __init__(self, redis, database, fenced, *, lease_ms=1000, redis_timeout_ms=50,
                 on_event=None):
        if isinstance(fenced, (str, bytes)) or not fenced:
            raise ValueError('fenced must be a list of prefixes of keys, such as ["user:"]')
        self.fenced = tuple(fenced)
        self.database, self.lease_ms = database, lease_ms
        self.on_event, self.counters = on_event, Counters()
        self.link = make_link(redis, redis_timeout_ms, self.node, False)
        self.flows = Flows(self)
        self.local = _Local()
        if isinstance(self.link, Cluster):
            self.read_raw = lambda key: run(self.link.get_many([key]))[0]
        else:
            self.read_raw = self.link.get

    # Values are the library's bytes.
    @staticmethod
    def decode(raw):
        return raw

    @staticmethod
    def encode(value):
        return value

    def snapshot(self, tokens):
        return self.database(tokens)

    def in_transaction(self):
        ask = getattr(self.database, "in_transaction", None)
        return True if ask is None else ask()

    def mark(self):
        ask = getattr(self.database, "mark", None)
        return ask and ask()

    def reads(self):
        ask = getattr(self.database, "reads", None)
        return ask and ask()

    def is_fenced(self, key):
        return key.startswith(self.fenced)

    def memories(self):
        return self.local.memories

    def forget(self):
        """The request has ended."""
        self.memories().clear()

    def remember(self, key, token, snapshot):
        if snapshot is None:
            return
        memories = self.memories()
        if len(memories) >= MAX_REMEMBERED:
            memories.pop(next(iter(memories)))
        memories[key] = Memory(token, snapshot, self.mark(), self.reads())

    # ---- get

    def get(self, key, fills=False):
        """The bytes of a fenced key, or None: a miss.  fills: the caller will fill it at once, so
        others may wait for that."""
        raw = self.read_raw(key)
        if isinstance(raw, bytes):
            self.counters.add("hit")
            return raw
        self.counters.add("miss")
        self.memories().pop(key, None)
        if isinstance(raw, Exception):
            self.flows.count_fill(raw)
            return None
        answer = run(self.look_up(key, fills))
        if answer.token is not None:
            self.remember(key, answer.token, self.snapshot(answer.token))
        return answer.raw

    def look_up(self, key, fills):
        if fills:
            return (yield from self.flows.look_up(key))
        reply, = yield from self.link.exchange([(key, "FCALL", "uncache_get", 1, key)])
        answer, _ = self.flows.answer(reply, False)
        if answer.why is not None:
            self.flows.unfenced(answer)
        return answer

    def refresh(self, key):
        """get() gave bytes that can't be decoded: a miss, whose fill takes their place."""
        self.memories().pop(key, None)
        reply, = run(self.link.exchange([(key, "FCALL", "uncache_token", 1, key)]))
        answer, _ = self.flows.answer(reply, True)
        if answer.token is not None:
            self.remember(key, answer.token, self.snapshot(answer.token))

    def get_many(self, keys):
        """The bytes of fenced keys, by key, of those that are there."""
        keys = list(dict.fromkeys(keys))
        found = run(self._get_many(keys)) if keys else {}
        self.counters.add("hit", len(found))
        self.counters.add("miss", len(keys) - len(found))
        return found

    def _get_many(self, keys):
        raws = yield from self.link.get_many(keys)
        found = {key: raw for key, raw in zip(keys, raws) if isinstance(raw, bytes)}
        missing = [key for key, raw in zip(keys, raws) if raw is None]
        tokens = {}
        for key in missing:
            self.memories().pop(key, None)
        if missing:
            replies = yield from self.link.exchange(
                [(key, "FCALL", "uncache_get", 1, key) for key in missing])
            for key, reply in zip(missing, replies):
                answer, _ = self.flows.answer(reply, False)
                if answer.raw is not None:
                    found[key] = answer.raw
                elif answer.token is not None:
                    tokens[key] = answer.token
        if tokens:
            snapshots = yield self.snapshot, list(tokens.values())
            for (key, token), snapshot in zip(tokens.items(), snapshots):
                self.remember(key, token, snapshot)
        return found

    # ---- set

    def set(self, key, raw, ttl_ms):
        return self.set_many({key: raw}, ttl_ms) == 1

    def set_many(self, raws, ttl_ms):
        """Store what is proven.  Returns how many were stored."""
        return run(self._set_many(raws, max(1, int(DAY_MS if ttl_ms is None else ttl_ms))))

    def _set_many(self, raws, ttl_ms):
        fills, mark, reads = {}, self.mark(), self.reads()
        for key in raws:
            memory = self.memories().pop(key, None)
            why = _objection(memory, mark, reads)
            if why is None:
                fills[key] = memory
            elif memory is None:
                self.flows.unfenced(Answer(None, None, why))
            else:
                yield from self.give_up({key: memory}, why)
        if fills and self.in_transaction():
            again = yield self.snapshot, [memory.token for memory in fills.values()]
            if None in again:
                yield from self.give_up(fills, "the transaction that has read has written")
                fills = {}
        if not fills:
            return 0
        replies = yield from self.link.exchange([
            (key, "FCALL", "uncache_set", 1, key, memory.snapshot, ttl_ms, raws[key])
            for key, memory in fills.items()])
        return sum(self.flows.count_fill(reply) is True for reply in replies)

    def give_up(self, fills, why):
        yield from self.flows.give_up(
            [(key, Answer(None, memory.token, None)) for key, memory in fills.items()])
        for _ in fills:
            self.flows.unfenced(Answer(None, None, why))

    def abandon(self, key):
        """The value of a get(fills=True) will not come."""
        memory = self.memories().pop(key, None)
        if memory is not None:
            run(self.flows.give_up([(key, Answer(None, memory.token, None))]))

    def delete(self, keys):
        """How many were there.  Redis away: none, as nothing can be read there either."""
        for key in keys:
            self.memories().pop(key, None)
        replies = run(self.link.exchange([(key, "UNLINK", key) for key in keys]))
        return sum(reply for reply in replies if isinstance(reply, int))

    @property
    def stats(self):
        return self.counters.snapshot()


def _objection(memory, mark, reads):
    """Why what is to be stored is not proven, or None."""
    if memory is None:
        return ("set() without a get() that missed just before, or whose snapshot was NULL: the "
                "value may be older than the last invalidation")
    if memory.mark is not mark:
        return "a transaction has ended between get() and set(), so its rows may be rolled back"
    if reads is not None and reads == memory.reads:
        return ("the database was asked nothing between get() and set(): the value comes from "
                "memory, an ORM's or the program's, and may be older than the snapshot")
    return None

