"""The way to Redis: one server, a Sentinel's master, or a Cluster.

Model.  The application hands over the client that it has.  A link makes clients of its own
from the address and the rights of that one, since what a cache needs differs: short timeouts,
no retries, bytes as answers.  A link carries commands, each with its key, and gives one reply
for each; an error is a reply, too (an exception that is returned, not raised).

Redis away.  A command that gets no answer within the timeout marks its node as away.  Until a
probe, in a thread or task of its own, has seen the node answer again, each command for it is
answered at once with Away.  So an outage costs a request at most one timeout.

The routing is written once, as generators that yield (function, argument...).  run() of _run.py
carries them out for Fence, arun() for AsyncFence.
"""
from __future__ import annotations

import asyncio
import copy
import logging
import os
import random
import threading
import time
import weakref

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

log = logging.getLogger("pg_uncache")

FIRST_PROBE_S = 0.05  # after a node was lost; soon, as most outages are a moment's
LAST_PROBE_S = 1.0    # the pause doubles up to this: how late an idle process notices the return
MAP_EVERY_S = 1.0     # a Cluster's map is asked for at most so often
GONE = (redis.ConnectionError, redis.TimeoutError, OSError)


# The argument of a pool's get_connection(): the name of a command until 5.3, none since.
_ANY = () if tuple(int(n) for n in redis.__version__.split(".")[:2]) >= (5, 3) else ("_",)


def _packed(commands):
    """Commands of text, bytes and numbers, as Redis reads them."""
    out = []
    for command in commands:
        out.append(b"*%d\r\n" % len(command))
        for word in command:
            if word.__class__ is not bytes:
                word = str(word).encode()
            out.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(out)


class Away(Exception):
    """Redis does not answer, or is known not to."""


AWAY = Away("Redis does not answer")


class Node:
    """One server.  `away` is written under the lock, and read without it."""

    def __init__(self, client, name, report):
        self.client, self.name, self.report = client, name, report
        self.away = False
        self.lock = threading.Lock()
        _nodes.add(self)

    def get(self, key):
        """The value of a key, None, or an exception that is returned."""
        if self.away:
            return AWAY
        try:
            return self.client.execute_command("GET", key)
        except GONE as error:
            return self.lose(error)
        except redis.RedisError as error:
            return error

    def send(self, commands):
        if self.away:
            return [AWAY] * len(commands)
        try:
            if len(commands) == 1:
                return [self.client.execute_command(*commands[0])]
            return self.pipeline(commands)
        except GONE as error:
            return [self.lose(error)] * len(commands)
        except redis.RedisError as error:
            return [error] * len(commands)

    def pipeline(self, commands):
        """What redis-py's pipeline does, for a hundred commands in half the time."""
        pool = self.client.connection_pool
        connection, replies = pool.get_connection(*_ANY), []
        try:
            connection.send_packed_command([_packed(commands)])
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except redis.ResponseError as error:
                    replies.append(error)
        finally:
            if len(replies) < len(commands):
                connection.disconnect()  # or the next one would read what is left
            pool.release(connection)
        return replies

    def lose(self, error):
        with self.lock:
            if self.away:
                return AWAY
            self.away = True
        self.report("away", self.name, error)
        try:
            self.start_probe()
        except RuntimeError:  # no thread can be started while Python ends
            self.away = False
        return AWAY

    def start_probe(self):
        threading.Thread(target=self.probe, name="pg_uncache probe", daemon=True).start()

    def probe(self):
        pause = FIRST_PROBE_S
        while True:
            time.sleep(pause)
            try:
                self.client.execute_command("PING")
                break
            except Exception:  # whatever it is, it is not back
                pause = min(2 * pause, LAST_PROBE_S)
        self.away = False
        self.report("back", self.name, None)


_nodes: weakref.WeakSet = weakref.WeakSet()


def _after_fork():
    """The child has the parent's marks, and not the threads that would take them away."""
    for node in list(_nodes):
        node.away, node.lock = False, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Before 4.5.4 a command that is cancelled at a bad moment leaves its answer in the connection, to
# be read as that of the next one (CVE-2023-28858, CVE-2023-28859).
_CANCEL_MIXES_ANSWERS = tuple(int(n) for n in redis.__version__.split(".")[:3]) < (4, 5, 4)


class AsyncNode(Node):
    """The same with coroutines."""

    async def get(self, key):
        if self.away:
            return AWAY
        try:
            call = self.client.execute_command("GET", key)
            return await (asyncio.shield(call) if _CANCEL_MIXES_ANSWERS else call)
        except GONE as error:
            return self.lose(error)
        except redis.RedisError as error:
            return error

    async def send(self, commands):
        if self.away:
            return [AWAY] * len(commands)
        try:
            call = self.execute(commands)
            return await (asyncio.shield(call) if _CANCEL_MIXES_ANSWERS else call)
        except GONE as error:
            return [self.lose(error)] * len(commands)
        except redis.RedisError as error:
            return [error] * len(commands)

    async def execute(self, commands):
        if len(commands) == 1:
            return [await self.client.execute_command(*commands[0])]
        pool = self.client.connection_pool
        connection, replies = await pool.get_connection(*_ANY), []
        try:
            await connection.send_packed_command([_packed(commands)])
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except redis.ResponseError as error:
                    replies.append(error)
        finally:
            if len(replies) < len(commands):
                await connection.disconnect()
            await pool.release(connection)
        return replies

    def start_probe(self):
        self.task = asyncio.get_running_loop().create_task(self.probe())

    async def probe(self):
        pause = FIRST_PROBE_S
        try:
            while True:
                await asyncio.sleep(pause)
                try:
                    await self.client.execute_command("PING")
                    break
                except Exception:
                    pause = min(2 * pause, LAST_PROBE_S)
        finally:
            self.away = False
        self.report("back", self.name, None)


class Single:
    """A link to one server."""

    def __init__(self, node):
        self.node = node
        self.get = node.get

    def exchange(self, commands):
        """commands: (key or None, word...); a generator that returns their replies."""
        return (yield self.node.send, [command[1:] for command in commands])

    def get_many(self, keys):
        reply, = yield self.node.send, [("MGET", *keys)]
        return [reply] * len(keys) if isinstance(reply, Exception) else reply

    @property
    def away(self):
        return self.node.away


class Cluster:
    """A link to a Cluster: the map of its slots, and a node for each master in it."""

    away = False  # only nodes are

    def __init__(self, addresses, make_node):
        self.make_node, self.nodes = make_node, {}
        self.seeds = list(addresses)
        self.slots = []        # (first, last, node)
        self.map_is_old = True
        self.asked_for_map = 0.0

    def get(self, key):
        return None  # replaced by who knows whether to wait

    def node(self, address):
        if address not in self.nodes:
            self.nodes[address] = self.make_node(*address)
        return self.nodes[address]

    def node_of(self, key):
        slot = key_slot(key.encode() if isinstance(key, str) else bytes(key))
        for first, last, node in self.slots:
            if first <= slot <= last:
                return node
        return None

    def refresh(self):
        """Ask for the map, of whichever node answers first; the old one stays if none does."""
        now = time.monotonic()
        if now - self.asked_for_map < MAP_EVERY_S:
            return
        self.asked_for_map = now
        known = list(dict.fromkeys(list(self.nodes) + self.seeds))
        random.shuffle(known)
        for address in sorted(known, key=lambda a: self.node(a).away):
            node = self.node(address)
            reply, = yield node.send, [("CLUSTER", "SLOTS")]
            if isinstance(reply, list) and reply:
                self.slots = [(first, last, self.node((_text(master[0]) or address[0],
                                                       int(master[1]))))
                              for first, last, master, *_ in reply]
                self.map_is_old = False
                return

    def exchange(self, commands):
        if self.map_is_old:
            yield from self.refresh()
        replies, groups = [AWAY] * len(commands), {}
        for i, command in enumerate(commands):
            node = self.node_of(command[0]) if command[0] is not None else self.any_node()
            if node is not None:
                groups.setdefault(node, []).append(i)
        for node, places in groups.items():
            got = yield node.send, [commands[i][1:] for i in places]
            for i, reply in zip(places, got):
                replies[i] = yield from self.redirected(commands[i][1:], reply)
        if any(node.away for node in groups):
            self.map_is_old = True  # perhaps a replica has taken its place
        return replies

    def any_node(self):
        return self.slots[0][2] if self.slots else None

    def redirected(self, command, reply):
        kind, address = _redirection(reply)
        if kind is None:
            return reply
        if kind == "MOVED":
            self.map_is_old = True
            reply, = yield self.node(address).send, [command]
        else:
            _, reply = yield self.node(address).send, [("ASKING",), command]
        return reply

    def get_many(self, keys):
        return (yield from self.exchange([(key, "GET", key) for key in keys]))


def _text(word):
    return word.decode() if isinstance(word, bytes) else word


def _redirection(reply):
    """("MOVED" or "ASK", address) of an error, or (None, None).

    redis-py has classes for them, which it uses in some versions only."""
    if not isinstance(reply, redis.ResponseError):
        return None, None
    words = str(reply).split()
    name = {"MovedError": "MOVED", "AskError": "ASK"}.get(type(reply).__name__)
    if name is None and words and words[0] in ("MOVED", "ASK"):
        name = words.pop(0)
    if name is None or len(words) < 2:
        return None, None
    host, _, port = words[-1].rpartition(":")
    return name, (host, int(port))


# ---- from the application's client to one of our own

# Of connections that belong to a cluster client or a pool, and have no meaning elsewhere.
_NOT_COPIED = ("connection_pool", "cache", "cache_config", "retry_on_error", "host", "port")


def _own_options(options, seconds, retry, keep_address=True):
    own = {name: value for name, value in options.items()
           if name not in _NOT_COPIED or (keep_address and name in ("host", "port"))}
    own.update(decode_responses=False, retry_on_timeout=False, health_check_interval=0)
    if seconds is not None:
        own.update(retry=retry, socket_timeout=seconds)
        if "path" not in own:
            own["socket_connect_timeout"] = seconds
    return own


def _own_pool(pool, module, seconds, retry):
    options = _own_options(pool.connection_kwargs, seconds, retry)
    options["connection_class"] = pool.connection_class
    manager = getattr(pool, "sentinel_manager", None)
    if manager is None:
        return module.ConnectionPool(**options)
    manager = copy.copy(manager)
    manager.sentinels = [module.Redis(connection_pool=_own_pool(
        sentinel.connection_pool, module, seconds, retry)) for sentinel in manager.sentinels]
    for name in ("host", "port"):
        options.pop(name, None)
    return type(pool)(pool.service_name, manager, is_master=pool.is_master, **options)


def _name_of(pool):
    options = pool.connection_kwargs
    if getattr(pool, "service_name", None):
        return f"the master {pool.service_name}"
    return options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def _cluster_addresses(client):
    nodes = client.nodes_manager.nodes_cache or client.nodes_manager.startup_nodes
    return [(node.host, int(node.port)) for node in nodes.values()]


def make_link(client, timeout_ms, report, is_async):
    """client: one of redis-py, or a URL.  timeout_ms: None leaves the client's own timeouts.

    report(kind, name, error) is called when a node goes ("away") and comes ("back")."""
    module = redis.asyncio if is_async else redis
    retry_class = redis.asyncio.retry.Retry if is_async else redis.retry.Retry
    node_class = AsyncNode if is_async else Node
    seconds = None if timeout_ms is None else timeout_ms / 1000
    retry = retry_class(NoBackoff(), 0)
    if isinstance(client, str):
        client = module.Redis.from_url(client)
    if hasattr(client, "nodes_manager"):
        options = getattr(client.nodes_manager, "connection_kwargs", None)
        options = _own_options(options or client.connection_kwargs, seconds, retry, False)
        options.pop("redis_connect_func", None)

        def make_node(host, port):
            own = module.Redis(connection_pool=module.ConnectionPool(
                host=host, port=port, **_for_a_pool(options, module)))
            return node_class(own, f"{host}:{port}", report)
        link = Cluster(_cluster_addresses(client), make_node)
        link.seeds = link.seeds or [(options.get("host", "localhost"), 6379)]
        return link
    if not hasattr(client, "connection_pool"):
        raise TypeError("redis must be a client of redis-py, or a URL such as "
                        f"redis://127.0.0.1:6379/0, not {type(client).__name__}")
    if is_async != isinstance(client, redis.asyncio.Redis):
        raise TypeError("Fence takes a client of redis, AsyncFence one of redis.asyncio")
    pool = _own_pool(client.connection_pool, module, seconds, retry)
    return Single(node_class(module.Redis(connection_pool=pool), _name_of(pool), report))


def _for_a_pool(options, module):
    """A cluster's options, some of which only its own connections take."""
    own = dict(options)
    ssl = own.pop("ssl", False)
    own.pop("response_callbacks", None)
    own.pop("parser_class", None)
    if ssl and "connection_class" not in own:
        own["connection_class"] = module.connection.SSLConnection
    return own
