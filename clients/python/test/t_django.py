"""Django's cache, for Django's own Redis backend and for django-redis; the application's code is
what it would be without pg_uncache."""
import asyncio
import logging
import os
import pickle
import subprocess
import sys
import threading

import tap
from tap import client, connect, fails, ok, same

logging.getLogger("pg_uncache").setLevel(logging.CRITICAL)
BACKENDS = {"own": "pg_uncache.django.RedisCache",
            "django-redis": "pg_uncache.django.DjangoRedisCache"}


def configure(kind):
    from django.conf import settings
    settings.configure(
        CACHES={
            "default": {
                "BACKEND": BACKENDS[kind], "LOCATION": tap.REDIS_URL,
                "OPTIONS": {"FENCED": ["dj:"], "UNCACHE": {
                    "LEASE_MS": 2000, "REDIS_TIMEOUT_MS": 5000}},
            },
            "plain": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache" if kind == "own"
                else "django_redis.cache.RedisCache", "LOCATION": tap.REDIS_URL},
        },
        DATABASES={"default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"],
            "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"]}},
        INSTALLED_APPS=[], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.AutoField")
    import django
    django.setup()


def tests(kind):
    configure(kind)
    from django.core.cache import cache, caches
    from django.core.exceptions import ImproperlyConfigured
    from django.core.signals import request_finished
    from django.db import connection, models, transaction
    from django.utils.module_loading import import_string

    class User(models.Model):
        name = models.TextField()

        class Meta:
            app_label, db_table = "tests", "dj_users"

    db, r = connect(), client()
    db.execute("DROP TABLE IF EXISTS dj_users")
    db.execute("CREATE TABLE dj_users (id int PRIMARY KEY, name text)")
    db.execute("SELECT uncache.attach('dj_users', ':1:dj:{id}', ':2:dj:{id}')")

    def say(title):
        return f"django ({kind}): {title}"

    def reset():
        connection.close()
        db.execute("DELETE FROM dj_users")
        db.execute("INSERT INTO dj_users VALUES (1, 'first'), (2, 'first')")
        db.execute("SELECT uncache.invalidate_keys(':1:dj:1', ':1:dj:2'), uncache.wait()")
        request_finished.send(None)

    def rename(name, id_=1):
        db.execute("UPDATE dj_users SET name = %s WHERE id = %s", [name, id_])

    def name(id_=1):
        return User.objects.get(id=id_).name

    def stats(*names):
        return tuple(cache.uncache.stats[word] for word in names)

    def counted(call):
        before = cache.uncache.stats
        call()
        return {word: n - before[word] for word,
                n in cache.uncache.stats.items() if n != before[word]}

    def get_or_set():
        reset()
        same(cache.get_or_set("dj:1", name, 300), "first", say("get_or_set fills"))
        same(caches["plain"].get("dj:1"), "first",
             say("under the key and in the form of the backend"))
        ok(0 < r.pttl(":1:dj:1") <= 300_000, say("with its timeout"), r.pttl(":1:dj:1"))
        same(cache.get_or_set("dj:1", lambda: "no", 300), "first", say("and hits"))
        same(cache.get_or_set("dj:1", name, 300, version=2), "first",
             say("a version is another key"))
        rename("second")
        same((cache.get("dj:1"), cache.get("dj:1", version=2)), (None, None),
             say("a write deletes both"))

        def late():
            got = name()
            rename("third")
            return got
        same(cache.get_or_set("dj:1", late), "second", say("a late reader is served"))
        same(r.exists(":1:dj:1"), 0, say("and refused"))
        user = User.objects.get(id=1)
        rename("fourth")
        same(cache.get_or_set("dj:1", lambda: user.name), "third",
             say("what was at hand is served"))
        same(r.exists(":1:dj:1"), 0, say("and not stored"))
        same(cache.get_or_set("dj:1", name()), "fourth", say("a ready value is served"))
        same(r.exists(":1:dj:1"), 0, say("and not stored"))
        fails(ZeroDivisionError, lambda: cache.get_or_set("dj:1", lambda: 1 // 0), "zero",
              say("an error of the callable is the caller's"))
        same(counted(lambda: cache.get_or_set("dj:1", name)), {"miss": 1, "stored": 1},
             say("the next one fills"))
        cache.get_or_set("dj:3", lambda: User.objects.filter(id=3).first())
        same((cache.get("dj:3", "default"), r.exists(":1:dj:3")), (None, 1),
             say("None is a value, for a row that is not there"))
        same(cache.get_or_set("dj:1", name, None), "fourth", say("no timeout"))

    def get_and_set():
        reset()
        same(cache.get("dj:1"), None, say("get misses"))
        ok(cache.set("dj:1", name()) is not False, say("set fills"))
        same(cache.get("dj:1"), "first", say("and get hits"))
        cache.delete("dj:1")
        same(counted(lambda: cache.set("dj:1", "first")), {"unfenced": 1},
             say("set without get stores nothing"))
        cache.get("dj:1")
        got = name()
        rename("second")
        cache.set("dj:1", got)
        same(cache.get("dj:1"), None, say("a late reader is refused"))
        cache.get("dj:1")
        cache.add("dj:1", name())
        same(cache.get("dj:1"), "second", say("add fills, too"))
        cache.set("dj:1", "x", 0)
        same(r.exists(":1:dj:1"), 0, say("a timeout of 0 deletes"))
        same(cache.has_key("dj:1"), False, say("has_key"))
        cache.get("dj:1")
        request_finished.send(None)
        name()
        cache.set("dj:1", name())
        same(r.exists(":1:dj:1"), 0, say("what is remembered ends with the request"))
        with transaction.atomic():
            cache.get("dj:1")
            cache.set("dj:1", name())
        same(r.exists(":1:dj:1"), 1, say("a transaction that only reads fills"))

    def rolled_back():
        reset()

        class Undo(Exception):
            pass

        def within(work, *more):
            cache.delete("dj:1")
            try:
                with transaction.atomic():
                    work()
                    raise Undo
            except Undo:
                for step in more:
                    step()
            return r.exists(":1:dj:1")

        def write():
            User.objects.filter(id=1).update(name="undone")

        def both():
            cache.get("dj:1")
            cache.set("dj:1", name())
        same(within(lambda: (write(), both())), 0,
             say("a transaction that has written stores nothing"))
        same(within(lambda: (cache.get("dj:1"), write(), cache.set("dj:1", name()))), 0,
             say("nor if it has written between get and set"))
        same(within(lambda: cache.get_or_set("dj:1", lambda: (write(), name())[1])), 0,
             say("nor in get_or_set"))
        kept = []
        same(within(lambda: (cache.get("dj:1"), write(), kept.append(name())),
                    lambda: cache.set("dj:1", kept[0])), 0,
             say("nor after the rollback, outside of it"))
        cache.get("dj:1")
        same(within(lambda: (write(), kept.append(name())), lambda: cache.set("dj:1", kept[-1])), 0,
             say("nor if get came before it"))
        same(kept, ["undone", "undone"], say("(which is what they had read)"))

        def savepoint():
            with transaction.atomic():
                cache.get("dj:1")
                try:
                    with transaction.atomic():
                        write()
                        kept.append(name())
                        raise Undo
                except Undo:
                    cache.set("dj:1", kept[-1])
            return r.exists(":1:dj:1")
        same(savepoint(), 0, say("nor after a savepoint that was rolled back"))
        same(within(lambda: cache.get_or_set("dj:1", name)), 1,
             say("a transaction that only reads may be rolled back"))
        connection.set_autocommit(False)
        try:
            cache.delete("dj:1")
            cache.get("dj:1")
            write()
            undone = name()
            connection.rollback()
            cache.set("dj:1", undone)
        finally:
            connection.rollback()
            connection.set_autocommit(True)
        same(r.exists(":1:dj:1"), 0, say("nor with transactions that are not Django's"))
        with transaction.atomic():
            try:
                with transaction.atomic():
                    connection.cursor().execute("SELECT 1/0")
            except Exception:
                pass
            same(cache.get_or_set("dj:1", name), "first",
                 say("after an error in a savepoint it serves"))

    def many():
        reset()
        same(cache.get_many(["dj:1", "dj:2", "session:1"]), {}, say("get_many misses"))
        cache.set_many({"dj:1": name(1), "dj:2": name(2), "session:1": "plain"})
        same(cache.get_many(["dj:1", "dj:2", "session:1"]),
             {"dj:1": "first", "dj:2": "first", "session:1": "plain"}, say("set_many fills"))
        rename("second")
        same(cache.get_many(["dj:1", "dj:2"]), {"dj:2": "first"}, say("a write deletes its key"))
        cache.delete_many(["dj:2", "session:1"])
        same(r.exists(":1:dj:2", ":1:session:1"), 0, say("delete_many"))
        same(counted(lambda: cache.set_many({"dj:1": "x", "dj:2": "x"})), {"stored": 1,
                                                                           "unfenced": 1},
             say("set_many stores what get_many has missed")) if name() else None

    def others():
        reset()
        same(counted(lambda: cache.set("session:1", "x")), {"plain": 1},
             say("other keys are plain"))
        same((cache.get("session:1"), caches["plain"].get("session:1")), ("x", "x"),
             say("and as ever"))
        same(cache.get_or_set("session:2", "ready", 60), "ready", say("a ready value, too"))
        same(cache.add("session:2", "again"), False, say("add"))
        cache.set("hits:1", 1)
        same(cache.incr("hits:1"), 2, say("incr"))
        cache.delete("session:1")
        cache.delete("session:2")
        cache.delete("hits:1")
        r.set(":1:dj:1", b"\x80\x04broken")
        same(cache.get("dj:1", "default"), "default", say("what can't be decoded is a miss"))
        cache.set("dj:1", name())
        same(cache.get("dj:1"), "first", say("that is replaced"))
        r.set(":1:dj:1", b"\x80\x04broken")
        same(cache.get_or_set("dj:1", name), "first", say("by get_or_set, too"))
        same(cache.get("dj:1"), "first", say("which is stored"))
        cache.delete("dj:1")
        cache.get("dj:1")
        blob = bytes(range(256))
        name()
        cache.set("dj:1", {"blob": blob, "n": 7})
        same(cache.get("dj:1"), {"blob": blob, "n": 7}, say("bytes and numbers come back"))
        kind_ = import_string(BACKENDS[kind])
        fails(ImproperlyConfigured, lambda: kind_(tap.REDIS_URL, {}), "needs FENCED",
              say("no FENCED is an error"))
        fails(ImproperlyConfigured, lambda: kind_(tap.REDIS_URL, {"OPTIONS": {"FENCED": "user:"}}),
              "a list of prefixes", say("so is one that is no list"))

    def away():
        reset()
        gone = import_string(BACKENDS[kind])("redis://127.0.0.1:1/0",
                                             {"OPTIONS": {"FENCED": ["dj:"]}})
        same([gone.get_or_set("dj:1", name) for _ in range(20)], ["first"] * 20,
             say("a Redis that is away is no error"))
        same((gone.get("dj:1"), gone.get_many(["dj:1"]), gone.delete("dj:1"), gone.has_key("dj:1")),
             (None, {}, False, False), say("for any call"))
        gone.set("dj:1", "x")
        same(gone.uncache.stats["stored"], 0, say("nothing is stored"))

    def threads():
        reset()
        got = []

        def reader():
            got.append(cache.get_or_set("dj:1", name))
            connection.close()
        all_ = [threading.Thread(target=reader) for _ in range(20)]
        for thread in all_:
            thread.start()
        for thread in all_:
            thread.join()
        same(got, ["first"] * 20, say("each thread has a connection, and memories, of its own"))

    def coroutines():
        if not hasattr(cache, "aget"):
            return tap.skip(say("coroutines"), "this Django has none")
        reset()

        async def run():
            same(await cache.aget_or_set("dj:1", name), "first", say("aget_or_set fills"))
            same(await cache.aget("dj:1"), "first", say("aget hits"))
            same(await cache.aget_many(["dj:1", "dj:2"]), {"dj:1": "first"}, say("aget_many"))
        asyncio.run(run())
        same(pickle.loads(r.get(":1:dj:1")), "first", say("and it is stored"))

    tap.run(get_or_set, get_and_set, rolled_back, many, others, away, threads, coroutines)


def has(kind):
    try:
        if kind == "own":
            import django.core.cache.backends.redis  # noqa: F401
        else:
            import django_redis  # noqa: F401
    except ImportError:
        return False
    except Exception:  # it wants to be configured first
        return True
    return True


if len(sys.argv) > 1:
    tests(sys.argv[1])
else:
    for kind in BACKENDS:
        if has(kind):
            sys.stdout.flush()
            if subprocess.call([sys.executable, __file__, kind]):
                ok(False, f"django ({kind}): ended with an error")
        else:
            tap.skip(f"django ({kind})", "this Django has no such backend")
