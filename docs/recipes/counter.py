#!/usr/bin/env python3
"""A counter that is right: nothing is lost, and what is sent twice is counted once.

    python3 counter.py 127.0.0.1:6379 orders
    python3 counter.py 127.0.0.1:6379 orders --by 3 --request 7f31

adds 1, and 3 unless the request 7f31 was counted before.
"""

import argparse
import sys
import time

import redis

from leader import connect, transaction

REMEMBERED_S = 24 * 3600


class Counter:
    def __init__(self, client, name):
        self._client, self._name = client, name

    def add(self, amount=1):
        """The new value. If the connection breaks before it comes, nobody knows whether it was counted:
        calling again may count twice. Where that matters, add_once."""
        return self._client.incrby(f"counter:{self._name}", amount)

    def add_once(self, request, amount=1, give_up_s=10):
        """The value; the request counts once, however often and by whomever it is sent.

        So this may be repeated after any failure, and repeats it by itself for `give_up_s` seconds.
        That a request was counted is remembered for REMEMBERED_S.
        """
        deadline = time.monotonic() + give_up_s
        while True:
            try:
                value = self._try_once(request, amount)
                if value is not None:
                    return value
            except (redis.ConnectionError, redis.TimeoutError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _try_once(self, request, amount):
        """None if another has sent the same request at the same time."""
        key, seen = f"counter:{self._name}", f"counter:{self._name}:seen:{request}"
        try:
            with transaction(self._client) as commands:
                commands.watch(seen)
                if commands.exists(seen):
                    return int(commands.get(key) or 0)
                commands.multi()
                commands.set(seen, 1, ex=REMEMBERED_S)
                commands.incrby(key, amount)
                return commands.execute()[1]
        except redis.WatchError:
            return None


def main():
    parser = argparse.ArgumentParser(description="Adds to a counter and prints its value.")
    parser.add_argument("address", help="host:port, or those of all nodes with commas")
    parser.add_argument("name")
    parser.add_argument("--by", type=int, default=1, help="how much (1); 0 prints the value")
    parser.add_argument("--request", help="counts once, however often it is sent")
    options = parser.parse_args()
    counter = Counter(connect(options.address), options.name)
    once = options.request is not None
    print(counter.add_once(options.request, options.by) if once else counter.add(options.by))
    return 0


if __name__ == "__main__":
    sys.exit(main())
