"""Cache-aside with a fenced fill through an ORM: SQLAlchemy and redis-py."""
import json

from sqlalchemy import text

TTL_MS = 24 * 3600 * 1000


def fill(cache, make_session, key, token, load):
    """load(session) reads with the ORM what the key is for.  It is stored, as JSON, and returned.

    The session is a new one: any other answers with the objects that it has read before, which
    can be older than the snapshot."""
    with make_session() as session:
        snapshot = session.execute(
            text("SELECT uncache.snapshot(:token)"), {"token": token}).scalar()
        value = load(session)
    if snapshot is not None:
        cache.fcall("uncache_set", 1, key, snapshot, TTL_MS, json.dumps(value))
    return value
