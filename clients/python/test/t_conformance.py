"""The cases of clients/conformance, by Fence and psycopg."""
import base64
import contextlib
import json
import os
import re
import signal
import threading
import time

import psycopg

import tap
from pg_uncache import Fence

with open(os.path.join(os.environ["CONFORMANCE"], "cases.json")) as file:
    CASES = json.load(file)
KINDS = ("until", "readers", "tags", "transaction", "undefined", "bytes", "fetchMany", "fetchSql",
         "fetch", "sql", "redis", "signal", "counters")
NAMES = {"ttlMs": "ttl_ms", "leaseMs": "lease_ms", "redisTimeoutMs": "redis_timeout_ms"}


def connect(where):
    port = {"standby": tap.STANDBY_PORT, "pgbouncer": tap.PGBOUNCER_PORT}.get(where)
    more = {"port": port} if port else {}
    return psycopg.connect(autocommit=True, prepare_threshold=None, **more)


def with_params(sql, params):
    """$1 of the cases is %s here."""
    order = []

    def place(match):
        order.append(params[int(match[1]) - 1])
        return "%s"
    return re.sub(r"\$(\d+)", place, sql.replace("%", "%%") if params else sql), order


def first(connection, sql, params=()):
    sql, params = with_params(sql, list(params))
    cursor = connection.execute(sql, params or None)
    row = cursor.fetchone() if cursor.description else None
    return None if row is None else row[0]


def agrees(got, wanted):
    if isinstance(wanted, list):
        return isinstance(got, list) and len(got) == len(wanted) and all(map(agrees, got, wanted))
    if isinstance(wanted, dict):
        if "any" in wanted:
            return got is not None
        if "json" in wanted:
            return got is not None and json.loads(got) == wanted["json"]
        if "error" in wanted:
            return isinstance(got, Exception) and wanted["error"] in f"ERR {got}"
        return got == base64.b64decode(wanted["base64"])
    if isinstance(got, bytes) and isinstance(wanted, str):
        return got == wanted.encode()
    return got == wanted


class Case:
    def __init__(self, case):
        self.case, self.saved, self.session = case, {}, connect("primary")
        self.others, self.stopped = {}, False
        self.redis = tap.client()
        self.options = {NAMES[name]: value for name, value in
                        {**CASES["options"], **case.get("options", {})}.items()}
        self.client_session = self.connect()
        self.fence = self.make_fence(self.client_session, **self.options)

    def connect(self, where="primary"):
        return connect(where)

    def make_fence(self, snapshot, **options):
        return Fence(self.redis, snapshot=snapshot, **options)

    def word(self, word):
        return self.saved[word[1:]] if isinstance(word, str) and word.startswith("$") else word

    def run(self):
        try:
            for step in self.case["steps"]:
                trouble = self.step(step)
                if trouble:
                    return f"{json.dumps(step)}: {trouble}"
            return None
        finally:
            if self.stopped:
                os.kill(tap.REDIS_PID, signal.SIGCONT)
            for session in [self.session, self.client_session, *self.others.values()]:
                with contextlib.suppress(Exception):
                    session.close()

    def step(self, step):
        kind = next(name for name in KINDS if name in step)
        return getattr(self, "do_" + kind)(step)

    def on(self, step):
        where = step.get("on", "primary")
        if where == "primary":
            return self.session
        if where not in self.others:
            self.others[where] = connect(where)
        return self.others[where]

    def reply(self, step, got):
        if "save" in step:
            self.saved[step["save"]] = got[step["at"]] if "at" in step else got
        return None if "reply" not in step or agrees(got, step["reply"]) else f"got {got!r}"

    def do_until(self, step):
        deadline = time.monotonic() + step["seconds"]
        trouble = self.step(step["until"])
        while trouble and time.monotonic() < deadline:
            time.sleep(0.05)
            trouble = self.step(step["until"])
        return trouble

    def do_sql(self, step):
        params = [self.word(p).decode() if isinstance(self.word(p), bytes) else self.word(p)
                  for p in step.get("params", [])]
        try:
            got = first(self.on(step), step["sql"], params)
        except psycopg.Error as error:
            got = error
        if isinstance(got, Exception) and "reply" not in step:
            return f"{got}"
        if got is not None and not isinstance(got, (str, Exception)):
            got = str(got)
        return self.reply(step, got)

    def do_redis(self, step):
        try:
            got = self.redis.execute_command(*[self.word(word) for word in step["redis"]])
            got = int(got) if isinstance(got, bool) else got
        except Exception as error:
            got = error
        return self.reply(step, got)

    def client(self, step):
        """The fence and its session, where the step says."""
        where = step.get("on", "primary")
        if where == "primary":
            return self.fence, self.client_session
        key = "client " + where
        if key not in self.others:
            self.others[key] = self.connect(where)
        fence = self.make_fence(self.others[key], **self.options)
        fence.counters = self.fence.counters
        return fence, self.others[key]

    def do_fetch(self, step):
        fence, session = self.client(step)
        loads = []

        def load():
            loads.append(1)
            value = first(session, step["load"])
            for inner in step.get("during", []):
                trouble = self.step(inner)
                assert not trouble, trouble
            return value
        for sql in step.get("before", []):
            session.execute(sql)
        began = time.monotonic()
        try:
            got = fence.fetch(step["fetch"], load)
        except psycopg.Error as error:
            got = error
        took = (time.monotonic() - began) * 1000
        for sql in step.get("after", []):
            session.execute(sql)
        if step.get("fails"):
            return None if isinstance(got, Exception) else f"got {got!r}"
        if got != step["value"] or len(loads) != step["loads"]:
            return f"got {got!r} by {len(loads)} loads"
        return f"took {took:.0f} ms" if took > step.get("atMostMs", 1e9) else None

    def do_fetchMany(self, step):
        fence, session = self.client(step)
        loads = []

        def load(keys):
            loads.append(1)
            sql, params = with_params(step["load"], [list(keys)])
            return dict(session.execute(sql, params or None).fetchall())
        got = fence.fetch_many(step["fetchMany"], load)
        return None if got == step["value"] and len(loads) == step["loads"] else \
            f"got {got!r} by {len(loads)} loads"

    def do_fetchSql(self, step):
        sql, params = with_params(step["sql"], step.get("params", []))
        got = self.client(step)[0].fetch_sql(step["fetchSql"], sql, params)
        return None if got == step["value"] else f"got {got!r}"

    def do_transaction(self, step):
        def work(connection):
            return [first(connection, sql) for sql in step["statements"]][-1]
        try:
            got = self.client(step)[0].transaction(step["transaction"], work)
        except psycopg.Error as error:
            got = error
        if step.get("fails"):
            return None if isinstance(got, Exception) else f"got {got!r}"
        return None if got == step["value"] else f"got {got!r}"

    def do_tags(self, step):
        inner = {name: step[name] for name in ("load", "during", "value", "loads") if name in step}
        return self.client(step)[0].tags(
            step["tags"], lambda nonce: self.do_fetch({"fetch": f"{step['page']}:{nonce}",
                                                       **inner}))

    def do_undefined(self, step):
        def load():
            return
        try:
            got = self.fence.fetch(step["undefined"], load)
        except Exception:
            got = None
        there = self.redis.get(step["undefined"])
        return None if got is None and there != b"" else f"got {got!r}, {there!r}"

    def do_bytes(self, step):
        bytes_ = base64.b64decode(step["base64"])
        fence = self.make_fence(self.client_session, encode=bytes, decode=bytes, **self.options)
        got = [fence.fetch(step["bytes"], lambda: bytes_) for _ in range(2)]
        return None if got == [bytes_, bytes_] and fence.stats["hit"] == 1 else f"got {got!r}"

    def do_readers(self, step):
        loads, got, sessions = [], [], []

        def load():
            loads.append(1)
            time.sleep(0.05)
            with connect("primary") as session:
                return first(session, step["load"])

        # Each reader has a session of its own; a psycopg connection serves one at a time.
        def snapshot(token):
            with connect("primary") as session:
                return first(session, "SELECT uncache.snapshot($1)", [token])
        fence = self.make_fence(snapshot, **self.options)
        barrier = threading.Barrier(step["readers"])

        def reader():
            barrier.wait()
            got.append(fence.fetch(step["fetch"], load))
        threads = [threading.Thread(target=reader) for _ in range(step["readers"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return None if got == [step["value"]] * step["readers"] and \
            len(loads) <= step["loadsAtMost"] else f"got {got!r} by {len(loads)} loads"

    def do_signal(self, step):
        self.stopped = step["signal"] == "STOP"
        os.kill(tap.REDIS_PID, signal.SIGSTOP if self.stopped else signal.SIGCONT)

    def do_counters(self, step):
        got = self.fence.stats
        wrong = {name: got[name] for name, n in step["counters"].items() if got[name] != n}
        return f"got {wrong!r}" if wrong else None


def knows_leases():
    try:
        tap.client().fcall("uncache_get", 1, "lease?", 1000)
        return True
    except Exception:
        return False


def all_cases(title, kind):
    has = {"concurrency", "standby", "pgbouncer",
           "signal"} | ({"lease"} if knows_leases() else set())
    with tap.connect() as session:
        for sql in CASES["setup"]:
            session.execute(sql)
        for case in CASES["cases"]:
            what = f"{title}conformance: {case['name']}"
            lacks = set(case.get("needs", [])) - has
            if lacks:
                tap.skip(what, f"no {', '.join(lacks)}")
                continue
            for sql in CASES["reset"]:
                session.execute(sql)
            # A record that is full of writers is born again by the next one, which voids tokens.
            for record in tap.client().scan_iter("uncache:{conf:*"):
                tap.client().delete(record)
            trouble = kind(case).run()
            tap.ok(trouble is None, what, trouble)


if __name__ == "__main__":
    tap.run(lambda: all_cases("", Case))
