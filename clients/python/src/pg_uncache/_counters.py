"""What a fence has done, in numbers, and one warning where it does nothing."""
from __future__ import annotations

import itertools
import logging
import threading
import time

log = logging.getLogger("pg_uncache")

WARN_AFTER_S = 60.0  # a restart of Redis or of PostgreSQL takes seconds; this is something else
NAMES = ("hit", "miss", "stored", "refused", "unfenced", "waited", "plain", "checked", "stale")


class Counters:
    """All fields are written under the lock, but for hits, whose count must cost nothing: next()
    of an itertools.count is one step for all threads."""

    def __init__(self, clock=time.monotonic):
        self.numbers = dict.fromkeys(NAMES, 0)
        self.hits = itertools.count()
        self.lock = threading.Lock()
        self.clock = clock
        self.unfenced_since = None  # the first unfenced fill since the last fenced one
        self.warned = False         # once, until a fill is fenced again

    def add(self, name, n=1):
        with self.lock:
            self.numbers[name] += n

    def fenced(self, stored):
        """A fill was answered: it was fenced, whether it was stored or refused."""
        with self.lock:
            self.numbers["stored" if stored else "refused"] += 1
            self.unfenced_since, self.warned = None, False

    def unfenced(self, reason):
        """A value was read and could not be stored.  True if the caller is to tell of it."""
        with self.lock:
            self.numbers["unfenced"] += 1
            now = self.clock()
            if self.unfenced_since is None:
                self.unfenced_since = now
            if self.warned or now - self.unfenced_since < WARN_AFTER_S:
                return False
            self.warned = True
        log.warning("pg_uncache: no value could be stored for %d seconds, so readers go to the "
                    "database: %s.", now - self.unfenced_since, reason)
        return True

    def snapshot(self):
        with self.lock:
            hits = int(repr(self.hits)[len("count("):-1])
            return {**self.numbers, "hit": self.numbers["hit"] + hits}
