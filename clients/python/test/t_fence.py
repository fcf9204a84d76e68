"""Fence: what the cases of clients/conformance can't say."""
import json
import logging
import os
import signal
import threading
import time

import redis

import tap
from pg_uncache import Database
from pg_uncache._counters import WARN_AFTER_S, Counters
from tap import Fence, client, connect, fails, ok, same, until

db = connect()
r = client()
db.execute("DROP TABLE IF EXISTS fence_users")
db.execute("CREATE TABLE fence_users (id int PRIMARY KEY, name text)")
db.execute("SELECT uncache.attach('fence_users', 'fence:{id}', 'fence:gen')")
logging.getLogger("pg_uncache").setLevel(logging.CRITICAL)


def reset(*keys):
    db.execute("DELETE FROM fence_users")
    db.execute("INSERT INTO fence_users SELECT i, 'first' FROM generate_series(1, 100) i")
    db.execute("SELECT uncache.wait()")
    if keys:
        r.delete(*keys)


def rename(name, id_=1):
    db.execute("UPDATE fence_users SET name = %s WHERE id = %s", [name, id_])


def name_of(connection, id_=1):
    return connection.execute("SELECT name FROM fence_users WHERE id = %s", [id_]).fetchone()[0]


class Commands:
    """Counts what a fence sends to Redis."""

    def __init__(self, fence):
        self.trips, self.sent, node = 0, [], fence.link.node
        get, send = node.get, node.send

        def counted_get(key):
            self.trips += 1
            self.sent.append(("GET", key))
            return get(key)

        def counted_send(commands):
            self.trips += 1
            self.sent += commands
            return send(commands)
        fence._get = node.get = counted_get
        node.send = counted_send


def wrong_uses():
    snapshot = connect()
    make = Fence
    r.delete("fence:no", "fence:a", "fence:b")
    for value in ("60s", 0, -1, 1.5, None, True, 10**15):
        fails(ValueError, lambda: make(r, snapshot=snapshot, ttl_ms=value),
              "ttl_ms must be a positive whole number of milliseconds",
              f"ttl_ms {value!r} is refused")
    fails(ValueError, lambda: make(r, snapshot=snapshot).fetch("fence:no", lambda: 1, ttl_ms="1d"),
          "ttl_ms must be", "in a call, too")
    fails(ValueError, lambda: make(r, snapshot=snapshot, lease_ms=60001), "at most 60000",
          "a lease over a minute is refused")
    fails(ValueError, lambda: make(r, snapshot=snapshot, shadow=2), "share from 0 to 1",
          "a shadow of 2 is refused")
    fails(ValueError, lambda: make(r, snapshot=lambda token: None, shadow=0.1), "wait",
          "a shadow without a way to wait is refused")
    fails(TypeError, lambda: make(r, snapshot=None), "snapshot must be a function",
          "no snapshot is refused")
    fails(TypeError, lambda: make(object(), snapshot=snapshot), "client of redis-py",
          "a thing that is no client is refused")
    fails(TypeError, lambda: make(redis.asyncio.Redis(), snapshot=snapshot), "AsyncFence",
          "a client of asyncio is refused")
    fence = make(r, snapshot=snapshot)
    for key in ("", None, 7):
        fails(TypeError, lambda: fence.fetch(key, lambda: 1), "key", f"the key {key!r} is refused")
    r.delete("fence:no")
    fails(TypeError, lambda: fence.fetch("fence:no", object), "JSON",
          "a value that can't be encoded is an error that says so")
    fails(TypeError, lambda: make(r, snapshot=snapshot, encode=lambda v: None).fetch(
        "fence:no", lambda: 1), "must give bytes", "an encode() that gives None, too")
    same(r.exists("fence:no"), 0, "and nothing is stored")
    fails(TypeError, lambda: make(r, snapshot=lambda token: None).fetch_sql("fence:no", "SELECT 1"),
          "a function alone", "fetch_sql without a connection says what it needs")
    fails(ValueError, lambda: fence.fetch_many(["fence:a", "fence:b"], lambda keys: [1]),
          "1 values for 2 keys", "load_many with too few values is an error")
    same(fence.fetch("fence:no", lambda: None), None, "None is a value")
    same(r.get("fence:no"), b"null", "which is stored as null, not as empty text")


def round_trips():
    reset()
    calls = []
    session = connect()

    def snapshot(tokens):
        calls.append(tokens)
        return session.execute("SELECT uncache.snapshot(%s::text[])", [tokens]).fetchone()[0]
    fence = Fence(r, snapshot=snapshot, lease_ms=None)
    sent = Commands(fence)
    keys = [f"fence:{i}" for i in range(1, 101)]
    r.delete(*keys)
    names = fence.fetch_many(keys, lambda missing: {
        f"fence:{i}": name for i, name in session.execute(
            "SELECT id, name FROM fence_users WHERE 'fence:' || id = ANY (%s)", [missing])})
    same(names, dict.fromkeys(keys, "first"), "fetch_many: a hundred misses")
    same((sent.trips, len(calls)), (3, 1), "take one MGET, two pipelines and one snapshot")
    same(fence.stats["stored"], 100, "and are stored")
    fence.fetch_many(keys, None)
    same((sent.trips, len(calls)), (4, 1), "a hundred hits take one MGET")
    same(fence.fetch_many(keys[:2] * 2, None), dict.fromkeys(keys[:2], "first"),
         "a key that is named twice is read once")
    sent.trips = 0
    fence.fetch("fence:1", None)
    same(sent.trips, 1, "a hit takes a GET")
    naive = Fence(r, snapshot=lambda token: session.execute(
        "SELECT uncache.snapshot(%s)", [token]).fetchone()[0])
    r.delete("fence:1", "fence:2")
    naive.fetch_many(["fence:1", "fence:2"], lambda keys: ["first", "first"])
    same(naive.stats["stored"], 2, "a function that takes no lists is asked for each token")
    r.delete("fence:1")
    fence = Fence(r, snapshot=session, lease_ms=None)
    sent = Commands(fence)
    fence.fetch("fence:1", lambda: name_of(session))
    same([command[:2] for command in sent.sent],
         [("GET", "fence:1"), ("FCALL", "uncache_get"), ("FCALL", "uncache_set")],
         "a miss takes a GET and two calls")


def flights():
    """One flies, one waits."""
    reset("fence:1")
    began, go_on, loads = threading.Event(), threading.Event(), []
    fence = Fence(r, snapshot=lambda token: _snapshot(token), ttl_ms=60_000, lease_ms=None)
    got = {}

    def _snapshot(token):
        with connect() as session:
            return session.execute("SELECT uncache.snapshot(%s)", [token]).fetchone()[0]

    def load():
        loads.append(1)
        with connect() as session:
            name = name_of(session)
        if len(loads) == 1:
            began.set()
            go_on.wait(tap.PATIENCE_S)
        return name

    def reader(who):
        got[who] = fence.fetch("fence:1", load)
    threads = [threading.Thread(target=reader, args=["running"])]
    threads[0].start()
    began.wait(tap.PATIENCE_S)
    rename("second")
    for who in ("late 1", "late 2", "late 3"):
        threads.append(threading.Thread(target=reader, args=[who]))
        threads[-1].start()
    until(lambda: fence.stats["miss"] == 4)
    go_on.set()
    for thread in threads:
        thread.join()
    same(got, {"running": "first", "late 1": "second", "late 2": "second", "late 3": "second"},
         "readers that came after a commit are not served what a running flight has read")
    same(len(loads), 2, "and read the database once, together")
    same(fence.flights.board.lines, {}, "nothing is left of the flights")

    loads.clear()
    go_on.clear()
    began.clear()
    r.delete("fence:1")
    fence.flights.patience = 0.1
    threads = [threading.Thread(target=reader, args=[who]) for who in ("stuck",)]
    threads[0].start()
    began.wait(tap.PATIENCE_S)
    same(fence.fetch("fence:1", load), "second", "a flight that is stuck is not waited for long")
    go_on.set()
    threads[0].join()

    def inner():
        return fence.fetch("fence:1", load)
    r.delete("fence:1")
    same(fence.fetch("fence:2", inner), "second", "a load may fetch another key")
    same(fence.fetch("fence:3", lambda: fence.fetch("fence:3", load)), "second", "or its own")


def not_shared():
    """What an open transaction has read is nobody else's."""
    reset("fence:1")
    writer = connect()
    own = threading.local()

    def connection():
        if not hasattr(own, "connection"):
            own.connection = writer if threading.current_thread().name == "writer" else connect()
        return own.connection
    fence = Fence(r, snapshot=Database(connection), lease_ms=None)
    fence.flights.patience = tap.PATIENCE_S
    got, begun, go_on = {}, threading.Event(), threading.Event()

    def load():
        name = name_of(connection())
        if threading.current_thread().name == "first":
            begun.set()
            go_on.wait(tap.PATIENCE_S)
        return name

    def reader():
        got[threading.current_thread().name] = fence.fetch("fence:1", load)

    def start(name):
        thread = threading.Thread(target=reader, name=name)
        thread.start()
        return thread
    threads = [start("first")]
    begun.wait(tap.PATIENCE_S)
    writer.execute("BEGIN")
    writer.execute("UPDATE fence_users SET name = 'mine' WHERE id = 1")
    # The writer leads the flight that waits, and another joins it.
    threads.append(start("writer"))
    until(lambda: fence.stats["miss"] == 2)
    threads.append(start("joins"))
    until(lambda: fence.stats["miss"] == 3)
    # The first one's fill would be a hit for both: it is refused.
    db.execute("SELECT uncache.invalidate_keys('fence:1')")
    go_on.set()
    for thread in threads:
        thread.join()
    writer.execute("ROLLBACK")
    same(got, {"first": "first", "writer": "mine", "joins": "first"},
         "a reader that joins a transaction that has written reads for itself")


def loads_that_fail():
    reset("fence:1")
    session = connect()
    fence = Fence(r, snapshot=session)
    fails(ZeroDivisionError, lambda: fence.fetch("fence:1", lambda: 1 // 0), "zero",
          "an error of load() is the caller's")
    began = time.monotonic()
    same(fence.fetch("fence:1", lambda: name_of(session)), "first", "the next caller reads")
    ok(fence.stats["waited"] == 0, "and does not wait for the lease of the one that failed",
       time.monotonic() - began)


def open_transactions():
    reset("fence:1")
    session = connect()
    fence = Fence(r, snapshot=session)
    session.execute("BEGIN")

    def writes():
        session.execute("UPDATE fence_users SET name = 'mine' WHERE id = 1")
        return name_of(session)
    same(fence.fetch("fence:1", writes), "mine", "a load that writes in an open transaction")
    session.execute("ROLLBACK")
    same((r.exists("fence:1"), fence.stats["unfenced"]), (0, 1), "stores nothing")
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    same(name_of(session), "first", "a REPEATABLE READ transaction has a snapshot")
    rename("second")
    same(fence.fetch("fence:1", lambda: name_of(session)), "first", "serves what it sees")
    session.execute("COMMIT")
    same(r.exists("fence:1"), 0, "and does not store what is older than a commit")

    def many(keys):
        session.execute("UPDATE fence_users SET name = 'mine' WHERE id < 3")
        return {key: "mine" for key in keys}
    session.execute("BEGIN")
    fence.fetch_many(["fence:1", "fence:2"], many)
    session.execute("ROLLBACK")
    same(r.exists("fence:1", "fence:2"), 0, "a load_many that writes stores nothing, either")


def outages():
    reset("fence:1")
    session = connect()
    events = []
    fence = Fence(redis.Redis(host="127.0.0.1", port=1), snapshot=session, redis_timeout_ms=50,
                  on_event=lambda name, details: events.append(name))
    count = [0]
    execute = fence.link.node.client.execute_command

    def counted(*words):
        count[0] += words[0] != "PING"
        return execute(*words)
    fence.link.node.client.execute_command = counted
    same([fence.fetch("fence:1", lambda: name_of(session)) for _ in range(100)], ["first"] * 100,
         "with a Redis that refuses connections a hundred requests are served")
    same(count[0], 1, "and one of them has asked it")
    same(events, ["away"], "which is told once")
    same(fence.fetch_many(["fence:1", "fence:2"], lambda keys: ["a", "b"]),
         {"fence:1": "a", "fence:2": "b"}, "many keys are served, too")
    same(fence.fetch_sql("fence:1", "SELECT name FROM fence_users WHERE id = 1"),
         [{"name": "first"}], "and one statement")
    same(fence.transaction("fence:1", name_of), "first", "and a transaction")
    same(fence.tags(["fence:gen"], lambda n: fence.fetch(f"fence:p:{n}", lambda: 7)), 7,
         "and a tag")
    same((count[0], fence.stats["unfenced"]), (1, 105), "all without asking")

    fence = Fence(r, snapshot=session, redis_timeout_ms=50)
    fence.fetch("fence:1", lambda: name_of(session))
    os.kill(tap.REDIS_PID, signal.SIGSTOP)
    try:
        count[0] = 0
        execute = fence.link.node.client.execute_command
        fence.link.node.client.execute_command = counted
        took = []
        for _ in range(50):
            began = time.monotonic()
            fence.fetch("fence:1", lambda: name_of(session))
            took.append(time.monotonic() - began)
    finally:
        os.kill(tap.REDIS_PID, signal.SIGCONT)
    same(count[0], 1, "with a Redis that hangs one of fifty requests has asked it")
    ok(took[0] >= 0.05, "and waited for the timeout", took[0])
    ok(sorted(took)[25] < 0.05, "the others did not", took)
    ok(until(lambda: fence.fetch("fence:1", lambda: "loaded") != "loaded"),
       "when it is back it is used again")

    # A child of a fork has no thread that looks whether Redis is back.
    fence.link.node.away = True
    child = os.fork()
    if child == 0:
        os._exit(fence.link.node.away)
    same(os.waitpid(child, 0)[1], 0, "a forked child does not believe that Redis is away")
    fence.link.node.away = False


def without_functions():
    reset("fence:1")
    session = connect()
    r.execute_command("FUNCTION", "FLUSH")
    fence = Fence(r, snapshot=session)
    same(fence.fetch("fence:1", lambda: name_of(session)), "first",
         "a Redis without the functions: the value is served")
    ok(until(lambda: fence.fetch("fence:1", lambda: name_of(session)) and fence.stats["hit"]),
       "and stored once the worker has loaded them")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def warnings():
    clock, records = Clock(), []
    log, handler = logging.getLogger("pg_uncache"), logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    counters = Counters(clock)
    counters.unfenced("why")
    clock.now += WARN_AFTER_S - 1
    same((counters.unfenced("why"), records), (False, []), "unfenced for 59 seconds: no warning")
    clock.now += 1
    same(counters.unfenced("the reason"), True, "for a minute: one")
    ok("the reason" in records[0] and len(records) == 1, "with its reason", records)
    clock.now += 600
    same((counters.unfenced("why"), len(records)), (False, 1), "and no second one")
    counters.fenced(False)
    counters.unfenced("why")
    clock.now += WARN_AFTER_S + 1
    same(counters.unfenced("again"), True, "after a fill that was fenced there is one again")
    log.setLevel(logging.CRITICAL)
    log.removeHandler(handler)

    said = []
    fence = Fence(r, snapshot=lambda token: None, on_event=lambda name, of: said.append((name, of)))
    fence.counters.clock = clock
    r.delete("fence:1")
    for _ in range(3):
        fence.fetch("fence:1", lambda: 1)
        clock.now += WARN_AFTER_S
    same([name for name, _ in said], ["unfenced"], "on_event hears of it")
    ok("fence_ttl" in said[0][1]["reason"], "and what to look for", said)


def tags():
    reset("fence:gen")
    session = connect()
    fence = Fence(r, snapshot=session)

    def page():
        return fence.tags(["fence:gen"], lambda nonce: (nonce, fence.fetch(
            f"fence:list:{nonce}", lambda: name_of(session))))
    nonce, value = page()
    same((value, page()), ("first", (nonce, "first")), "a page is cached below its nonce")
    rename("second")
    new, value = page()
    ok(value == "second" and new != nonce, "a write orphans it", new, nonce)

    # The nonce of a reader whose snapshot is too old is nobody's.
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    name_of(session)
    rename("third")
    first, value = page()
    same((value, r.exists("fence:gen")), ("second", 0), "an old snapshot makes no nonce")
    session.execute("COMMIT")
    second, value = page()
    ok(value == "third" and second != first, "and its page is not found by others", value)


def shadow():
    """One stale value in 10,000."""
    reset()
    db.execute("INSERT INTO fence_users SELECT i, 'first' FROM generate_series(101, 10000) i")
    db.execute("SELECT uncache.wait()")
    before = db.execute("SELECT to_jsonb(s) FROM uncache.stat s").fetchone()[0]
    keys = [f"fence:{i}" for i in range(1, 10001)]
    for at in range(0, 10000, 1000):
        r.mset({key: json.dumps("first") for key in keys[at:at + 1000]})
    r.set("fence:7777", json.dumps("stale"), px=60_000)
    found = []
    session = connect()
    fence = Fence(r, snapshot=session, shadow=1.0, on_event=lambda *event: found.append(event))
    values = {key: fence.fetch(key, lambda: name_of(session,
                                                    int(key[6:]))) for key in keys[7700:7800]}
    same(set(values.values()), {"first"},
         "shadow: the reader of a stale value is served the new one")
    same(found, [("stale", {"key": "fence:7777", "cached": "stale", "loaded": "first"})],
         "shadow: one stale value is found, and told")
    same((fence.stats["checked"], fence.stats["stale"]), (100, 1), "and counted")
    same(r.get("fence:7777"), b'"first"', "and replaced")

    # A share of hits finds it, too: how many that takes varies.
    fence = Fence(r, snapshot=session, shadow=0.05)
    r.set("fence:7777", json.dumps("stale"), px=60_000)

    def found_one():
        fence.fetch("fence:7777", lambda: name_of(session, 7777))
        return fence.stats["stale"] == 1
    ok(until(found_one), "a shadow of 0.05 finds it among hits", fence.stats)
    for _ in range(300):
        fence.fetch("fence:7778", lambda: name_of(session, 7778))
    ok(fence.stats["checked"] < 150, "and checks a share of them", fence.stats)

    # A value that changes meanwhile is not stale.
    fence = Fence(r, snapshot=session, shadow=1.0)
    fence.fetch("fence:1", lambda: name_of(session))

    def changes():
        rename("second")
        return name_of(session)
    fence.fetch("fence:1", changes)
    same(fence.stats["stale"], 0, "a value that is changed during the check is not stale")
    if "checked" not in before:
        return tap.skip("shadow: uncache.stat", "it has no column checked")
    stat = "SELECT checked - %s, found_stale - %s FROM uncache.stat"
    ok(until(lambda: db.execute(stat, [before["checked"], before["found_stale"]]).fetchone() >=
             (100, 2)), "uncache.stat counts it")


def leases():
    try:
        r.fcall("uncache_get", 1, "fence:lease", 1000)
    except redis.ResponseError:
        return tap.skip("leases", "the functions of this Redis know none")
    reset("fence:1")
    loads = []

    def load():
        loads.append(1)
        time.sleep(0.02)
        with connect() as session:
            return name_of(session)

    def snapshot(token):
        with connect() as session:
            return session.execute("SELECT uncache.snapshot(%s)", [token]).fetchone()[0]
    # Of other processes: each reader has a fence of its own.
    fences = [Fence(r, snapshot=snapshot, lease_ms=10_000) for _ in range(200)]
    got = []
    threads = [threading.Thread(target=lambda f=f: got.append(f.fetch("fence:1", load)))
               for f in fences]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(got, ["first"] * 200, "lease: 200 readers of 200 processes are served")
    ok(len(loads) <= 2, "by at most two queries", len(loads))

    rename("second")
    r.fcall("uncache_get", 1, "fence:1", 2000)  # a filler that dies
    began = time.monotonic()
    fence = Fence(r, snapshot=connect(), lease_ms=500)
    same(fence.fetch("fence:1", load), "second", "the readers of a filler that has died go on")
    same((fence.stats["waited"], r.get("fence:1") is not None), (1, True), "and store")
    ok(time.monotonic() - began > 0.1, "after its lease", time.monotonic() - began)
    rename("third")
    r.fcall("uncache_get", 1, "fence:2", 300)
    r.delete("fence:2")
    same(fence.fetch_many(["fence:1", "fence:2"], lambda keys: dict.fromkeys(keys, "x")),
         {"fence:1": "x", "fence:2": "x"}, "many keys, of which another fills one")


tap.run(wrong_uses, round_trips, flights, not_shared, loads_that_fail, open_transactions, outages,
        without_functions, warnings, tags, shadow, leases)
