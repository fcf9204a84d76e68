"""Three nodes of deploy/patroni/patroni.yml: switchover and kill -9 under load, fence on."""
import json
import os
import signal
import subprocess
import urllib.request

import yaml

from support import (BIN, PRIVATE, Oracle, free_ports, is_, ok, processes_of, run, sql, start,
                     start_redis, until)

FILE = f"{PRIVATE}/src/deploy/patroni/patroni.yml"
NODES = ["db1", "db2", "db3"]
# Shorter than a cluster in production has them, so that a failover takes 20 seconds.
DCS = {"ttl": 20, "loop_wait": 2, "retry_timeout": 5}


class Node:
    def __init__(self, name, etcd, redis_port):
        self.name = name
        self.port, self.rest = free_ports(2)
        self.folder = os.path.abspath(name)
        os.makedirs(f"{self.folder}/socket", exist_ok=True)
        with open(FILE) as file:
            config = yaml.safe_load(file)
        self._here(config, etcd, redis_port)
        self.file = f"{self.folder}/patroni.yml"
        with open(self.file, "w") as file:
            yaml.safe_dump(config, file)
        self.process = None

    def _here(self, config, etcd, redis_port):
        """Only what belongs to a site is replaced: names, addresses, folders, rights."""
        address = f"127.0.0.1:{self.port}"
        rest = f"127.0.0.1:{self.rest}"
        config.update(name=self.name, etcd3={"hosts": etcd},
                      restapi={"listen": rest, "connect_address": rest})
        config["bootstrap"]["dcs"].update(DCS)
        parameters = config["bootstrap"]["dcs"]["postgresql"]["parameters"]
        parameters["uncache.redis_url"] = f"redis://127.0.0.1:{redis_port}"
        config["postgresql"].update(
            listen=address, connect_address=address, data_dir=f"{self.folder}/data", bin_dir=BIN,
            pg_hba=["local all all trust", "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust"])
        config["postgresql"]["parameters"]["unix_socket_directories"] = f"{self.folder}/socket"

    def start(self):
        self.process = start(["/usr/bin/patroni", self.file], f"{self.folder}/patroni.log",
                             cwd=self.folder)

    def kill(self):
        """As a machine that loses its power: Patroni, then PostgreSQL, at once."""
        with open(f"{self.folder}/data/postmaster.pid") as file:
            postmaster = int(file.readline())
        self.process.kill()
        self.process.wait()
        for process in [postmaster] + processes_of(postmaster):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def dsn(self, database="postgres"):
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"


def members(nodes):
    """Roles by name, as any node tells them."""
    for node in nodes:
        try:
            url = f"http://127.0.0.1:{node.rest}/cluster"
            with urllib.request.urlopen(url, timeout=3) as answer:
                told = json.load(answer)["members"]
            return {member["name"]: (member["role"], member["state"]) for member in told}
        except OSError:
            continue
    return {}


def leader(nodes):
    names = [name for name, (role, state) in members(nodes).items()
             if role == "leader" and state == "running"]
    found = [node for node in nodes if node.name in names]
    return found[0] if found and value(found[0], "SELECT NOT pg_is_in_recovery()") else None


def whole(nodes, number):
    """All run, and one of the standbys is synchronous."""
    told = members(nodes)
    running = [name for name, (_, state) in told.items() if state in ("running", "streaming")]
    return len(running) == number and any(role == "sync_standby" for role, _ in told.values())


def value(node, *statements):
    return sql(node.dsn(), *statements)


def new_leader(nodes, old):
    node = leader(nodes)
    return node if node and node is not old else None


def fence_on(nodes):
    return value(leader(nodes), "SELECT fence = 'on' AND state = 'connected' FROM uncache.stat")


def goes_on(oracle, what):
    """Commits, and fills of the new primary, go on."""
    commits, stored = oracle.commits, oracle.stored
    ok(f"{what}: commits go on", until(60, lambda: oracle.commits > commits + 100),
       oracle.errors[-3:])
    ok(f"{what}: fills are stored again", until(60, lambda: oracle.stored > stored + 20))


def check(nodes, oracle, what):
    ok(f"{what}: the fence is on there", until(60, fence_on, nodes),
       value(leader(nodes), "SELECT s::text FROM uncache.stat s"))
    goes_on(oracle, what)
    is_(f"{what}: no stale read of {oracle.hits} hits", oracle.stale[:5], [])
    is_(f"{what}: no commit of {oracle.commits} is lost", oracle.lost[:5], [])


def main():
    done = subprocess.run(["/usr/bin/patroni", "--validate-config", FILE], capture_output=True,
                          text=True)
    told = [line for line in (done.stdout + done.stderr).splitlines()
            # This machine is not that node; and what bootstrap has, `postgresql` may have instead.
            if line and not any(word in line for word in (
                "10.0.0.", "bin_dir", "data_dir", "not exist", "bootstrap.pg_hba"))]
    is_("patroni.yml is valid", told, [])

    redis_port, client_port, peer_port = free_ports(3)
    cache = start_redis(redis_port)
    etcd, peer = f"127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    start(["etcd", "--data-dir", "etcd", "--listen-client-urls", f"http://{etcd}",
           "--advertise-client-urls", f"http://{etcd}", "--listen-peer-urls", peer,
           "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
          "etcd.log")
    nodes = [Node(name, etcd, redis_port) for name in NODES]
    for node in nodes:
        node.start()
    if not ok("three nodes form a cluster", until(120, whole, nodes, 3), members(nodes)):
        return
    first = leader(nodes)
    value(first, "CREATE EXTENSION pg_uncache",
          "CREATE TABLE item (id int PRIMARY KEY, version int)",
          f"INSERT INTO item SELECT i, 0 FROM generate_series(1, {Oracle.ROWS}) i",
          "INSERT INTO item SELECT i, 0 FROM generate_series(101, 120) i",
          "SELECT uncache.attach('item', 'item:{id}', 'plain:{id}')")
    for node in nodes:
        ok(f"{node.name} has the library and the address",
           until(20, value, node, "SELECT current_setting('uncache.redis_url') LIKE '%:" +
                 f"{redis_port}' AND current_setting('shared_preload_libraries') = 'pg_uncache'"))

    hosts = "host=" + ",".join("127.0.0.1" for _ in nodes)
    ports = "port=" + ",".join(str(node.port) for node in nodes)
    primary = f"{hosts} {ports} user=postgres dbname=postgres target_session_attrs=read-write"
    # Readers of the primary, and of each node, whatever it is.
    oracle = Oracle(cache, primary, [primary] * 3 + [node.dsn() for node in nodes]).start()
    ok("the fence is on", until(60, fence_on, nodes))
    goes_on(oracle, "before")

    # In good order.
    run("/usr/bin/patronictl", "-c", first.file, "switchover", "--force",
        "--master", first.name, "shop")
    second = until(90, new_leader, nodes, first)
    ok("a switchover has another leader", second, members(nodes))
    check(nodes, oracle, "after the switchover")
    ok("the old primary is a standby", until(60, whole, nodes, 3), members(nodes))

    # Without any; and Redis hangs for a moment, so that the leader dies with a debt.
    owed = [f"item:{row}" for row in range(101, 121)]
    cache.mset({key: 0 for key in owed})
    oracle.redis_away = True
    cache.execute_command("CLIENT", "PAUSE", 4000, "ALL")
    value(second, "UPDATE item SET version = version + 1 WHERE id > 100")
    second.kill()
    is_("20 keys are not deleted when the leader is killed",
        until(20, lambda: cache.exists(*owed)), len(owed))
    others = [node for node in nodes if node is not second]
    third = until(120, new_leader, others, second)
    ok("kill -9 of the leader has another one", third, members(others))
    ok("its successor deletes them", until(60, lambda: cache.exists(*owed) == 0))
    ok("... and all else", until(60, lambda: value(third, "SELECT uncache.wait('5 s')")))
    oracle.redis_away = False
    check(others, oracle, "after kill -9")
    second.start()
    ok("the killed node comes back as a standby", until(120, whole, nodes, 3), members(nodes))
    check(nodes, oracle, "with three nodes again")

    oracle.finish()
    ok("all is delivered", until(60, value, leader(nodes), "SELECT uncache.wait('10 s')"))
    is_("Redis holds what the database holds", oracle.wrong(), [])
    is_("no stale read in all", oracle.stale[:5], [])
    ok(f"{oracle.commits} commits, {oracle.hits} hits, {oracle.stored} fills: enough to tell",
       min(oracle.commits, oracle.hits, oracle.stored) > 300)
    # Would the oracle see it?
    ok("plain readers are found to be stale", oracle.sees_plain_readers("plain:{}"))
    cache.set("item:1", 0)
    is_("a key that is not deleted would be found", [row for row, *_ in oracle.wrong()], [1])
    for node in nodes:
        node.process.terminate()
    for node in nodes:
        node.process.wait(60)


main()
