"""A little of what all tests here need: TAP lines, servers, waiting."""
import os
import sys
import time
import traceback

import psycopg
import redis

import pg_uncache

REDIS_URL = os.environ["REDIS_URL"]
HOST, PORT = os.environ["REDIS_HOST"], int(os.environ["REDIS_PORT"])
CLUSTER_PORT = int(os.environ["REDIS_CLUSTER_PORT"])
STANDBY_PORT, PGBOUNCER_PORT = os.environ["STANDBY_PORT"], os.environ["PGBOUNCER_PORT"]
REDIS_PID = int(os.environ["REDIS_PID"])
RACE_SECONDS = float(os.environ.get("RACE_SECONDS", 10))
PATIENCE_S = 30


def ok(it, what, *seen):
    print(f"{'ok' if it else 'not ok'} - {what}", flush=True)
    if not it:
        for thing in seen:
            print(f"#   {thing!r}", flush=True)
    return bool(it)


def same(got, wanted, what):
    return ok(got == wanted and type(got) is type(wanted), what, f"got {got!r}",
              f"wanted {wanted!r}")


def fails(kind, call, words, what):
    try:
        got = call()
    except kind as error:
        return ok(words in str(error), what, str(error))
    return ok(False, what, "no error", got)


def skip(what, why):
    print(f"ok - {what} # SKIP {why}", flush=True)


def connect(**options):
    return psycopg.connect(autocommit=True, **options)


def client(**options):
    return redis.Redis.from_url(REDIS_URL, **options)


def until(condition, seconds=PATIENCE_S):
    """Whether it has come true; a lost race costs a test its patience, never its right."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def run(*tests):
    """Each test is a function; one that raises is a failure, and the others go on."""
    for test in tests:
        try:
            test()
        except Exception:
            print("# " + traceback.format_exc().replace("\n", "\n# "), flush=True)
            ok(False, f"{test.__name__} ended with an error")
    sys.stdout.flush()


# A busy machine must not make a test believe that Redis is away.
SLOW = {"redis_timeout_ms": 5000}


def Fence(*args, **options):
    return pg_uncache.Fence(*args, **{**SLOW, **options})


def AsyncFence(*args, **options):
    return pg_uncache.AsyncFence(*args, **{**SLOW, **options})
