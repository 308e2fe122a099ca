#!/usr/bin/env python3
"""A lock that many processes on many machines can share, with fencing; like flock(1) for a cluster.

    python3 lock.py 127.0.0.1:6379 nightly -- ./backup.sh

runs ./backup.sh while it holds the lock `nightly`, with the fencing token in $FENCE. Ends as the
command ends, or with 75 when another holds the lock for longer than --wait seconds.
"""

import argparse
import os
import random
import subprocess
import sys
import time
import uuid

import redis

from leader import connect, transaction


class Lock:
    """One attempt of one holder. Not to be shared between threads."""

    def __init__(self, client, name, ttl_ms):
        self._client, self._ttl_ms = client, ttl_ms
        self._key, self._fence_key = f"lock:{name}", f"lock:{name}:fence"
        self._token = uuid.uuid4().hex  # tells this holder from all others

    def acquire(self):
        """The fencing token, larger than that of every earlier holder; None if another holds it.

        Both commands are one transaction, so the order of tokens is the order of holders.
        """
        commands = self._client.pipeline()
        commands.set(self._key, self._token, px=self._ttl_ms, nx=True)
        commands.incr(self._fence_key)
        taken, fence = commands.execute()
        return fence if taken else None

    def acquire_within(self, seconds):
        """Tries again until `seconds` have passed, at moments that spread the waiting apart."""
        deadline = time.monotonic() + seconds
        while True:
            fence = self.acquire()
            if fence is not None or time.monotonic() > deadline:
                return fence
            time.sleep(random.uniform(0.002, 0.02))

    def release(self):
        """False if the lock was no longer ours: it ran out, and others may have had it since."""
        return delete_if_equal(self._client, self._key, self._token)


def delete_if_equal(client, key, value):
    """DELEX is one command and one round trip. Redis before 8.4 lacks it: there WATCH does the same."""
    try:
        return client.execute_command("DELEX", key, "IFEQ", value) == 1
    except redis.ResponseError as error:
        if "unknown command" not in str(error):
            raise
    try:
        with transaction(client) as commands:
            commands.watch(key)
            if commands.get(key) != value.encode():
                return False
            commands.multi()
            commands.delete(key)
            return commands.execute() == [1]
    except redis.WatchError:
        return False


def main():
    parser = argparse.ArgumentParser(description="Runs a command while it holds a lock.")
    parser.add_argument("address", help="host:port, or those of all nodes with commas")
    parser.add_argument("name", help="of the lock")
    parser.add_argument("--ttl", type=float, default=60, help="seconds after which it is lost (60)")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for it (0)")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    lock = Lock(connect(options.address), options.name, int(options.ttl * 1000))
    fence = lock.acquire_within(options.wait)
    if fence is None:
        print(f"another holds {options.name}", file=sys.stderr)
        return 75
    try:
        return subprocess.run(options.command, env={**os.environ, "FENCE": str(fence)}).returncode
    finally:
        if not lock.release():
            print(f"{options.name} ran out before the command ended", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
