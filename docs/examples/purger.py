"""Purges a CDN by surrogate key as uncache.stream says: Python and redis-py.

A page is sent with the cache keys that it was made of, and with the beginning of each up to the
first column, since a TRUNCATE purges by that:    Surrogate-Key: user:42 user:

  REDIS_URL   STREAM (uncache:deleted)   GROUP (cdn)   CONSUMER (this host's name)
  PURGE_URL   takes POST with the header Surrogate-Key; /all in its end purges everything
"""
import json
import os
import re
import socket
import time
import urllib.parse
import urllib.request

import redis

STREAM = os.environ.get("STREAM", "uncache:deleted")
GROUP = os.environ.get("GROUP", "cdn")
CONSUMER = os.environ.get("CONSUMER", socket.gethostname())
PURGE_URL = os.environ["PURGE_URL"]
BATCH = 100  # entries of one XREADGROUP
LEFT_BEHIND_MS = 60_000  # a consumer that has not acknowledged for so long is dead


def post(url, **headers):
    """Until it is answered, however often: what is not purged is not acknowledged."""
    pause = 0.05
    while True:
        try:
            request = urllib.request.Request(url, data=b"", headers=headers)
            with urllib.request.urlopen(request, timeout=10):
                return
        except OSError:  # an HTTP error, too
            time.sleep(pause)
            pause = min(pause * 2, 30)


def purge_all():
    post(PURGE_URL.rstrip("/") + "/all")


def surrogate_keys(fields):
    """Of an entry.  A blank separates them, so one within a key is escaped, here and in pages."""
    keys = json.loads(fields.get("keys", "[]"))
    heads = [re.match(r"[^*?[\\]*", glob)[0] for glob in json.loads(fields.get("patterns", "[]"))]
    return [urllib.parse.quote(key, safe=":/{}") for key in keys + heads]


def position(entry_id):
    return tuple(int(part) for part in entry_id.split("-"))


class Purger:
    def __init__(self, url):
        self.redis = redis.Redis.from_url(url, decode_responses=True, socket_timeout=10)
        self.claimed_at = 0.0

    def create_group(self):
        """Where it is missing it is not known what was missed; from here on nothing is."""
        self.redis.xgroup_create(STREAM, GROUP, id="$", mkstream=True)
        purge_all()

    def handle(self, entries):
        keys = []
        for _, fields in entries:
            found = surrogate_keys(fields) if fields else [""]  # trimmed before it was handled
            if "" in found:
                purge_all()
            keys += filter(None, found)
        keys = list(dict.fromkeys(keys))
        for i in range(0, len(keys), BATCH):
            post(PURGE_URL, **{"Surrogate-Key": " ".join(keys[i : i + BATCH])})
        if entries:
            self.redis.xack(STREAM, GROUP, *[entry_id for entry_id, _ in entries])

    def read(self, start):
        """From the entries that this consumer has taken before, or (">") new ones."""
        reply = self.redis.xreadgroup(GROUP, CONSUMER, {STREAM: start}, count=BATCH, block=1000)
        return reply[0][1] if reply else []

    def read_new(self):
        """The same, for new ones; purges all where the stream was trimmed past the group."""
        groups = {group["name"]: group for group in self.redis.xinfo_groups(STREAM)}
        if GROUP not in groups:
            self.create_group()
            return []
        before = groups[GROUP]["last-delivered-id"]
        entries = self.read(">")
        oldest = self.redis.xrange(STREAM, count=1) if entries else []
        if oldest and position(oldest[0][0]) > position(before):
            purge_all()
        return entries

    def claim(self):
        """What other consumers have left behind."""
        if time.monotonic() - self.claimed_at < LEFT_BEHIND_MS / 1000:
            return
        start = "0-0"
        while True:
            reply = self.redis.xautoclaim(
                STREAM, GROUP, CONSUMER, min_idle_time=LEFT_BEHIND_MS, start_id=start, count=BATCH)
            start = reply[0]
            self.handle(reply[1])
            if start == "0-0":
                break
        self.claimed_at = time.monotonic()

    def run_once(self):
        while entries := self.read("0"):  # from before a crash, or a lost connection
            self.handle(entries)
        while True:
            self.claim()
            self.handle(self.read_new())

    def run(self):
        while True:
            try:
                self.run_once()
            except redis.ResponseError as error:
                if not re.search("NOGROUP|no such key|UNBLOCKED", str(error)):
                    raise  # otherwise the stream is gone, or the group
                try:
                    self.create_group()
                except redis.RedisError:
                    time.sleep(0.5)
            except redis.RedisError:  # away: it goes on where it was
                time.sleep(0.5)


if __name__ == "__main__":
    Purger(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")).run()
