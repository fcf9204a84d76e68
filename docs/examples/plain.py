"""Cache-aside without a fence: Python, psycopg and redis-py."""
import json
import os

import psycopg
import redis

db = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
cache = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), socket_timeout=0.2)
TTL_S = 600


def user(user_id):
    key = f"user:{user_id}"  # the rule: uncache.attach('users', 'user:{id}')
    try:
        hit = cache.get(key)
    except redis.RedisError:
        hit = None  # without Redis we read the database
    if hit is not None:
        return json.loads(hit)
    row = db.execute("SELECT row_to_json(u) FROM users u WHERE id = %s", [user_id]).fetchone()
    value = row[0] if row else None  # no row is an answer too
    try:
        cache.set(key, json.dumps(value), ex=TTL_S)
    except redis.RedisError:
        pass
    return value
