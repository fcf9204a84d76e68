"""drive.py: put the plain example through its paces. clients/python tests the fenced way."""
import importlib
import json
import os
import signal
import sys
import time

import psycopg
import redis

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/examples"))
example = importlib.import_module("plain")
writer = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
cache = redis.Redis.from_url(os.environ["DIRECT_URL"])


class Database:
    """Counts the example's queries, and lets something happen behind one of them,
    before the example goes on to store."""

    def __init__(self, db):
        self.db, self.queries, self.behind = db, 0, None

    def execute(self, *args):
        self.queries += 1
        result = self.db.execute(*args)
        behind, self.behind = self.behind, None
        if behind:
            behind()
        return result


db = example.db = Database(example.db)
user = example.user


def ok(it, what):
    print(f"{'ok' if it else 'not ok'} - python, plain: {what}", flush=True)


def cached(user_id):
    return json.loads(cache.get(f"user:{user_id}") or '"nothing"')


def rename(name):
    writer.execute("UPDATE users SET name = %s WHERE id = 1", [name])


writer.execute("TRUNCATE users")
writer.execute("INSERT INTO users VALUES (1, 'first')")
writer.execute("SELECT uncache.wait()")

ok(user(1)["name"] == "first", "a miss reads the database")
ok(cached(1)["name"] == "first" and cache.pttl("user:1") > 0, "and fills, with a TTL")
db.queries = 0
ok(user(1)["name"] == "first" and db.queries == 0, "a hit does not read it")

cache.set("user:1", b'{"name": "\xff')
ok(user(1)["name"] == "first", "a value that can't be decoded is a miss")
ok(cached(1)["name"] == "first", "and is replaced")


def requests(n):
    """How long requests take, in ms: of so many the fastest, since the machine may be busy."""
    right, times = True, []
    for _ in range(n):
        began = time.monotonic()
        right = user(1)["name"] == "first" and right
        times.append((time.monotonic() - began) * 1000)
    times.sort()
    return right, times[0], f"{times[0]:.1f} ms, {times[n // 2]:.1f} ms, {times[-1]:.1f} ms"


proxy = int(os.environ["PROXY_PID"])
os.kill(proxy, signal.SIGSTOP)
right, fastest, text = requests(20)
os.kill(proxy, signal.SIGCONT)
ok(right and fastest < 250, f"while Redis hangs a request takes (fastest, median, slowest) {text}")
os.kill(proxy, signal.SIGUSR1)
right, fastest, text = requests(20)
ok(right and fastest < 50, f"while it is away {text}")
os.kill(proxy, signal.SIGUSR2)
cache.delete("user:1")
deadline = time.monotonic() + 20
while not cache.exists("user:1") and time.monotonic() < deadline:
    user(1)
ok(cached(1)["name"] == "first", "when it is back it is used again")

rename("second")
ok(cached(1) == "nothing", "a write deletes the key")
ok(user(1)["name"] == "second", "the next reader has the new value")

rename("third")
db.behind = lambda: rename("fourth")
ok(user(1)["name"] == "third", "a reader that is slower than a writer serves what it read")
ok(cached(1)["name"] == "third", "and stores it: the plain guarantee")
cache.delete("user:1")
ok(user(1)["name"] == "fourth" and cached(1)["name"] == "fourth", "the next fill is the latest")

ok(user(99) is None and cached(99) is None, "that there is no row is cached, too")
writer.execute("INSERT INTO users VALUES (99, 'new')")
ok(user(99)["name"] == "new", "until there is one")
