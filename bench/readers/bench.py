"""bench.py ROUNDS: lanes of plain and fenced readers, in pairs.

A round runs each lane of a pair for some operations, now the one first and now the other, and
makes one ratio: what is left of the plain lane's throughput.  The lower quartile of all rounds is
compared with the aim, so that neither a lucky round nor one that another program has hit decides.
Keys are new for each miss, so that nothing need be deleted in between.
"""
import itertools
import json
import os
import statistics
import sys
import time

import psycopg
import redis
from pg_uncache import Fence

ROUNDS = int(sys.argv[1])
TTL_MS = 3_600_000
ROW = "SELECT id, name, email, about FROM users WHERE id = %s"
ROWS = "SELECT id, name, email, about FROM users WHERE id = ANY (%s)"
# The plain lane's timeout is what docs/readers.md asks of any reader.
r = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=5)
db = psycopg.connect(autocommit=True)
fence = Fence(r, snapshot=db, ttl_ms=TTL_MS, redis_timeout_ms=5000)
leaseless = Fence(r, snapshot=db, ttl_ms=TTL_MS, redis_timeout_ms=5000, lease_ms=None)
number = itertools.count()


def encode(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def row(id_):
    return db.execute(ROW, [id_ % 10000]).fetchone()


def rows(ids):
    """By the place in ids."""
    found = {one[0]: one for one in db.execute(ROWS, [[id_ % 10000 for id_ in ids]])}
    return [found[id_ % 10000] for id_ in ids]


def plain_hit():
    return json.loads(r.get("user:1"))


def fenced_hit():
    return fence.fetch("user:1", None)


HUNDRED = [f"user:{i}" for i in range(100)]


def plain_hits():
    return [json.loads(value) for value in r.mget(HUNDRED)]


def fenced_hits():
    return fence.fetch_many(HUNDRED, None)


def plain_miss():
    i = next(number)
    key = f"plain:{i}"
    if r.get(key) is None:
        r.set(key, encode(row(i)), px=TTL_MS)


def fenced_miss():
    i = next(number)
    fence.fetch(f"fenced:{i}", lambda: row(i))


def fenced_miss_without_lease():
    i = next(number)
    leaseless.fetch(f"fenced:{i}", lambda: row(i))


def fenced_miss_sql():
    i = next(number)
    fence.fetch_sql(f"fenced:{i}", ROW, [i % 10000], one=True)


SLOW = """SELECT u.id, name, email, about FROM users u,
(SELECT sum(i) FROM generate_series(1, 10000) i) work WHERE u.id = %s"""


def plain_slow_miss():
    i = next(number)
    key = f"plain:{i}"
    if r.get(key) is None:
        r.set(key, encode(db.execute(SLOW, [i % 10000]).fetchone()), px=TTL_MS)


def fenced_slow_miss():
    i = next(number)
    fence.fetch_sql(f"fenced:{i}", SLOW, [i % 10000], one=True)


def some(prefix):
    ids = [next(number) for _ in range(100)]
    return ids, [f"{prefix}:{i}" for i in ids]


def plain_misses():
    ids, keys = some("plain")
    missing = [i for i, value in zip(ids, r.mget(keys)) if value is None]
    with r.pipeline(transaction=False) as pipe:
        for i, value in zip(missing, rows(missing)):
            pipe.set(f"plain:{i}", encode(value), px=TTL_MS)
        pipe.execute()


def fenced_misses():
    keys = some("fenced")[1]
    fence.fetch_many(keys, lambda missing: rows([int(key[7:]) for key in missing]))


def timed(lane, times):
    began = time.perf_counter()
    for _ in range(times):
        lane()
    return time.perf_counter() - began


def pair(title, plain, fenced, times, aim):
    """aim: the least that must be left of the throughput."""
    timed(plain, times), timed(fenced, times)  # warm
    ratios, spent = [], {plain: [], fenced: []}
    for round_ in range(ROUNDS):
        for lane in (plain, fenced) if round_ % 2 else (fenced, plain):
            spent[lane].append(timed(lane, times) / times)
        ratios.append(spent[plain][-1] / spent[fenced][-1])
    quartile = statistics.quantiles(ratios, n=4)[0]
    us = [statistics.median(spent[lane]) * 1e6 for lane in (plain, fenced)]
    met = "" if aim is None else f"{aim:.2f} {'met' if quartile >= aim else 'MISSED'}"
    print(f"| {title} | {us[0]:.0f} us | {us[1]:.0f} us | {statistics.median(ratios):.2f} | "
          f"{quartile:.2f} | {met} |", flush=True)


def memory(fill, keys):
    """Bytes a key, with its value, its expiry and what the fence remembers."""
    r.flushdb()
    before = r.info("memory")["used_memory"]
    for _ in range(keys):
        fill()
    return (r.info("memory")["used_memory"] - before) / keys


def main():
    r.flushdb()
    for key in HUNDRED:
        fence.fetch(key, lambda: row(int(key[5:])))
    assert fence.stats["stored"] == 100, fence.stats
    print(f"redis-py {redis.__version__}, Redis {r.info()['redis_version']}, {ROUNDS} rounds\n")
    print("| | plain | fenced | ratio | lower quartile | aim |\n|---|---|---|---|---|---|")
    pair("hit, one key", plain_hit, fenced_hit, 1000, 0.95)
    pair("hits, 100 keys", plain_hits, fenced_hits, 50, 0.95)
    pair("miss with fill, a row by its key, `fetch_sql`", plain_miss, fenced_miss_sql, 200, 0.85)
    pair("the same, a query of about a millisecond", plain_slow_miss, fenced_slow_miss, 100, 0.85)
    pair("miss with fill, a row by its key, `fetch`", plain_miss, fenced_miss, 200, None)
    pair("the same without a lease", plain_miss, fenced_miss_without_lease, 200, None)
    pair("100 misses", plain_misses, fenced_misses, 10, 1 / 1.5)
    wrong = {name: n for name, n in fence.stats.items() if name in ("refused", "unfenced") and n}
    print(f"\nfills that were not stored: {wrong or 'none'}")
    plain, fenced = memory(plain_miss, 5000), memory(fenced_miss, 5000)
    print(f"memory: {plain:.0f} bytes a key plain, {fenced:.0f} fenced, of which the record, which "
          f"goes after fence_ttl, {fenced - plain:.0f}")


main()
