"""Cache-aside with a fenced fill: Python, psycopg and redis-py."""
import contextlib, json, os
import psycopg, redis

db = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
cache = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
                             socket_timeout=0.2, decode_responses=True)
TTL_MS = 24 * 3600 * 1000


def user(user_id):
    key = f"user:{user_id}"  # the rule: uncache.attach('users', 'user:{id}')
    hit, token = None, None
    try:
        hit, *token = cache.fcall("uncache_get", 1, key)
    except redis.RedisError:
        with contextlib.suppress(redis.RedisError):
            hit = cache.get(key)  # without the function a plain read still serves
    if hit is not None:
        return json.loads(hit)
    value, snapshot = db.execute(
        "SELECT (SELECT row_to_json(u) FROM users u WHERE id = %s), uncache.snapshot(%s)",
        [user_id, token[0] if token else None]).fetchone()
    if snapshot is not None:
        with contextlib.suppress(redis.RedisError):
            cache.fcall("uncache_set", 1, key, snapshot, TTL_MS, json.dumps(value))
    return value
