#!/usr/bin/env python3
"""Jobs that workers on any machine share: each is done at least once, and by one worker at a time.

    python3 job_lease.py 127.0.0.1:6379 add thumbnails 'convert in.png -resize 10% out.png'
    python3 job_lease.py 127.0.0.1:6379 work

A worker leases a job, runs it, and takes it off the list. If the worker dies, the lease runs out, and
another does the job. A job that fails stays, and is tried again when its lease is over.
"""

import argparse
import subprocess
import sys
import time
import uuid

import redis

from leader import connect, transaction


class Jobs:
    """For one worker. job:NAME is what there is to do, lease:NAME who does it, done:NAME what came of it."""

    def __init__(self, client, lease_ms):
        self._client, self._lease_ms = client, lease_ms
        self._worker = uuid.uuid4().hex

    def add(self, name, work):
        """False if there is a job of that name."""
        return bool(self._client.set(f"job:{name}", work, nx=True))

    def lease(self):
        """(name, work) of a job that nobody else has for the next lease_ms; None if there is none."""
        for key in self._client.scan_iter(match="job:*", count=100):
            name = key.decode()[len("job:") :]
            if not self._client.set(f"lease:{name}", self._worker, px=self._lease_ms, nx=True):
                continue
            work = self._client.get(key)  # another may have finished it since SCAN saw it
            if work is not None:
                return name, work.decode()
            self.give_up(name)
        return None

    def finish(self, name, result):
        """Keeps the result and takes the job off the list, at once; False if the lease was lost before:
        then another has done the job, or will."""
        return self._if_mine(name, [("SET", f"done:{name}", result), ("DEL", f"job:{name}")])

    def give_up(self, name):
        """Others may have it at once."""
        return self._if_mine(name, [])

    def left(self):
        return sum(1 for _ in self._client.scan_iter(match="job:*", count=100))

    def result(self, name):
        return self._client.get(f"done:{name}")

    def _if_mine(self, name, then):
        """Runs the commands and ends the lease, in one transaction, if the lease is still ours."""
        try:
            with transaction(self._client) as commands:
                commands.watch(f"lease:{name}")
                if commands.get(f"lease:{name}") != self._worker.encode():
                    return False
                commands.multi()
                for command in then:
                    commands.execute_command(*command)
                commands.delete(f"lease:{name}")
                commands.execute()
                return True
        except redis.WatchError:
            return False


def work(jobs, poll_s=0.2):
    """Does jobs until there are none; the result of a job is its output."""
    while jobs.left():
        leased = jobs.lease()
        if leased is None:
            time.sleep(poll_s)
            continue
        name, command = leased
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE)
        if done.returncode != 0:
            print(f"{name} failed with {done.returncode}", file=sys.stderr)
        elif jobs.finish(name, done.stdout):
            print(f"{name} is done")
        else:
            print(f"{name} took longer than its lease", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description="A list of jobs that many workers share.")
    parser.add_argument("address", help="host:port, or those of all nodes with commas")
    parser.add_argument("--lease", type=float, default=60, help="seconds a job may take (60)")
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="a job: a name and a shell command")
    add.add_argument("name")
    add.add_argument("command")
    actions.add_parser("work", help="does jobs until there are none")
    options = parser.parse_args()
    jobs = Jobs(connect(options.address), int(options.lease * 1000))
    if options.action == "work":
        work(jobs)
        return 0
    if jobs.add(options.name, options.command):
        return 0
    print(f"there is a job {options.name}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
