"""The same commands to two servers, and what of their replies has to be the same.

A mode says how two replies are compared. Everything is exact but for:

    set        an array whose order is free
    near:N     integers that are at most N apart, neither below 0
    when:N     the same for points of time; exact from the year 2065 on, for what is so far away was
               given as that point, not as a time from now
    kind       only the type, and whether it is nil; of errors also the first word
    keys       a map: the same keys in the same order, whatever the values (RESP2: a flat array)
    match:RE   both texts match the regular expression (Python's, searched in the bytes)
    float      numbers that are the same but for the rounding of a long double, without needless digits;
               or a number beyond what a double holds, which Seshat refuses (differences.txt)
    soon       asked again for up to 5 s, until both say the same: an expired key counts until it is
               removed, with Redis, too; in a transaction the same as kind
    scan       SCAN runs to its end; the keys that it returned, each once, as a set

Between MULTI and EXEC modes wait for the reply of EXEC.
"""

import math
import re
import time

from resp import CLOSED, QUEUED, Connection, encode, is_error, is_nil

FAR_S = 3_000_000_000
SCAN_CALLS = 10_000
SOON_S = 5
NO_FLOAT = ("-", b"ERR value is not a valid float")
INFINITE = ("-", b"ERR increment would produce NaN or Infinity")
_PLAIN = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")


def same(mode, left, right):
    if left == right and not mode.startswith("match:"):
        return True
    if mode.startswith("match:"):
        pattern = mode[len("match:") :].encode("latin-1")
        return left[0] == right[0] and _matches(pattern, left) and _matches(pattern, right)
    if mode == "float" and right == NO_FLOAT and _beyond_double(left):
        return True
    if CLOSED in (left, right) or left[0] != right[0]:
        return False
    if mode in ("kind", "soon"):
        if is_error(left):
            return left[1].split(b" ")[0] == right[1].split(b" ")[0]
        return is_nil(left) == is_nil(right)
    if is_error(left) or is_nil(left) or is_nil(right):
        return False
    if mode == "set":
        return left[0] in "*~" and _sorted(left[1]) == _sorted(right[1])
    if mode == "float":
        return left[0] == "$" and _PLAIN.fullmatch(right[1]) is not None and \
            math.isclose(float(left[1]), float(right[1]), rel_tol=1e-15)
    if mode.startswith(("near:", "when:")):
        return left[0] == ":" and _near(left[1], right[1], int(mode[5:]), mode[:4] == "when")
    if mode == "keys":
        return _keys(left) == _keys(right)
    return False


def _beyond_double(reply):
    return reply == INFINITE or (reply[0] == "$" and len(reply[1]) > 308)


def _sorted(elements):
    return sorted(elements, key=repr)


def _near(left, right, distance, points):
    far = FAR_S if distance < 1000 else FAR_S * 1000
    near = abs(left - right) <= distance and min(left, right) >= 0
    return near and not (points and max(left, right) >= far)


def _keys(reply):
    if reply[0] == "%":
        return [key for key, _ in reply[1]]
    return reply[1][::2] if reply[0] == "*" else reply


def _matches(pattern, reply):
    return isinstance(reply[1], bytes) and re.search(pattern, reply[1]) is not None


class Result:
    """Two replies, left is Redis', and whether they are the same where they have to be."""

    def __init__(self, left, right, agrees):
        self.left, self.right, self.agrees = left, right, agrees


class Both:
    """One connection to each of two servers."""

    def __init__(self, ports, protocol):
        self._queued = []  # modes of what is in the transaction
        self._sides = []
        try:
            for port in ports:
                self._sides.append(Connection(port, protocol))
        except BaseException:
            self.close()
            raise

    def close(self):
        for side in self._sides:
            side.close()

    def call(self, args, mode="exact", redis_args=None):
        """`redis_args` is what says the same to Redis, if it is not the same command."""
        if mode == "scan":
            left, right = (_scan(side, args) for side in self._sides)
            if QUEUED not in (left, right):
                return Result(left, right, same("set", left, right))
            mode = "kind"
        else:
            self._sides[0].send(*(redis_args or args))
            self._sides[1].send(*args)
            left, right = self.read()
        if mode == "soon" and QUEUED not in (left, right):
            left, right = self._soon(args, left, right)
            mode = "exact"
        return Result(left, right, self._judge(args, mode, left, right))

    def call_together(self, calls):
        """Results of several (args, mode, redis_args), sent in one piece before any reply is read."""
        left, right = self._sides
        left.send_bytes(b"".join(encode(redis_args or args) for args, _, redis_args in calls))
        right.send_bytes(b"".join(encode(args) for args, _, _ in calls))
        results = []
        for args, mode, _ in calls:
            left, right = self.read()
            results.append(Result(left, right, self._judge(args, mode, left, right)))
        return results

    def _soon(self, args, left, right):
        deadline = time.monotonic() + SOON_S
        while left != right and time.monotonic() < deadline:
            time.sleep(0.02)
            self.send(args)
            left, right = self.read()
        return left, right

    def call_bytes(self, data, mode="exact"):
        for side in self._sides:
            side.send_bytes(data)
        left, right = self.read()
        return Result(left, right, same(mode, left, right))

    def send(self, args):
        for side in self._sides:
            side.send(*args)

    def read(self):
        return [side.read() for side in self._sides]

    def _judge(self, args, mode, left, right):
        if QUEUED in (left, right):
            self._queued.append(mode)
            return left == right
        name = args[0].upper() if args else b""
        modes = self._queued
        if name in (b"EXEC", b"DISCARD", b"RESET"):
            self._queued = []
        if name == b"EXEC" and left[0] == right[0] == "*" and None not in (left[1], right[1]):
            if len(left[1]) == len(right[1]) == len(modes):
                return all(map(same, modes, left[1], right[1]))
        return same(mode, left, right)


def _scan(side, args):
    """All that SCAN returns from this cursor to the end, each key once; or the error."""
    found, args = set(), list(args)
    for _ in range(SCAN_CALLS):
        reply = side.call(*args)
        if reply[0] != "*" or len(reply[1] or []) != 2 or reply[1][1][0] != "*":
            return reply
        cursor, keys = reply[1]
        found.update(keys[1])
        if cursor == ("$", b"0"):
            return "*", sorted(found)
        args[1] = cursor[1]
    return "-", b"SCAN does not end"
