"""dogpile.cache: regions whose code is what it would be without pg_uncache."""
import logging
import pickle
import threading
import time

import psycopg2
import redis
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from sqlalchemy import Column, Integer, String, create_engine
from sqlalchemy.orm import declarative_base, scoped_session, sessionmaker

import pg_uncache.dogpile  # noqa: F401  an installed package is found by its entry point
import tap
from pg_uncache import Database
from tap import client, connect, fails, ok, same

logging.getLogger("pg_uncache").setLevel(logging.CRITICAL)
db, r = connect(), client()
db.execute("DROP TABLE IF EXISTS dog_users")
db.execute("CREATE TABLE dog_users (id int PRIMARY KEY, name text)")
db.execute("SELECT uncache.attach('dog_users', 'dog:{id}')")


class User(declarative_base()):
    __tablename__ = "dog_users"
    id = Column(Integer, primary_key=True)
    name = Column(String)


make_session = sessionmaker(create_engine(
    "postgresql+psycopg2://", creator=lambda: psycopg2.connect(""), pool_size=50))
session = scoped_session(make_session)


def region(database=session, **more):
    return make_region().configure("pg_uncache", arguments={
        "url": tap.REDIS_URL, "database": database, "fenced": ["dog:"],
        "redis_expiration_time": 600, **tap.SLOW, **more})


def reset():
    session.remove()
    db.execute("DELETE FROM dog_users")
    db.execute("INSERT INTO dog_users VALUES (1, 'first'), (2, 'first')")
    db.execute("SELECT uncache.invalidate_keys('dog:1', 'dog:2'), uncache.wait()")


def rename(name):
    db.execute("UPDATE dog_users SET name = %s WHERE id = 1", [name])


def name(id_=1):
    return session.get(User, id_).name


def get_or_create():
    reset()
    cache = region()
    stats = cache.backend.uncache.stats
    same(cache.get_or_create("dog:1", name), "first", "dogpile: get_or_create fills")
    same(cache.get_or_create("dog:1", None), "first", "dogpile: and hits")
    ok(0 < r.pttl("dog:1") <= 600_000, "dogpile: with the expiration of the arguments")
    plain = make_region().configure("dogpile.cache.redis", arguments={"url": tap.REDIS_URL})
    same(plain.get("dog:1"), "first", "dogpile: in the form of dogpile's own backend")
    rename("second")
    same(cache.get("dog:1"), NO_VALUE, "dogpile: a write deletes it")
    same(cache.get_or_create("dog:1", name), "second", "dogpile: the session is not asked for what "
         "it remembers")

    def late():
        got = name()
        rename("fourth")
        return got
    rename("third")
    same((cache.get_or_create("dog:1", late), r.exists("dog:1")), ("third", 0),
         "dogpile: a late reader is served and refused")
    same(cache.get_or_create("dog:3", lambda: None), None, "dogpile: None is served")
    stats = cache.backend.uncache.stats
    ok(stats["refused"] == 1 and stats["stored"] == 2, "dogpile: and counted", stats)
    same(r.exists("dog:3"), 0, "dogpile: what is made without a statement is not stored")


def transactions():
    reset()
    cache = region()

    def flushed():
        session.get(User, 1).name = "undone"
        session.flush()
        return name()
    same(cache.get_or_create("dog:1", flushed), "undone", "dogpile: a creator that writes")
    session.rollback()
    same(r.exists("dog:1"), 0, "dogpile: stores nothing")
    cache.get("dog:1")
    undone = flushed()
    session.rollback()
    cache.set("dog:1", undone)
    same(r.exists("dog:1"), 0, "dogpile: nor does set() after the rollback")
    cache.set("dog:1", name())
    same(r.exists("dog:1"), 0, "dogpile: nor set() without get()")
    same(cache.get("dog:1"), NO_VALUE, "dogpile: get()")
    cache.set("dog:1", name())
    same(cache.get("dog:1"), "first", "dogpile: then set() fills")
    cache.delete("dog:1")
    same(r.exists("dog:1"), 0, "dogpile: delete")


def expiration():
    """A value that the region holds for expired is filled again, in its place."""
    reset()
    cache = region()
    cache.get_or_create("dog:1", name, expiration_time=100)
    db.execute("ALTER TABLE dog_users DISABLE TRIGGER uncache_row")
    rename("unseen")
    db.execute("ALTER TABLE dog_users ENABLE ALWAYS TRIGGER uncache_row")
    payload = r.get("dog:1").partition(b"|")[2]
    r.set("dog:1", b'{"ct": 1.0, "v": 2}|' + payload, px=600_000)
    session.rollback()
    same(cache.get_or_create("dog:1", name, expiration_time=100), "unseen",
         "dogpile: a value that has expired is read again")
    same(cache.get("dog:1"), "unseen", "dogpile: and stored, fenced")
    r.set("dog:1", b'{"ct": 1.0, "v": 2}|' + payload, px=600_000)

    def late():
        got = name()
        rename("second")
        return got
    session.rollback()
    cache.get_or_create("dog:1", late, expiration_time=100)
    same(r.exists("dog:1"), 0, "dogpile: unless a writer was faster")


def many():
    reset()
    cache = region()

    def names(*keys):
        session.rollback()
        return [name(int(key[4:])) for key in keys]

    def each(*keys):
        return [name(int(key[4:])) for key in keys]
    same(cache.get_or_create_multi(["dog:1", "dog:2"], each), ["first", "first"],
         "dogpile: many keys")
    same(r.exists("dog:1", "dog:2"), 2, "dogpile: are stored")
    same(cache.get_multi(["dog:1", "x", "dog:2"]), ["first", NO_VALUE, "first"],
         "dogpile: get_multi")
    rename("second")
    session.rollback()
    same(cache.get_or_create_multi(["dog:1", "dog:2"], each), ["second", "first"],
         "dogpile: a write deletes one of them")
    cache.delete_multi(["dog:1", "dog:2"])
    same(cache.get_or_create_multi(["dog:1", "dog:2"], names), ["second", "first"],
         "dogpile: a creator that ends the transaction")
    same(r.exists("dog:1", "dog:2"), 0, "dogpile: stores nothing")
    cache.set_multi({"other:1": 1, "other:2": 2})
    same(cache.get_multi(["other:1", "other:2"]), [1, 2], "dogpile: other keys are plain")
    cache.delete_multi(["other:1", "other:2"])
    same(cache.backend.uncache.stats["plain"], 2, "dogpile: and counted")


def undecodable():
    reset()
    cache = region()
    for broken in (b"no metadata", b'{"ct": 1.0, "v": 2}|\x80\x04broken'):
        r.set("dog:1", broken)
        same(cache.get_or_create("dog:1", name), "first",
             "dogpile: what can't be decoded is a miss")
        same(cache.get("dog:1"), "first", "dogpile: and is replaced")
    r.set("dog:1", b"broken")
    same(cache.get_or_create_multi(["dog:1"], lambda *keys: [name()]), ["first"],
         "dogpile: among many, too")
    blob = bytes(range(256))
    cache.delete("dog:1")
    cache.get_or_create("dog:1", lambda: (name(), blob))
    same(cache.get("dog:1"), ("first", blob), "dogpile: bytes come back")


def away():
    reset()
    cache = region(url="redis://127.0.0.1:1/0")
    same([cache.get_or_create("dog:1", name) for _ in range(20)], ["first"] * 20,
         "dogpile: a Redis that is away is no error")
    same(cache.get("dog:1"), NO_VALUE, "dogpile: get(), either")
    cache.delete("dog:1")


def threads():
    reset()
    cache, got = region(), []

    def reader():
        got.append(cache.get_or_create("dog:1", name))
        session.remove()
    all_ = [threading.Thread(target=reader) for _ in range(20)]
    for thread in all_:
        thread.start()
    for thread in all_:
        thread.join()
    same(got, ["first"] * 20, "dogpile: threads")


def with_psycopg():
    reset()
    connection = connect()
    cache = region(connection)

    def load():
        return connection.execute("SELECT name FROM dog_users WHERE id = 1").fetchone()[0]
    same((cache.get_or_create("dog:1", load), cache.get("dog:1")), ("first", "first"),
         "dogpile: with a connection of psycopg")
    rename("second")
    connection.execute("BEGIN")
    connection.execute("UPDATE dog_users SET name = 'undone' WHERE id = 1")
    cache.get_or_create("dog:1", load)
    connection.execute("ROLLBACK")
    same(r.exists("dog:1"), 0, "dogpile: whose transaction has written: nothing is stored")
    cache = region(Database(lambda: connection))
    same((cache.get_or_create("dog:1", load), cache.get("dog:1")), ("second", "second"),
         "dogpile: with a function that gives one")


def wrong_uses():
    fails(ValueError, lambda: region(None), "needs the argument database",
          "dogpile: no database is an error")
    fails(ValueError, lambda: region(fenced=[]), "list of prefixes", "dogpile: so is no prefix")
    fails(ValueError, lambda: region(fenced="dog:"), "list of prefixes", "dogpile: or one that is "
          "no list")


tap.run(get_or_create, transactions, expiration, many, undecodable, away, threads, with_psycopg,
        wrong_uses)
