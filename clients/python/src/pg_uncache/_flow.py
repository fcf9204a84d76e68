"""The fenced fill, once for Fence and AsyncFence: generators, see _run.py.

What makes a fill safe is an order: first the token of the miss, then the snapshot, then the
reads, all on one server; and Redis compares the snapshot with the invalidations of the key.  The
code here keeps that order.  Whatever is missing (a token, a snapshot, Redis itself) means that
the value is served and not stored.
"""
from __future__ import annotations

import random
import re
import secrets
import time
from collections import namedtuple

import redis

from ._link import Away

# Waiters for another's fill ask again after 10 to 50 ms: soon enough for a reader, and 200 of
# them make some 7,000 calls a second.
POLL_S = (0.010, 0.050)
ASK_AGAIN_S = 60  # for leases, of a Redis that knew none: its functions may be new by then
NO_VALUE = object()
# What a read ended with.  raw: the bytes that are in Redis or were sent there, or None.  proven:
# they are in Redis.  shareable: another caller of this process, that came before the read began,
# may be given raw.
Outcome = namedtuple("Outcome", "value raw proven shareable")
# How a miss is answered: raw is a value, or token is one for a fill, or both are None.
Answer = namedtuple("Answer", "raw token why")

_TOO_MANY = re.compile("takes 1 key and no arguments")


def is_fresh(snapshot):
    """Whether Redis needs no beat to believe that the snapshot is younger than its token: it is
    of a statement in READ COMMITTED on a primary.  token:incarnation:FRESH:xmin:xmax:xip"""
    parts = snapshot.rsplit(":", 4)
    return len(parts) == 5 and parts[1] == "1"


class Flows:
    """The steps of one fence.  It reads the fence's options, and has none of its own."""

    def __init__(self, options):
        self.link = options.link
        self.o = options
        self.no_leases_until = 0.0  # this Redis has functions of before there were leases

    def ask(self, function, *words):
        """One command for one key; an exception is a reply."""
        reply, = yield from self.link.exchange([(words[1], "FCALL", function, *words)])
        return reply

    # ---- a miss

    def miss_command(self, key, refresh):
        words = ("FCALL", "uncache_token" if refresh else "uncache_get", 1, key)
        if self.has_leases():
            words += (self.o.lease_ms,)
        return (key, *words)

    def answer(self, reply, refresh):
        """(Answer, None), or (None, ms) where another reader is filling."""
        if isinstance(reply, Exception):
            return Answer(None, None, _why(reply)), None
        if not isinstance(reply, list):  # of uncache_token
            reply = [None, reply]
        if len(reply) > 2 and reply[2] is not None:
            return None, int(reply[2])
        if reply[0] is not None and not refresh:
            return Answer(reply[0], None, None), None
        token = reply[-1] if len(reply) > 1 else reply[0]
        if token is None:
            return Answer(None, None, "Redis gives no token: uncache.stat of the database says "
                          "in fence and last_error what is wrong"), None
        return Answer(None, token.decode(), None), None

    def is_old_library(self, reply):
        if isinstance(reply, redis.ResponseError) and _TOO_MANY.search(str(reply)):
            self.no_leases_until = time.monotonic() + ASK_AGAIN_S
            return True
        return False

    def has_leases(self):
        return bool(self.o.lease_ms) and time.monotonic() >= self.no_leases_until

    def look_up(self, key, refresh=False):
        """What to do on a miss; waits while another reader fills, if there are leases."""
        deadline = None
        while True:
            if refresh and deadline is not None:
                raw, = yield from self.link.exchange([(key, "GET", key)])
                if isinstance(raw, bytes) and self.decoded(raw) is not NO_VALUE:
                    return Answer(raw, None, None)
            reply, = yield from self.link.exchange([self.miss_command(key, refresh)])
            if self.is_old_library(reply):
                continue
            answer, wait_ms = self.answer(reply, refresh)
            if answer is not None:
                if answer.raw is not None and self.decoded(answer.raw) is NO_VALUE:
                    refresh = True
                    continue
                return answer
            now = time.monotonic()
            if deadline is None:
                deadline = now + wait_ms / 1000
                self.o.counters.add("waited")
            if now >= deadline:
                return Answer(None, None, None)
            yield self.o.sleep, min(random.uniform(*POLL_S), max(deadline - now, 0.001))

    def decoded(self, raw):
        try:
            return self.o.decode(raw)
        except Exception:  # another version of the application, or a value that was cut off
            return NO_VALUE

    def read(self, key, load, ttl_ms, refresh=False):
        """A miss of one key.  Returns an Outcome."""
        answer = yield from self.look_up(key, refresh)
        if answer.raw is not None:
            return Outcome(self.decoded(answer.raw), answer.raw, True, True)
        return (yield from self.fill(key, answer, load, ttl_ms))

    def fill(self, key, answer, load, ttl_ms):
        snapshot = None
        try:
            if answer.token is not None:
                snapshot = yield self.o.snapshot, answer.token
            before = self.o.reads()
            value = yield (load,)
            if snapshot is not None:
                why = yield from self.objection(before, [answer.token])
                if why is not None:
                    snapshot, answer = None, answer._replace(why=why)
        except BaseException:
            yield from self.give_up([(key, answer)])
            raise
        return (yield from self.store(key, answer, snapshot, value, ttl_ms))

    def objection(self, reads_before, tokens):
        """Why what load() returned is not proven by the snapshots of before, or None."""
        if reads_before is not None and self.o.reads() == reads_before:
            return ("the database was asked nothing: the value comes from memory, an ORM's or "
                    "the program's, and may be older than the snapshot")
        recheck = self.o.recheck if self.o.recheck is not None else self.o.in_transaction()
        if recheck and None in (yield from self.snapshots(tokens)):
            return "the transaction that has read has written"
        return None

    def store(self, key, answer, snapshot, value, ttl_ms):
        if snapshot is None:
            yield from self.give_up([(key, answer)])
            self.unfenced(answer)
            return Outcome(value, None, False, False)
        raw = self.encoded(key, value)
        reply = yield from self.ask("uncache_set", 1, key, snapshot, ttl_ms, raw)
        stored = self.count_fill(reply)
        return Outcome(value, raw, stored, stored or (stored is not None and is_fresh(snapshot)))

    def encoded(self, key, value):
        raw = self.o.encode(value)
        if isinstance(raw, str):
            raw = raw.encode()
        if not isinstance(raw, (bytes, bytearray, memoryview)):
            raise TypeError(f"encode() gave {type(raw).__name__} for {key!r}; it must give bytes "
                            "or text")
        return bytes(raw)

    def count_fill(self, reply):
        """True stored, False refused, None: it was not answered."""
        if isinstance(reply, Exception):
            self.unfenced(Answer(None, None, _why(reply)))
            return None
        self.o.counters.fenced(reply == 1)
        return reply == 1

    def unfenced(self, answer):
        if answer.token is None and answer.why is None:
            why = "another reader was filling"  # the lease: no fault of anybody
            self.o.counters.add("unfenced")
            return
        why = answer.why or ("uncache.snapshot() gives NULL: fence_ttl is 0 on the server that "
                             "is asked, or the transactions that read have written something")
        if self.o.counters.unfenced(why):
            self.o.event("unfenced", {"reason": why})

    def give_up(self, fills):
        """End the leases of fills that will not come, so that others need not wait for them: a
        token where the snapshot belongs stores nothing."""
        if not self.has_leases():
            return
        commands = [(key, "FCALL", "uncache_set", 1, key, answer.token, 1, "")
                    for key, answer in fills if answer.token is not None]
        if commands:
            yield from self.link.exchange(commands)

    # ---- one statement that reads value and snapshot

    def read_sql(self, key, sql, params, ttl_ms, one, refresh=False):
        answer = yield from self.look_up(key, refresh)
        if answer.raw is not None:
            return Outcome(self.decoded(answer.raw), answer.raw, True, True)
        try:
            value, snapshot = yield self.o.database.rows, answer.token, sql, params
        except BaseException:
            yield from self.give_up([(key, answer)])
            raise
        if one:
            value = value[0] if value else None
        return (yield from self.store(key, answer, snapshot, value, ttl_ms))

    # ---- a read-only transaction of several queries

    def read_transaction(self, key, work, ttl_ms, refresh=False):
        answer = yield from self.look_up(key, refresh)
        if answer.raw is not None:
            return Outcome(self.decoded(answer.raw), answer.raw, True, True)
        try:
            value, snapshot = yield self.o.database.transaction, answer.token, work
        except BaseException:
            yield from self.give_up([(key, answer)])
            raise
        return (yield from self.store(key, answer, snapshot, value, ttl_ms))

    # ---- many keys

    def read_many(self, keys, load_many, ttl_ms):
        """Values by key: one MGET, one pipeline, one call for all snapshots."""
        values, missing, broken = {}, [], []
        raws = yield from self.link.get_many(keys)
        if set(map(type, raws)) == {bytes}:  # all of them hits, which should cost nothing
            try:
                values = dict(zip(keys, map(self.o.decode, raws)))
                self.o.counters.add("hit", len(values))
                return values
            except Exception:  # as in decoded()
                pass  # one by one, below
        for key, raw in zip(keys, raws):
            if isinstance(raw, Exception):
                missing.append((key, Answer(None, None, _why(raw))))
            elif raw is None:
                broken.append((key, False))
            elif (value := self.decoded(raw)) is NO_VALUE:
                broken.append((key, True))
            else:
                values[key] = value
        self.o.counters.add("hit", len(values))
        self.o.counters.add("miss", len(keys) - len(values))
        asked, waits = yield from self.look_up_many(broken, values)
        missing += asked
        if missing:
            yield from self.fill_many(missing, load_many, ttl_ms, values)
        if waits:
            yield from self.wait_many(waits, load_many, ttl_ms, values)
        return {key: values[key] for key in keys}

    def look_up_many(self, wanted, values):
        """wanted: (key, refresh).  Returns [(key, Answer)], [(key, refresh, wait in ms)]."""
        answers, waits = [], []
        if not wanted:
            return answers, waits
        replies = yield from self.link.exchange([self.miss_command(*item) for item in wanted])
        if any([self.is_old_library(reply) for reply in replies]):
            replies = yield from self.link.exchange([self.miss_command(*item) for item in wanted])
        for (key, refresh), reply in zip(wanted, replies):
            answer, wait_ms = self.answer(reply, refresh)
            if answer is None:
                waits.append((key, refresh, wait_ms))
            elif answer.raw is None:
                answers.append((key, answer))
            elif (value := self.decoded(answer.raw)) is NO_VALUE:
                answers.append((key, Answer(None, None, "the value can't be decoded")))
            else:
                values[key] = value
        return answers, waits

    def snapshots(self, tokens):
        """Of a function that gives no list for a list (psycopg 3 passes one as text, where the
        statement does not say ::text[]) each is asked for by itself."""
        got = yield self.o.snapshot, tokens
        if isinstance(got, (list, tuple)) and len(got) == len(tokens):
            return got
        got = []
        for token in tokens:
            got.append((yield self.o.snapshot, token))
        return got

    def fill_many(self, missing, load_many, ttl_ms, values):
        tokens = [answer.token for _, answer in missing if answer.token is not None]
        snapshots = {}
        try:
            if tokens:
                got = yield from self.snapshots(tokens)
                snapshots = dict(zip(tokens, got))
            before = self.o.reads()
            loaded = yield load_many, [key for key, _ in missing]
            if any(snapshots.values()):
                why = yield from self.objection(before, tokens)
                if why is not None:
                    snapshots = {}
                    missing = [(key, answer._replace(why=answer.why or why))
                               for key, answer in missing]
            loaded = _by_key([key for key, _ in missing], loaded)
        except BaseException:
            yield from self.give_up(missing)
            raise
        values.update(loaded)
        fills = [(key, snapshots[answer.token]) for key, answer in missing
                 if snapshots.get(answer.token) is not None]
        given_up = [item for item in missing if snapshots.get(item[1].token) is None]
        yield from self.give_up(given_up)
        for _, answer in given_up:
            self.unfenced(answer)
        if fills:
            replies = yield from self.link.exchange([
                (key, "FCALL", "uncache_set", 1, key, snapshot, ttl_ms,
                 self.encoded(key, loaded[key])) for key, snapshot in fills])
            for reply in replies:
                self.count_fill(reply)

    def wait_many(self, waits, load_many, ttl_ms, values):
        """Keys that others are filling: read when they have come, else without storing."""
        self.o.counters.add("waited", len(waits))
        deadline = time.monotonic() + max(ms for _, _, ms in waits) / 1000
        answers = []
        while waits and time.monotonic() < deadline:
            yield self.o.sleep, random.uniform(*POLL_S)
            asked, waits = yield from self.look_up_many(
                [(key, refresh) for key, refresh, _ in waits], values)
            if asked:
                yield from self.fill_many(asked, load_many, ttl_ms, values)
        answers += [(key, Answer(None, None, None)) for key, _, _ in waits]
        if answers:
            yield from self.fill_many(answers, load_many, ttl_ms, values)

    # ---- hits that are checked

    def check_hit(self, key, raw, value, load, ttl_ms):
        """Read anew what was a hit.  Returns what to serve.

        It is stale if, after everything that is committed has been delivered, the same bytes are
        still there, and Redis accepts what was loaded as new enough: it takes their place."""
        try:
            reply = yield from self.ask("uncache_token", 1, key)
            token = reply.decode() if isinstance(reply, bytes) else None
            snapshot = (yield self.o.snapshot, token) if token else None
            if snapshot is None:
                return value
            loaded = yield (load,)
            new = self.encoded(key, loaded)
        except Exception as error:  # the hit is served all the same
            self.o.event("check failed", {"key": key, "error": error})
            return value
        if new == raw or self.decoded(new) == value:
            yield from self.report(0)
            return value
        stale = False
        if (yield (self.o.wait,)):
            now, = yield from self.link.exchange([(key, "GET", key)])
            stale = now == raw and (yield from self.ask(
                "uncache_set", 1, key, snapshot, ttl_ms, new)) == 1
        yield from self.report(1 if stale else 0)
        if stale:
            self.o.event("stale", {"key": key, "cached": value, "loaded": loaded})
        return loaded

    def report(self, stale):
        self.o.counters.add("checked")
        self.o.counters.add("stale", stale)
        yield from self.link.exchange([
            (None, "FCALL", "uncache_report", 0, "checked", 1, "stale", stale)])


def new_nonce():
    return secrets.token_hex(16)


def nonce_text(raw):
    """The part of a page's key that a nonce makes, whichever client has stored it."""
    return re.sub(rb"[^0-9A-Za-z]", b"", raw).decode()


def _why(error):
    if isinstance(error, Away):
        return "Redis does not answer"
    return f"Redis says: {error}"


def _by_key(keys, loaded):
    """What load_many() gave, as a dict; a key that is not in its mapping has no row: None."""
    if hasattr(loaded, "keys"):
        return {key: loaded[key] if key in loaded else None for key in keys}
    loaded = list(loaded)
    if len(loaded) != len(keys):
        raise ValueError(f"load_many() gave {len(loaded)} values for {len(keys)} keys; it must "
                         "give a mapping, or one value for each key, in their order")
    return dict(zip(keys, loaded))
