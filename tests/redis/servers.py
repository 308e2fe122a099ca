"""Starts what is compared, each on a free port of 127.0.0.1 and with nothing in it: a `redis-server`
and a Seshat of one node. `stop()` ends exactly the process that was started."""

import os
import random
import re
import shutil
import socket
import subprocess
import time

from resp import Connection

START_LIMIT_S = 20


def free_port():
    """Below the range that the system takes ports of outgoing connections from."""
    for port in random.SystemRandom().sample(range(10000, 30000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise OSError("found no free port")


class Server:
    def __init__(self, name, command, directory, port, executable=None, password=None):
        self.name, self.port, self.log = name, port, os.path.join(directory, f"{name}.log")
        self._password = password
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                command, executable=executable, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=directory,
            )
        try:
            self._await_writes()
        except BaseException:
            self.stop()
            raise

    def _await_writes(self):
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            if self._process.poll() is not None:
                raise OSError(f"{self.name} ended with {self._process.returncode}: see {self.log}")
            try:
                connection = Connection(self.port)
                if self._password:
                    connection.call("AUTH", self._password)
                reply = connection.call("SET", "started", "1")
                connection.call("DEL", "started")
                connection.close()
                if reply == ("+", b"OK"):
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise OSError(f"{self.name} takes no writes after {START_LIMIT_S} s: see {self.log}")
            time.sleep(0.02)

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(8)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def redis_executable():
    """Debian's redis-tools has the server, too, by another name: it goes by the name it is called with.
    Its package redis-server would start one on port 6379 with the machine."""
    return shutil.which("redis-server") or shutil.which("redis-check-rdb")


def redis_version():
    """Such as 7.0.15; None if there is no redis-server."""
    if not redis_executable():
        return None
    told = subprocess.run(
        ["redis-server", "--version"], executable=redis_executable(), capture_output=True, text=True
    )
    found = re.search(r"v=(\S+)", told.stdout)
    return found[1] if found else None


def redis_server(directory, *options, name="redis", password=None):
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    command += ["--appendonly", "no", "--cluster-enabled", "no", "--dir", directory, *options]
    command += ["--requirepass", password] if password else []
    return Server(name, command, directory, port, redis_executable(), password)


def seshat(directory, binary, password=None):
    port = free_port()
    command = [binary, "--data-dir", os.path.join(directory, "data")]
    command += ["--client-addr", f"127.0.0.1:{port}", "--limits.min_free_disk_mb", "0"]
    command += ["--client.requirepass", password] if password else []
    return Server("seshat", command, directory, port, password=password)
