#!/usr/bin/env python3
"""No more than so many in a window of time, over all processes and machines.

    python3 rate_limiter.py 127.0.0.1:6379 mail:alice 5 60

ends with 0 if alice may send a mail now (5 in 60 seconds), and with 1 if not, and says when.
"""

import argparse
import sys

from leader import connect


class RateLimiter:
    def __init__(self, client, limit, window_ms):
        self._client, self._limit, self._window_ms = client, limit, window_ms

    def ask(self, name):
        """(allowed?, the how-manieth in this window, milliseconds until the window ends).

        A window begins with the first request after the last window, by the clock of the store: what
        time the clients have does not matter. The three commands are one transaction, so the key
        can't run out between them, and no count is left behind without a time to live.
        """
        key = f"rate:{name}"
        transaction = self._client.pipeline()
        transaction.set(key, 0, px=self._window_ms, nx=True)
        transaction.incr(key)
        transaction.pttl(key)
        _, count, left_ms = transaction.execute()
        return count <= self._limit, count, left_ms


def main():
    parser = argparse.ArgumentParser(description="May NAME do it once more?")
    parser.add_argument("address", help="host:port, or those of all nodes with commas")
    parser.add_argument("name")
    parser.add_argument("limit", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    limiter = RateLimiter(connect(options.address), options.limit, int(options.seconds * 1000))
    allowed, count, left_ms = limiter.ask(options.name)
    if not allowed:
        print(f"no: again in {left_ms / 1000:.1f} s")
        return 1
    print(f"yes: {count} of {options.limit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
