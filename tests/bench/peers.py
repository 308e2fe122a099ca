"""The servers that scripts/bench compares: each starts on fresh data and free ports of 127.0.0.1.

A peer is used as a context: it is up and has a leader inside, and is stopped, by process id, at the end.
All of them are at their defaults but for what stands here.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.request

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10


class Missing(Exception):
    """A program is not installed; the text says how to get it."""


_given_ports = set()


def free_port():
    """Never the same one twice; below the range from which systems take those of outgoing connections."""
    while True:
        port = random.randrange(20000, 30000)
        if port in _given_ports:
            continue
        _given_ports.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def eventually(what, condition):
    """The first result of the condition that is one."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.005)
    raise RuntimeError(f"no {what} within {START_TIMEOUT_S} s")


def ask(port, command):
    """A reply of the Redis protocol, a line or the text of a bulk string; empty if there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"{command}\r\n".encode())
            reply = connection.makefile("rb")
            line = reply.readline()
            return (reply.read(int(line[1:])) if line.startswith(b"$") else line).decode()
    except OSError:
        return ""


def info(port, section):
    """INFO of a server that speaks the Redis protocol, as a dictionary; empty while it does not answer."""
    text = ask(port, f"INFO {section}")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def memory_mib(pid):
    """What a process holds in memory."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))


class Peer:
    protocol = "resp"
    set_operation = "set"
    has_pipelines = True
    fails_over = False  # whether another node takes over by itself
    reads = True  # whether GET is measured
    writes = True  # whether SET is measured
    program = None
    package = None

    def __init__(self, data_dir):
        self.data_dir = data_dir
        self.commands = []  # of each process, with the name of its log
        self.processes = []
        self.port = None  # where the load goes: to the leader

    @classmethod
    def check(cls):
        if shutil.which(cls.program) is None:
            raise Missing(f"{cls.program} is not installed: apt-get install {cls.package}")

    @classmethod
    def version(cls):
        output = subprocess.run([cls.program, "--version"], capture_output=True, text=True, check=True)
        return output.stdout.splitlines()[0]

    def __enter__(self):
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self.data_dir.mkdir(parents=True)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def start(self):
        """Starts everything, and sets self.port once it serves."""
        raise NotImplementedError

    def run(self, name, command):
        self.commands.append((name, command))
        self.processes.append(self.started(name, command))

    def started(self, name, command):
        """One process, its output in a file; in a session of its own, so that Ctrl-C reaches only us."""
        with open(self.data_dir / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []

    def pids(self):
        return [process.pid for process in self.processes]

    def memory_mib(self):
        """What the largest node holds in memory."""
        return max(memory_mib(pid) for pid in self.pids())

    def cpu_seconds(self):
        """Of all processes together: fields 14 to 17 of /proc/PID/stat."""
        ticks = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat") as stat:
                ticks += sum(int(field) for field in stat.read().rsplit(")", 1)[1].split()[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def elections(self):
        """A number that grows with every election; None where there are none."""
        return None

    def leader(self):
        """The port of the node that leads now; None if nobody says so of itself."""
        raise NotImplementedError

    def write(self, port):
        """One small write; whether it was acknowledged."""
        raise NotImplementedError

    def failover_ms(self):
        """From kill -9 of the leader to the first write that another node acknowledged; it is started again."""
        node = self.ports.index(eventually("leader", self.leader))
        began = time.monotonic()
        self.processes[node].kill()
        eventually("write after the leader died", lambda: (leader := self.leader()) and self.write(leader))
        took = time.monotonic() - began
        self.processes[node].wait()
        self.processes[node] = self.started(*self.commands[node])
        return took * 1000


class Seshat(Peer):
    title = "Seshat, three nodes"
    program = None  # set by scripts/bench
    fails_over = True
    read_mode = "lease"
    nodes = 3
    flags = ()  # more of the daemon's

    @classmethod
    def check(cls):
        if not os.access(cls.program, os.X_OK):
            raise Missing(f"{cls.program} is not there: run `make`")

    def start(self):
        self.ports = [free_port() for _ in range(self.nodes)]
        self.peer_ports = [free_port() for _ in range(self.nodes)]
        members = ",".join(f"{i + 1}=127.0.0.1:{port}" for i, port in enumerate(self.peer_ports))
        for i in range(self.nodes):
            self.run(
                f"node-{i + 1}",
                [
                    self.program,
                    f"--node.id={i + 1}",
                    f"--node.client_addr=127.0.0.1:{self.ports[i]}",
                    f"--node.internal_addr=127.0.0.1:{self.peer_ports[i]}",
                    f"--node.data_dir={self.data_dir}/node-{i + 1}",
                    f"--cluster.initial_members={members}",
                    f"--raft.read_mode={self.read_mode}",
                    *self.flags,
                ],
            )
        self.port = eventually("leader", self.leader)

    def leader(self):
        for port in self.ports:
            if info(port, "raft").get("raft_group_1_role") == "leader":
                return port
        return None

    def write(self, port):
        return ask(port, "SET failover done").startswith("+OK")

    def elections(self):
        return max(int(info(port, "raft").get("raft_group_1_term", 0)) for port in self.ports)


class SeshatReadIndex(Seshat):
    title = "Seshat, read_mode = read-index"
    read_mode = "read-index"
    writes = False
    fails_over = False


class Redis(Peer):
    title = "Redis without persistence"
    program = "redis-server"
    package = "redis-server"
    append_only = "no"

    def start(self):
        self.port = self.start_one("redis", [])

    def start_one(self, name, extra):
        port = free_port()
        directory = self.data_dir / name
        directory.mkdir()
        self.run(
            name,
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
            + ["--save", "", "--appendonly", self.append_only, "--appendfsync", "always"]
            + extra,
        )
        eventually("answer of Redis", lambda: info(port, "server"))
        return port


class RedisAof(Redis):
    title = "Redis, AOF always"
    append_only = "yes"
    reads = False


class RedisReplicated(Redis):
    title = "Redis 1+2, AOF always, WAIT 1"
    append_only = "yes"
    set_operation = "set-wait"
    reads = False

    def start(self):
        self.port = self.start_one("redis", ["--repl-diskless-sync-delay", "0"])
        for name in ("replica-1", "replica-2"):
            self.start_one(name, ["--replicaof", "127.0.0.1", str(self.port)])
        eventually("replicas of Redis", self.replicas_are_online)

    def replicas_are_online(self):
        replication = info(self.port, "replication")
        return all("state=online" in replication.get(f"slave{i}", "") for i in range(2))


class Etcd(Peer):
    title = "etcd, three nodes"
    program = "etcd"
    package = "etcd-server"
    protocol = "etcd"
    has_pipelines = False
    fails_over = True

    def start(self):
        self.ports = [free_port() for _ in range(3)]
        peer_urls = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
        members = ",".join(f"node-{i + 1}={url}" for i, url in enumerate(peer_urls))
        for i, url in enumerate(peer_urls):
            client_url = f"http://127.0.0.1:{self.ports[i]}"
            self.run(
                f"node-{i + 1}",
                ["etcd", "--name", f"node-{i + 1}", "--data-dir", str(self.data_dir / f"node-{i + 1}")]
                + ["--listen-client-urls", client_url, "--advertise-client-urls", client_url]
                + ["--listen-peer-urls", url, "--initial-advertise-peer-urls", url]
                + ["--initial-cluster", members, "--initial-cluster-state", "new"],
            )
        self.port = eventually("leader of etcd", self.leader)

    def call(self, port, what, request):
        """One member's reply, by the JSON that etcd serves beside gRPC; None if there is none."""
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v3/{what}", json.dumps(request).encode())
        try:
            without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with without_proxy.open(request, timeout=1) as reply:
                return json.load(reply)
        except (OSError, ValueError):
            return None

    def leader(self):
        for port in self.ports:
            status = self.call(port, "maintenance/status", {})
            if status and status.get("leader", "0") == status["header"]["member_id"]:
                return port
        return None

    def write(self, port):
        return self.call(port, "kv/put", {"key": "ZmFpbG92ZXI=", "value": "ZG9uZQ=="}) is not None

    def elections(self):
        statuses = [self.call(port, "maintenance/status", {}) or {} for port in self.ports]
        return max(int(status.get("raftTerm", 0)) for status in statuses)


# In the order in which a round measures them.
PEERS = {
    "seshat": Seshat,
    "etcd": Etcd,
    "redis-wait": RedisReplicated,
    "redis-aof": RedisAof,
    "redis": Redis,
    "seshat-read-index": SeshatReadIndex,
}
