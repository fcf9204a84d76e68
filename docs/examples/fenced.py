"""Cache-aside with a fenced fill: Python, psycopg and redis-py."""
import contextlib, json, os
import psycopg, redis
from redis.backoff import NoBackoff
from redis.retry import Retry

db = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
# A Redis that hangs, or can't be reached, costs a request 100 ms, once.
cache = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
                             socket_timeout=0.1, socket_connect_timeout=0.1,
                             retry=Retry(NoBackoff(), 0))
TTL_MS = 24 * 3600 * 1000
MISS = object()


def look(key):
    """What is cached, or MISS and perhaps a token for a fill."""
    token = []
    hit = cache.get(key)
    if hit is None:
        hit, *token = cache.fcall("uncache_get", 1, key)
    if hit is not None:
        with contextlib.suppress(ValueError):
            return json.loads(hit), None
        token = [cache.fcall("uncache_token", 1, key)]  # can't be decoded: take its place
    return MISS, token[0].decode() if token and token[0] else None


def user(user_id):
    key = f"user:{user_id}"  # the rule: uncache.attach('users', 'user:{id}')
    try:
        value, token = look(key)
    except redis.RedisError:
        value, token = MISS, None  # without Redis we read the database
    if value is not MISS:
        return value
    value, snapshot = db.execute(
        "SELECT (SELECT row_to_json(u) FROM users u WHERE id = %s), uncache.snapshot(%s)",
        [user_id, token]).fetchone()
    if snapshot is not None:
        with contextlib.suppress(redis.RedisError):
            cache.fcall("uncache_set", 1, key, snapshot, TTL_MS, json.dumps(value))
    return value
