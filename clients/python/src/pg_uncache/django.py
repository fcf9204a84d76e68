"""Cache backends for Django whose fills are fenced; the application's code stays as it is.

    CACHES = {"default": {
        "BACKEND": "pg_uncache.django.RedisCache",        # Django's own, from 4.0 on
                 # "pg_uncache.django.DjangoRedisCache",  # django-redis
        "LOCATION": "redis://127.0.0.1:6379/0",
        "OPTIONS": {"FENCED": ["user:", "org:"]},
    }}

FENCED lists the prefixes, as the application writes them, of the keys that hold rows of the
database; the rule's template spells them as Redis sees them: ":1:user:{id}".  UNCACHE, a dict,
may hold DATABASE (an alias, "default"), LEASE_MS, REDIS_TIMEOUT_MS, ON_EVENT.

cache.get_or_set(key, callable) and cache.get() followed by cache.set(), and their forms for many
keys, fill fenced; store.py says when nothing is stored.  In a fenced key get_or_set() with a
value instead of a callable stores nothing, since the value was read before the miss.
"""
from __future__ import annotations

import threading

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished, request_started
from django.db import connections
from django.utils.functional import cached_property

from .database import Django
from .store import Store

try:
    from asgiref.sync import sync_to_async
except ImportError:
    sync_to_async = None

_MISSING = object()
# Django makes a backend for each thread; those of one configuration share a store, and so its
# counters and what it knows of a Redis that is away.
_stores, _stores_lock = {}, threading.Lock()


def _forget(**_):
    """A request begins or ends: nothing is remembered across."""
    for wrapper in connections.all():
        wrapper.__dict__.pop("uncache_memories", None)


request_started.connect(_forget)
request_finished.connect(_forget)


class _DjangoStore(Store):
    """Its memories live with the connection: one for each thread, or context of asgiref."""

    def memories(self):
        fields = self.database.wrapper.__dict__
        return fields.setdefault("uncache_memories", {}).setdefault(id(self), {})

    def snapshot(self, tokens):
        """A transaction that can't go on gives none, and is not asked."""
        if self.database.wrapper.needs_rollback:
            return None if isinstance(tokens, str) else [None] * len(tokens)
        return self.database(tokens)


class _Fenced:
    """Goes before a backend's class.  That one gives: uncache_client(), uncache_key(),
    uncache_dumps(), uncache_loads()."""

    def __init__(self, server, params):
        options = dict(params.get("OPTIONS") or {})
        fenced, uncache = options.pop("FENCED", None), dict(options.pop("UNCACHE", {}))
        super().__init__(server, {**params, "OPTIONS": options})
        if not fenced or isinstance(fenced, str):
            raise ImproperlyConfigured(
                'OPTIONS of a pg_uncache backend needs FENCED: a list of prefixes of the keys that '
                'hold rows of the database, such as ["user:"]')
        self._uncache_fenced, self._uncache_options = tuple(fenced), uncache
        self._uncache_name = (type(self), repr(server), repr(params))

    @cached_property
    def uncache(self):
        """The Store; .stats has its counters, of all threads."""
        with _stores_lock:
            if self._uncache_name not in _stores:
                options = {name.lower(): value for name, value in self._uncache_options.items()}
                database = Django(options.pop("database", "default"))
                _stores[self._uncache_name] = _DjangoStore(
                    self.uncache_client(), database, self._uncache_fenced, **options)
            return _stores[self._uncache_name]

    def _is_fenced(self, key, plain=False):
        fenced = str(key).startswith(self._uncache_fenced)
        if plain and not fenced:
            self.uncache.counters.add("plain")
        return fenced

    def _ttl_ms(self, timeout):
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return None if timeout is None else timeout * 1000

    def _load(self, key, raw):
        """The value, or _MISSING: then a fill takes its place."""
        try:
            return self.uncache_loads(raw)
        except Exception:
            self.uncache.refresh(key)
            return _MISSING

    def _fenced_get(self, key, version, fills=False):
        name = self.uncache_key(key, version)
        raw = self.uncache.get(name, fills)
        return _MISSING if raw is None else self._load(name, raw)

    def get(self, key, default=None, version=None, **more):
        if not self._is_fenced(key):
            return super().get(key, default, version=version, **more)
        value = self._fenced_get(key, version)
        return default if value is _MISSING else value

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, **more):
        if not self._is_fenced(key, plain=True):
            return super().set(key, value, timeout=timeout, version=version, **more)
        return self._fenced_set({key: value}, timeout, version) == 1

    def _fenced_set(self, data, timeout, version):
        ttl_ms = self._ttl_ms(timeout)
        names = {key: self.uncache_key(key, version) for key in data}
        if ttl_ms is not None and ttl_ms <= 0:  # Django's word for: delete
            self.uncache.delete(list(names.values()))
            return 0
        return self.uncache.set_many(
            {names[key]: self.uncache_dumps(value) for key, value in data.items()}, ttl_ms)

    def add(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, **more):
        if not self._is_fenced(key, plain=True):
            return super().add(key, value, timeout=timeout, version=version, **more)
        return self._fenced_set({key: value}, timeout, version) == 1

    def get_or_set(self, key, default, timeout=DEFAULT_TIMEOUT, version=None):
        if not self._is_fenced(key):
            return super().get_or_set(key, default, timeout=timeout, version=version)
        value = self._fenced_get(key, version, fills=callable(default))
        if value is not _MISSING:
            return value
        name = self.uncache_key(key, version)
        if not callable(default):
            self.uncache.abandon(name)
            return default
        try:
            value = default()
        except BaseException:
            self.uncache.abandon(name)
            raise
        self._fenced_set({key: value}, timeout, version)
        return value

    def get_many(self, keys, version=None, **more):
        keys = list(keys)
        fenced = {self.uncache_key(key, version): key for key in keys if self._is_fenced(key)}
        plain = [key for key in keys if not self._is_fenced(key)]
        found = dict(super().get_many(plain, version=version, **more)) if plain else {}
        for name, raw in self.uncache.get_many(list(fenced)).items():
            value = self._load(name, raw)
            if value is not _MISSING:
                found[fenced[name]] = value
        return found

    def set_many(self, data, timeout=DEFAULT_TIMEOUT, version=None, **more):
        fenced = {key: value for key, value in data.items() if self._is_fenced(key)}
        plain = {key: value for key, value in data.items() if key not in fenced}
        if fenced:
            self._fenced_set(fenced, timeout, version)
        if not plain:
            return []
        self.uncache.counters.add("plain", len(plain))
        return super().set_many(plain, timeout=timeout, version=version, **more) or []

    def has_key(self, key, version=None, **more):
        if not self._is_fenced(key):
            return super().has_key(key, version=version, **more)
        return isinstance(self.uncache.read_raw(self.uncache_key(key, version)), bytes)

    def delete(self, key, version=None, **more):
        if not self._is_fenced(key):
            return super().delete(key, version=version, **more)
        return self.uncache.delete([self.uncache_key(key, version)]) > 0

    # The coroutines that Django makes of more than one of these.
    async def aget_or_set(self, key, default, timeout=DEFAULT_TIMEOUT, version=None):
        return await sync_to_async(self.get_or_set, thread_sensitive=True)(
            key, default, timeout=timeout, version=version)

    async def aget_many(self, keys, version=None):
        return await sync_to_async(self.get_many, thread_sensitive=True)(keys, version=version)

    async def aset_many(self, data, timeout=DEFAULT_TIMEOUT, version=None):
        return await sync_to_async(self.set_many, thread_sensitive=True)(
            data, timeout=timeout, version=version)

    async def ahas_key(self, key, version=None):
        return await sync_to_async(self.has_key, thread_sensitive=True)(key, version=version)


def _no_backend(name, package):
    class Missing:
        def __init__(self, server, params):
            raise ImproperlyConfigured(f"pg_uncache.django.{name} needs {package}")
    Missing.__name__ = name
    return Missing


try:
    from django.core.cache.backends.redis import RedisCache as _Own
except ImportError:
    RedisCache = _no_backend("RedisCache", "Django 4.0 or later")
else:
    class RedisCache(_Fenced, _Own):
        """Django's own Redis backend."""

        def uncache_client(self):
            return self._cache.get_client(None, write=True)

        def uncache_key(self, key, version):
            return self.make_and_validate_key(key, version=version)

        def uncache_dumps(self, value):
            raw = self._cache._serializer.dumps(value)
            return raw if isinstance(raw, bytes) else str(raw).encode()

        def uncache_loads(self, raw):
            return self._cache._serializer.loads(raw)

try:
    from django_redis.cache import RedisCache as _DjangoRedis
except ImportError:
    DjangoRedisCache = _no_backend("DjangoRedisCache", "django-redis")
else:
    class DjangoRedisCache(_Fenced, _DjangoRedis):
        """django-redis, with its DefaultClient or SentinelClient."""

        def uncache_client(self):
            return self.client.get_client(write=True)

        def uncache_key(self, key, version):
            return str(self.client.make_key(key, version=version))

        def uncache_dumps(self, value):
            raw = self.client.encode(value)
            return raw if isinstance(raw, bytes) else str(raw).encode()

        def uncache_loads(self, raw):
            return self.client.decode(raw)
