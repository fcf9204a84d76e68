"""What the tests of this folder share: TAP, servers on the loopback, an oracle of all commits."""
import os
import random
import socket
import subprocess
import sys
import threading
import time

import psycopg2
import redis

PRIVATE = os.environ["PRIVATE"]
BIN = os.path.dirname(os.environ["PG_CONFIG"])


def ok(name, passed, *why):
    print(("ok - " if passed else "not ok - ") + name, flush=True)
    if not passed:
        for line in why:
            print("# " + str(line).replace("\n", "\n# "), flush=True)
    return passed


def is_(name, got, expected):
    return ok(name, got == expected, f"got      {got!r}", f"expected {expected!r}")


def until(seconds, condition, *arguments):
    """Polls until the condition is true; an error counts as not yet.  Returns its last value."""
    deadline, value = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            value = condition(*arguments)
        except Exception as error:  # a server that starts or fails over
            value = None
            until.error = error
        if value:
            return value
        time.sleep(0.1)
    return value


def free_ports(number):
    """Ports that nobody has; they are below those that the system gives away by itself."""
    ports = []
    while len(ports) < number:
        port = random.randrange(12000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                ports.append(port)
            except OSError:
                pass
    return ports


def start(command, log, **options):
    with open(log, "ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                **options)


def run(*command, **options):
    """Returns what the command prints; an error has it in its text."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def start_redis(port):
    start(["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "",
           "--loglevel", "warning"], "redis.log")
    client = redis.Redis(port=port, socket_timeout=2, socket_connect_timeout=2)
    if not until(10, client.ping):
        sys.exit("Redis does not answer")
    return client


def processes_of(parent):
    """The children of a process, and theirs, by /proc."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                if int(stat.read().rsplit(")", 1)[1].split()[1]) == parent:
                    found += [int(entry)] + processes_of(int(entry))
        except OSError:
            pass
    return found


class Server:
    """A PostgreSQL of its own, with the library, on a port of the loopback."""

    def __init__(self, folder, *lines, make=True):
        self.folder, self.port = os.path.abspath(folder), free_ports(1)[0]
        self.lines = lines
        if make:
            run(f"{BIN}/initdb", "-D", self.folder, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                "--no-locale", "--no-sync")

    def start(self):
        with open(f"{self.folder}/postgresql.conf", "a") as conf:
            print(f"port = {self.port}", "listen_addresses = '127.0.0.1'",
                  f"unix_socket_directories = '{PRIVATE}/sock'", "fsync = off",
                  "shared_preload_libraries = 'pg_uncache'", *self.lines, sep="\n", file=conf)
        self._control("start")
        return self

    def stop(self):
        self._control("stop", "-m", "fast")

    def _control(self, *what):
        # A server that stays behind must not hold a pipe.
        done = subprocess.run([f"{BIN}/pg_ctl", "-D", self.folder, "-l", f"{self.folder}.log", "-w",
                               *what], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode != 0:
            with open(f"{self.folder}.log") as log:
                raise RuntimeError(f"pg_ctl {what}: {log.read()[-2000:]}")

    def dsn(self, database="postgres"):
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def sql(self, *statements, database="postgres"):
        """The first column of the first row of the last, or None."""
        return sql(self.dsn(database), *statements)


def sql(dsn, *statements):
    db = psycopg2.connect(dsn, connect_timeout=5)
    try:
        db.autocommit = True
        with db.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        db.close()


class Oracle:
    """Writers and fenced readers of a table, and what they may find.

    Each row has one writer.  It notes the version of every commit that returned: in `promised`
    if it returned without a WARNING, so that Redis has answered for the key, and in `committed` in
    any case.  A reader that finds an older version in Redis than was promised when it began has
    found a stale one.  In the end Redis holds for each row what the database holds, or nothing.
    Plain readers, who store without the fence, show that the oracle sees what it looks for.

    While Redis is away only the first COMMIT of each session waits and warns; the test says so by
    `redis_away`, and nothing is promised meanwhile.
    """

    ROWS = 24

    def __init__(self, cache, primary, readers, key="item:{}", table="item", plain=False):
        self.cache, self.primary, self.readers = cache, primary, readers
        self.table, self.key, self.plain = table, key, plain
        self.promised = [0] * (self.ROWS + 1)
        self.committed = [0] * (self.ROWS + 1)
        self.commits = self.hits = self.stored = 0
        self.redis_away = False
        self.stale, self.lost, self.errors = [], [], []
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.threads = []

    def start(self, writers=3):
        for number in range(writers):
            self._thread(self._write, [row for row in range(1, self.ROWS + 1)
                                       if row % writers == number])
        for dsn in self.readers:
            self._thread(self._read, dsn)
        return self

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)

    def sees_plain_readers(self, key):
        """The same with plain readers, under keys of their own."""
        plain = Oracle(self.cache, self.primary, [self.primary] * 6, key, self.table, True)
        plain.committed, plain.promised = self.committed[:], self.promised[:]
        plain.start()
        until(60, lambda: plain.stale)
        plain.finish()
        return len(plain.stale)

    def wrong(self):
        """Rows for which Redis holds something else than the database."""
        with psycopg2.connect(self.primary) as db, db.cursor() as cursor:
            cursor.execute(f"SELECT id, version FROM {self.table}")
            rows = cursor.fetchall()
        found = []
        for row, version in rows:
            cached = self.cache.get(self.key.format(row))
            if cached is not None and int(cached) != version:
                found.append((row, version, int(cached)))
        return found

    def _thread(self, target, *arguments):
        thread = threading.Thread(target=self._until_stopped, args=(target, *arguments),
                                  daemon=True)
        thread.start()
        self.threads.append(thread)

    def _until_stopped(self, work, *arguments):
        """A session after the other: each ends with the server that it is connected to."""
        while not self.stop.is_set():
            try:
                work(*arguments)
            except (psycopg2.Error, redis.RedisError) as error:
                self.errors.append(str(error))
                time.sleep(0.2)

    def _write(self, rows):
        db = psycopg2.connect(self.primary, connect_timeout=3)
        db.autocommit = True
        try:
            with db.cursor() as cursor:
                for row in rows:  # the last commit of the session before may have gone either way
                    cursor.execute(f"SELECT version FROM {self.table} WHERE id = %s", [row])
                    version = cursor.fetchone()[0]
                    if version < self.committed[row]:
                        self.lost.append((row, self.committed[row], version))
                    self.committed[row] = version
                while not self.stop.is_set():
                    self._commit(db, cursor, random.choice(rows))
                    time.sleep(random.random() * 0.02)
        finally:
            db.close()

    def _commit(self, db, cursor, row):
        away = self.redis_away
        del db.notices[:]
        cursor.execute(f"UPDATE {self.table} SET version = version + 1 WHERE id = %s"
                       " RETURNING version", [row])
        version = cursor.fetchone()[0]
        self.committed[row] = version
        if not (away or self.redis_away or any("WARNING" in notice for notice in db.notices)):
            self.promised[row] = version
        with self.lock:
            self.commits += 1

    def _read(self, dsn):
        db = psycopg2.connect(dsn, connect_timeout=3)
        db.autocommit = True
        try:
            with db.cursor() as cursor:
                while not self.stop.is_set():
                    self._look(cursor, random.randint(1, self.ROWS))
                    time.sleep(random.random() * 0.01)
        finally:
            db.close()

    def _look(self, cursor, row):
        key, promised = self.key.format(row), self.promised[row]
        hit = self.cache.get(key)
        if hit is not None:
            with self.lock:
                self.hits += 1
            if int(hit) < promised:
                self.stale.append((row, promised, int(hit)))
            return
        if self.plain:
            cursor.execute(f"SELECT version FROM {self.table} WHERE id = %s", [row])
            version = cursor.fetchone()[0]
            time.sleep(random.random() * 0.02)
            self.cache.set(key, version)
            return
        token = (self.cache.execute_command("FCALL", "uncache_get", 1, key) + [None])[1]
        if token is None:
            return
        cursor.execute("SELECT uncache.snapshot(%s),"
                       f" (SELECT version FROM {self.table} WHERE id = %s)", [token.decode(), row])
        snapshot, version = cursor.fetchone()
        time.sleep(random.random() * 0.02)
        if snapshot is not None and self.cache.execute_command(
                "FCALL", "uncache_set", 1, key, snapshot, 600000, version):
            with self.lock:
                self.stored += 1
