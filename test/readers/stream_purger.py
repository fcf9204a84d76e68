"""stream_purger.py: the CDN purger of docs/examples against a server of purges that fails,
consumers that die, a Redis that is cut off, and a stream that was trimmed or is gone."""
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import psycopg
import redis

STREAM = "uncache:deleted"
here = os.path.dirname(os.path.abspath(__file__))
cache = redis.Redis.from_url(os.environ["DIRECT_URL"], decode_responses=True)
writer = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
purged = []  # surrogate keys, in order; "*" for everything
failures = 0  # requests that are still to fail


class Cdn(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global failures
        if failures > 0:
            failures -= 1
            if failures % 2:
                self.connection.close()  # no answer at all
                return
            self.send_error(503)
            return
        if self.path.endswith("/all"):
            purged.append("*")
        purged.extend(self.headers.get("Surrogate-Key", "").split())
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cdn)
threading.Thread(target=server.serve_forever, daemon=True).start()
number = 0


def start(consumer):
    return subprocess.Popen(
        ["/usr/bin/python3", os.path.join(here, "../../docs/examples/purger.py")],
        env=dict(os.environ, CONSUMER=consumer, STREAM=STREAM,
                 PURGE_URL=f"http://127.0.0.1:{server.server_port}"))


def ok(it, what):
    print(f"{'ok' if it else 'not ok'} - purger: {what}", flush=True)


def comes_true(is_true, what, seconds=20):
    until = time.monotonic() + seconds
    while not is_true() and time.monotonic() < until:
        time.sleep(0.01)
    ok(is_true(), what)


def commit(count=1):
    """Commit new keys, one in each transaction; their names."""
    global number
    keys = []
    for _ in range(count):
        number += 1
        keys.append(f"page:{number}")
        writer.execute("SELECT uncache.invalidate_keys(%s)", [keys[-1]])
    writer.execute("SELECT uncache.wait()")
    return keys


def pending():
    return cache.xpending(STREAM, "cdn")["pending"]


def signal_proxy(which):
    os.kill(int(os.environ["PROXY_PID"]), which)


first = start("one")
comes_true(lambda: "*" in purged, "it makes its group, and purges everything once")
keys = commit(20)
comes_true(lambda: set(keys) <= set(purged), "what is deleted is purged")
writer.execute("SELECT uncache.invalidate_keys('with a blank')")
writer.execute("SELECT uncache.invalidate_pattern('shop:*')")
comes_true(lambda: "with%20a%20blank" in purged and "shop:" in purged,
           "also a key with blanks, and a pattern by its beginning")

# The CDN fails for a while.
failures = 7
keys = commit(5)
comes_true(lambda: set(keys) <= set(purged), "a purge that fails is tried again")
comes_true(lambda: pending() == 0, "and acknowledged then")

# The consumer dies with entries that it has taken and not purged.
failures = 1_000_000
keys = commit(30)
comes_true(lambda: pending() > 0, "entries are taken while the CDN is away")
first.send_signal(signal.SIGKILL)
first.wait()
keys += commit(30)
failures = 0
ok(not set(keys) & set(purged), "none of them is purged")
first = start("one")
comes_true(lambda: set(keys) <= set(purged), "when it is back all of them are")
comes_true(lambda: pending() == 0, "and acknowledged")

# Redis is cut off, and its connections break.
signal_proxy(signal.SIGSTOP)
keys = commit(10)
cache.client_kill_filter(_type="normal", skipme=True)
signal_proxy(signal.SIGCONT)
comes_true(lambda: set(keys) <= set(purged), "after a lost connection it goes on where it was")

# Two consumers share the work.
second = start("two")
keys = commit(200)
comes_true(lambda: set(keys) <= set(purged), "with a second consumer nothing is lost")
second.kill()
second.wait()

# Trimmed past the group, or gone.
first.kill()
first.wait()
commit(10)
cache.xtrim(STREAM, maxlen=0)
keys = commit(5)
purged.clear()
first = start("one")
comes_true(lambda: "*" in purged and set(keys) <= set(purged),
           "a stream that was trimmed past it makes it purge everything")
purged.clear()
cache.delete(STREAM)
comes_true(lambda: "*" in purged, "so does one that is gone")
keys = commit(5)
comes_true(lambda: set(keys) <= set(purged), "and it goes on")

first.kill()
first.wait()
server.shutdown()
sys.exit(0)
