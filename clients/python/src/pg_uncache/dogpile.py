"""A backend for dogpile.cache whose fills are fenced.

    region = make_region().configure("pg_uncache", arguments={
        "url": "redis://127.0.0.1:6379/0",
        "database": session,             # of the running request: see pg_uncache.database
        "fenced": ["user:", "org:"],     # prefixes of keys that hold rows of the database
        "redis_expiration_time": 3600,   # seconds
    })

region.get_or_create(), and region.get() followed by region.set(), and their forms for many keys,
fill fenced; store.py says when nothing is stored.  Other arguments are those of
dogpile.cache.redis; lease_ms, redis_timeout_ms and on_event those of Fence.  Keys are compared
with the prefixes as the backend sees them, after a key_mangler (a rule can't produce a key that
was hashed).

A region's own expiration (expiration_time, region.invalidate()) goes on working: an old value is
then filled again, in its place.
"""
from __future__ import annotations

import json
import pickle
import threading

from dogpile.cache import register_backend
from dogpile.cache.api import NO_VALUE
from dogpile.cache.backends.redis import RedisBackend
from dogpile.util import NameRegistry

from .database import as_database
from .store import Store

register_backend("pg_uncache", "pg_uncache.dogpile", "UncacheBackend")


class UncacheBackend(RedisBackend):
    def __init__(self, arguments):
        arguments = dict(arguments)
        database, fenced = arguments.pop("database", None), arguments.pop("fenced", None)
        own = {name: arguments.pop(name) for name in ("lease_ms", "redis_timeout_ms", "on_event")
               if name in arguments}
        super().__init__(arguments)
        if database is None:
            raise ValueError("the backend pg_uncache needs the argument database: a session, a "
                             "connection, or a function that gives uncache.snapshot(tokens)")
        self.uncache = Store(self.writer_client, as_database(database, False) or database,
                             fenced, **own)
        self.locks = NameRegistry(lambda key: threading.Lock())
        self.deserializer = self._loads
        self.decoded = threading.local()

    @property
    def _ttl_ms(self):
        return self.redis_expiration_time * 1000 or None

    def _split(self, keys):
        fenced = [key for key in keys if self.uncache.is_fenced(key)]
        return fenced, [key for key in keys if not self.uncache.is_fenced(key)]

    def get_mutex(self, key):
        mutex = super().get_mutex(key)
        if not self.uncache.is_fenced(key):
            return mutex
        return _Mutex(mutex or self.locks.get(key), lambda: self.uncache.refresh(key))

    def _loads(self, payload):
        """_checked() has decoded it a moment ago."""
        known = self.decoded.__dict__.pop("values", {})
        return known[payload] if payload in known else pickle.loads(payload)

    def _checked(self, key, raw):
        """raw, or NO_VALUE where it can't be decoded: then a fill takes its place.  A region
        that has a deserializer of its own finds that out for itself, by an exception."""
        head, _, payload = raw.partition(b"|")
        try:
            json.loads(head)
            self.decoded.__dict__.setdefault("values", {})[payload] = pickle.loads(payload)
        except Exception:
            self.uncache.refresh(key)
            return NO_VALUE
        return raw

    def get_serialized(self, key):
        if not self.uncache.is_fenced(key):
            return super().get_serialized(key)
        self.decoded.__dict__.clear()
        raw = self.uncache.get(key)
        return NO_VALUE if raw is None else self._checked(key, raw)

    def get_serialized_multi(self, keys):
        fenced, plain = self._split(keys)
        found = dict(zip(plain, super().get_serialized_multi(plain))) if plain else {}
        for key, raw in self.uncache.get_many(fenced).items():
            found[key] = self._checked(key, raw)
        self.decoded.__dict__.clear()
        return [found.get(key, NO_VALUE) for key in keys]

    def set_serialized(self, key, value):
        self.set_serialized_multi({key: value})

    def set_serialized_multi(self, mapping):
        fenced, plain = self._split(mapping)
        if fenced:
            self.uncache.set_many({key: mapping[key] for key in fenced}, self._ttl_ms)
        if plain:
            self.uncache.counters.add("plain", len(plain))
            super().set_serialized_multi({key: mapping[key] for key in plain})

    def delete(self, key):
        self.delete_multi([key])

    def delete_multi(self, keys):
        fenced, plain = self._split(keys)
        if fenced:
            self.uncache.delete(fenced)
        if plain:
            super().delete_multi(plain)


class _Mutex:
    """The lock under which dogpile makes a value.  It asks for it without waiting where it has a
    value that has expired: that is then filled again, by a token of its own."""

    def __init__(self, lock, refresh):
        self.lock, self.refresh = lock, refresh

    def acquire(self, wait=True):
        acquired = self.lock.acquire(wait)
        if acquired and not wait:
            self.refresh()
        return acquired

    def release(self):
        self.lock.release()

    def locked(self):
        return self.lock.locked()
