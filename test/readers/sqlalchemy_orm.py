"""A fenced fill through SQLAlchemy, in a request that has read the row before."""
import importlib
import json
import os
import sys

import psycopg
import redis
from sqlalchemy import Column, Integer, String, create_engine
from sqlalchemy.orm import declarative_base, sessionmaker

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/examples"))
fill = importlib.import_module("fenced_sqlalchemy").fill

writer = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
cache = redis.Redis.from_url(os.environ["REDIS_URL"])
make_session = sessionmaker(create_engine("postgresql+psycopg2://", creator=lambda: __import__(
    "psycopg2").connect(os.environ["DATABASE_URL"])))


class User(declarative_base()):
    __tablename__ = "users"
    id = Column(Integer, primary_key=True)
    name = Column(String)


def ok(it, what):
    print(f"{'ok' if it else 'not ok'} - sqlalchemy: {what}", flush=True)


def load(session):
    return {"name": session.get(User, 1).name}


writer.execute("TRUNCATE users")
writer.execute("INSERT INTO users VALUES (1, 'first')")
writer.execute("SELECT uncache.wait()")

with make_session() as request:
    kept = request.get(User, 1)
    ok(kept.name == "first", "a request has read the row")
    writer.execute("UPDATE users SET name = 'second'")
    writer.execute("SELECT uncache.wait()")
    ok(load(request)["name"] == "first", "and goes on to answer with that")
    token = cache.fcall("uncache_get", 1, "user:1")[1].decode()
    ok(fill(cache, make_session, "user:1", token, load)["name"] == "second",
       "what it fills is read anew")
ok(json.loads(cache.get("user:1") or "null") == {"name": "second"}, "and stored")
