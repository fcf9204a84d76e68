"""Django's cache, used plainly: its keys are the template's."""
import os

import psycopg
import redis
from django.conf import settings

try:
    import django.core.cache.backends.redis  # from 4.0 on
    backend = "django.core.cache.backends.redis.RedisCache"
except ImportError:
    backend = "django_redis.cache.RedisCache"
settings.configure(CACHES={"default": {"BACKEND": backend, "LOCATION": os.environ["REDIS_URL"]}})
from django.core.cache import cache

db = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
redis = redis.Redis.from_url(os.environ["REDIS_URL"])


def user(user_id):
    return cache.get_or_set(
        f"user:{user_id}",
        lambda: db.execute("SELECT name FROM users WHERE id = %s", [user_id]).fetchone()[0], 300)


def ok(it, what):
    print(f"{'ok' if it else 'not ok'} - django ({backend}): {what}", flush=True)


db.execute("TRUNCATE users")
db.execute("INSERT INTO users VALUES (1, 'first')")
db.execute("SELECT uncache.wait()")
ok(user(1) == "first", "a miss fills")
ok(redis.exists(":1:user:1") and redis.ttl(":1:user:1") > 0, "under :1:user:1, with a TTL")
db.execute("UPDATE users SET name = 'second'")
ok(not redis.exists(":1:user:1"), "a write deletes that")
ok(user(1) == "second", "the next reader has the new value")
