"""Cache-aside without a fence: Python, psycopg and redis-py."""
import json
import os

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

db = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
# A Redis that hangs, or can't be reached, costs a request 100 ms, once.
cache = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
                             socket_timeout=0.1, socket_connect_timeout=0.1,
                             retry=Retry(NoBackoff(), 0))
TTL_S = 600


def user(user_id):
    key = f"user:{user_id}"  # the rule: uncache.attach('users', 'user:{id}')
    away, hit = False, None
    try:
        hit = cache.get(key)
    except redis.RedisError:
        away = True  # without Redis we read the database
    if hit is not None:
        try:
            return json.loads(hit)
        except ValueError:
            pass  # can't be decoded: a miss
    row = db.execute("SELECT row_to_json(u) FROM users u WHERE id = %s", [user_id]).fetchone()
    value = row[0] if row else None  # no row is an answer too
    try:
        if not away:
            cache.set(key, json.dumps(value), ex=TTL_S)
    except redis.RedisError:
        pass
    return value
