"""Random commands to Redis and to Seshat: over few keys, so that they meet each other; with options and
values that are right and wrong; from two connections, with WATCH, MULTI and EXEC between each other.

A round begins with empty servers, and all of it follows from the seed and the round's number. Time only
comes in where it decides nothing: times long past and far ahead, times from now that no two commands
share, and keys that live for a moment, and after which both servers wait until it is over.

In each third round commands are sent several at a time.

Seshat adds decimals where Redis adds long doubles: where only their rounding differs, both go on with
Redis' number. KEYS, SCAN and RANDOMKEY are not in transactions: see differences.txt.

DELEX, and SET with IFEQ and IFNE, came after Redis 7: there Redis gets a script that does the same.

What differs is cut down to the commands that are needed for it, by running parts of the round again.
"""

import random
import time

from comparison import Both
from resp import QUEUED, Connection, command_text, is_error, is_nil, show

ROUND_COMMANDS = 150
CONNECTIONS = 2
TOGETHER = 8
SHORT_MS, WAIT_S = 15, 0.06
SHRINK_LIMIT_S = 30

KEYS = [b"a", b"b", b"c", b"key:1", b"\x00 k", b""]
TEXTS = [b"", b"x", b"hello", b"\x00\xff\r\n", b"abc" * 15, b"y" * 44, b"y" * 45, b" 1", b"1 ", b"1.5e"]
INTEGERS = [b"0", b"1", b"-1", b"7", b"-12", b"100", b"9223372036854775807", b"-9223372036854775808"]
NO_INTEGERS = [b"9223372036854775808", b"-0", b"01", b"+1", b"1.0", b"abc", b"", b" 1", b"0x1"]
FLOATS = [b"0.1", b"-0.5", b"1e3", b"2.25", b"3.0", b"1e-7", b"5e17", b".5", b"-1e20", b"0.3333333333"]
NO_FLOATS = [b"abc", b"", b"nan", b"inf", b"1,5", b"1.5 ", b" 2", b"--1"]
FAR_S = [4102444800, 4102444801, 4102444805, 5000000000]
PAST_S = [1, 1000, -1, 0, 1600000000]
PATTERNS = [b"*", b"a", b"[a-b]", b"key:*", b"?", b"", b"*1", b"[^a]", b"nothing*"]
DELETING = {b"DEL", b"UNLINK", b"GETDEL", b"RENAME", b"RENAMENX", b"EXPIRE", b"PEXPIRE", b"EXPIREAT"}
DELETING |= {b"PEXPIREAT", b"GETEX", b"FLUSHALL", b"FLUSHDB", b"SET", b"DELEX", b"EXEC", b"COPY", b"PSETEX"}
ALONE, NOT_ALONE = {b"KEYS", b"SCAN", b"RANDOMKEY"}, b"ERR Command not allowed inside a transaction"
ENDING = {b"EXEC", b"DISCARD", b"UNWATCH"}

IF = "local v = redis.call('GET', KEYS[1]) if %s then return redis.call(%s) end return %s"
DELEX_IF = {
    b"IFEQ": IF % ("v == ARGV[1]", "'DEL', KEYS[1]", "0"),
    b"IFNE": IF % ("v and v ~= ARGV[1]", "'DEL', KEYS[1]", "0"),
}
SET_IF = {
    b"IFEQ": IF % ("v == ARGV[1]", "'SET', KEYS[1], ARGV[2]", "false"),
    b"IFNE": IF % ("v ~= ARGV[1]", "'SET', KEYS[1], ARGV[2]", "false"),
}


class Step:
    """A command, and how its replies are compared. `wait_s` is slept through once it was answered."""

    def __init__(self, connection, args, mode="exact", wait_s=0.0, redis_args=None):
        self.connection, self.mode, self.wait_s = connection, mode, wait_s
        self.args = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        self.redis_args = redis_args
        self.name = self.args[0].upper()

    def __str__(self):
        at = f"@{self.connection} " if self.connection != 1 else ""
        how = f"~{self.mode} " if self.mode != "exact" else ""
        wait = f"\n!sleep {self.wait_s}" if self.wait_s else ""
        return f"{how}{at}{command_text(self.args)}{wait}"


class Generator:
    """The units of a round: lists of steps that belong together, as a key that lives for a moment and
    the look at it when it is gone."""

    def __init__(self, seed, together=False):
        self._random = random.Random(seed)
        self._together, self._connection = together, 1
        self._in_multi = [False] * (CONNECTIONS + 1)
        self._distinct = 0

    def units(self, count):
        return [self._unit() for _ in range(count)]

    def _unit(self):
        if not self._together or self._one_in(8):  # what goes together goes by one connection
            self._connection = self._random.choice([1, 1, 2])
        connection = self._connection
        if self._one_in(6 if not self._in_multi[connection] else 5):
            return [self._transaction_step(connection)]
        if not self._in_multi[connection] and self._one_in(60):
            return self._short_life(connection)
        if not self._in_multi[connection] and self._one_in(60):
            return self._no_life(connection)
        return [self._command(connection)]

    # ---- transactions

    def _transaction_step(self, connection):
        pick = self._random.random()
        if self._in_multi[connection]:
            if pick < 0.75:
                self._in_multi[connection] = False
                return Step(connection, [b"EXEC"])
            if pick < 0.83:
                self._in_multi[connection] = False
                return Step(connection, [b"DISCARD"])
            if pick < 0.88:
                return Step(connection, [b"UNWATCH"])
            if pick < 0.92:
                return Step(connection, [b"MULTI"])
            if pick < 0.96:
                return Step(connection, [b"WATCH", self._key()])
            return Step(connection, self._random.choice([[b"NOSUCH", b"x"], [b"GET"], [b"INCRBY", b"a"]]))
        if pick < 0.5:
            self._in_multi[connection] = True
            return Step(connection, [b"MULTI"])
        if pick < 0.9:
            return Step(connection, [b"WATCH", *self._keys(1, 2)])
        return Step(connection, [self._random.choice([b"UNWATCH", b"EXEC", b"DISCARD"])])

    # ---- keys that die

    def _short_life(self, connection):
        key = self._key()
        command = self._random.choice(
            [
                [b"SET", key, self._value(), b"PX", SHORT_MS],
                [b"PSETEX", key, SHORT_MS, self._value()],
                [b"PEXPIRE", key, SHORT_MS],
                [b"GETEX", key, b"PX", SHORT_MS],
            ]
        )
        return [Step(connection, command, wait_s=WAIT_S), Step(connection, [b"EXISTS", key])]

    def _no_life(self, connection):
        key = self._key()
        past = self._random.choice([[b"EXAT", 1], [b"PXAT", 1], [b"EXAT", 1600000000]])
        option = self._random.choice([[], [b"NX"], [b"XX"], [b"GET"]])
        command = [b"SET", key, self._value(), *past, *option]
        return [Step(connection, command), Step(connection, [b"EXISTS", key])]

    # ---- everything else

    def _command(self, connection):
        commands = _COMMANDS if self._in_multi[connection] else _COMMANDS + _OUTSIDE
        step = self._random.choice(commands)(self)
        args, mode, redis_args = step if isinstance(step, tuple) else (step, "exact", None)
        args = list(args)
        if redis_args is None and self._one_in(80):  # one argument too many or too few
            args = [*args, b"extra"] if self._one_in(2) or len(args) == 1 else args[:-1]
        if self._one_in(10):
            args[0] = args[0].lower()
        return Step(connection, args, mode, redis_args=redis_args)

    def _one_in(self, n):
        return self._random.randrange(n) == 0

    def _key(self):
        return self._random.choice(KEYS)

    def _keys(self, least, most):
        return [self._key() for _ in range(self._random.randint(least, most))]

    def _value(self):
        pools = [TEXTS, INTEGERS, INTEGERS, FLOATS, NO_INTEGERS, [b"%d" % self._random.randrange(1000)]]
        return self._random.choice(self._random.choice(pools))

    def _integer(self):
        return self._random.choice(NO_INTEGERS if self._one_in(12) else INTEGERS)

    def _float(self):
        return self._random.choice(NO_FLOATS if self._one_in(12) else FLOATS + INTEGERS[:6])

    def _index(self):
        if self._one_in(25):
            return self._random.choice([*NO_INTEGERS, b"9223372036854775807", b"-9223372036854775808"])
        return self._random.randint(-12, 40)

    def _seconds(self):
        """From now, and as no other command has it: which of two is later is never a matter of luck."""
        self._distinct += 1
        return 1000 + 50 * self._distinct

    def _time_option(self, word):
        """EX, PX, EXAT, PXAT with a time ahead, or one that is wrong."""
        if self._one_in(12):
            return [word, self._random.choice([b"0", b"-1", b"abc", b"9223372036854775808", b"1.5", b""])]
        far = self._random.choice(FAR_S)
        return [word, {b"EX": self._seconds, b"PX": lambda: self._seconds() * 1000,
                       b"EXAT": lambda: far, b"PXAT": lambda: far * 1000 + 123}[word]()]

    def set(self):
        args = [b"SET", self._key(), self._value()]
        options = self._random.choice([[], [], [b"NX"], [b"XX"], [b"GET"], [b"NX", b"GET"], [b"GET", b"XX"]])
        timed = self._random.choice([None, None, b"KEEPTTL", b"EX", b"PX", b"EXAT", b"PXAT"])
        args += options
        if timed == b"KEEPTTL":
            args.append(timed)
        elif timed:
            args += self._time_option(timed)
        if self._one_in(15):
            args.append(self._random.choice([b"NX", b"XX", b"KEEPTTL", b"PERSIST", b"EX", b"NOSUCH"]))
        if self._one_in(5):
            args[3:] = [arg.lower() if isinstance(arg, bytes) else arg for arg in args[3:]]
        return args

    def set_if(self):
        key, value, expected = self._key(), self._value(), self._value()
        word = self._random.choice([b"IFEQ", b"IFNE"])
        redis_args = [b"EVAL", SET_IF[word], b"1", key, expected, value]
        return [b"SET", key, value, word, expected], "exact", redis_args

    def delex(self):
        key, expected = self._key(), self._value()
        if self._one_in(6):
            return [b"DELEX", key], "exact", [b"DEL", key]
        word = self._random.choice([b"IFEQ", b"IFNE"])
        return [b"DELEX", key, word, expected], "exact", [b"EVAL", DELEX_IF[word], b"1", key, expected]

    def getex(self):
        args = [b"GETEX", self._key()]
        option = self._random.choice([None, b"PERSIST", b"EX", b"PX", b"EXAT", b"PXAT", b"past", b"wrong"])
        if option == b"past":
            return [*args, b"EXAT", 1]
        if option == b"wrong":
            return [*args, self._random.choice([b"KEEPTTL", b"NX", b"EX", b"NOSUCH"])]
        if option == b"PERSIST":
            return [*args, option]
        return args + self._time_option(option) if option else args

    def setex(self):
        unit = self._random.choice([1, 1000])
        amount = self._seconds() * unit
        if self._one_in(8):
            amount = self._random.choice([b"0", b"-5", b"abc", b"9223372036854775807", b""])
        return [b"SETEX" if unit == 1 else b"PSETEX", self._key(), amount, self._value()]

    def expire(self):
        name, unit, absolute = self._random.choice(
            [(b"EXPIRE", 1, False), (b"PEXPIRE", 1000, False), (b"EXPIREAT", 1, True),
             (b"PEXPIREAT", 1000, True)]
        )
        when = self._random.choice(FAR_S) * unit if absolute else self._seconds() * unit
        if self._one_in(6):
            when = self._random.choice(PAST_S if absolute else [0, -1, -1000])
        elif self._one_in(15):
            when = self._random.choice([b"abc", b"9223372036854775808", b"1.5", b""])
        options = self._random.choice([[], [], [b"NX"], [b"XX"], [b"GT"], [b"LT"], [b"XX", b"GT"],
                                       [b"XX", b"LT"]])
        if self._one_in(20):
            options = self._random.choice([[b"NX", b"XX"], [b"GT", b"LT"], [b"NX", b"GT"], [b"NOSUCH"]])
        return [name, self._key(), when, *options]

    def age(self):
        name, mode = self._random.choice(
            [(b"TTL", "near:1"), (b"PTTL", "near:1000"), (b"EXPIRETIME", "when:1"),
             (b"PEXPIRETIME", "when:1000")]
        )
        return [name, self._key()], mode, None

    def mset(self):
        name = self._random.choice([b"MSET", b"MSETNX"])
        pairs = [part for key in self._keys(1, 3) for part in (key, self._value())]
        return [name, *pairs]

    def many_keys(self):
        names = [b"DEL", b"UNLINK", b"EXISTS", b"TOUCH", b"MGET", b"MGET"]
        return [self._random.choice(names), *self._keys(1, 3)]

    def one_key(self):
        names = [b"GET", b"GET", b"GET", b"STRLEN", b"TYPE", b"GETDEL", b"INCR", b"DECR", b"PERSIST"]
        return [self._random.choice(names), self._key()]

    def key_value(self):
        return [self._random.choice([b"SETNX", b"GETSET", b"APPEND"]), self._key(), self._value()]

    def add(self):
        return [self._random.choice([b"INCRBY", b"DECRBY"]), self._key(), self._integer()]

    def add_float(self):
        return [b"INCRBYFLOAT", self._key(), self._float()], "float", None

    def range(self):
        name = self._random.choice([b"GETRANGE", b"GETRANGE", b"SUBSTR"])
        return [name, self._key(), self._index(), self._index()]

    def set_range(self):
        return [b"SETRANGE", self._key(), self._index(), self._random.choice([b"", b"x", b"12", b"hello"])]

    def move(self):
        name = self._random.choice([b"RENAME", b"RENAMENX", b"COPY", b"COPY"])
        replace = [b"REPLACE"] if name == b"COPY" and self._one_in(2) else []
        return [name, self._key(), self._key(), *replace]

    def list(self):
        return [b"KEYS", self._random.choice(PATTERNS)], "set", None

    def scan(self):
        args = [b"SCAN", b"0"]
        if self._one_in(2):
            args += [b"MATCH", self._random.choice(PATTERNS)]
        if self._one_in(2):
            args += [b"COUNT", self._random.choice([b"1", b"2", b"100", b"0", b"abc"])]
        if self._one_in(3):
            args += [b"TYPE", self._random.choice([b"string", b"list"])]
        return args, "scan", None

    def some_key(self):
        return [b"RANDOMKEY"], "kind", None

    def size(self):
        return [b"DBSIZE"], "soon", None

    def flush(self):
        return [self._random.choice([b"FLUSHALL", b"FLUSHDB"])] if self._one_in(6) else self.one_key()


_G = Generator
_COMMANDS = [_G.set] * 8 + [_G.one_key] * 6 + [_G.many_keys] * 4 + [_G.key_value] * 4 + [_G.expire] * 6
_COMMANDS += [_G.age] * 4 + [_G.getex] * 3 + [_G.setex, _G.setex, _G.mset, _G.mset, _G.add, _G.add]
_COMMANDS += [_G.range, _G.range, _G.set_range, _G.set_range, _G.move, _G.move]
_COMMANDS += [_G.set_if, _G.delex, _G.size, _G.flush]
_OUTSIDE = [_G.add_float, _G.add_float, _G.list, _G.scan, _G.some_key]


def batches(steps, together):
    """Each step alone; or several of one connection, of which none has to be looked at in between."""
    batch = []
    for step in steps:
        alone = step.name == b"WATCH" or step.wait_s or step.mode in ("scan", "float", "soon")
        full = len(batch) == TOGETHER or not together or alone
        if batch and (full or batch[0].connection != step.connection):
            yield batch
            batch = []
        batch.append(step)
        if alone:
            yield batch
            batch = []
    if batch:
        yield batch


class Found:
    """Where two servers part: the steps so far, and the replies to the last of them."""

    def __init__(self, steps, result):
        self.steps, self.result = steps, result

    def text(self):
        lines = "\n".join(f"    {line}" for step in self.steps for line in str(step).split("\n"))
        replies = f"    redis:  {show(self.result.left)}\n    seshat: {show(self.result.right)}"
        return f"{lines}\n{replies}"


class RandomTest:
    """`same_commands` is for two Redis: both get the scripts in place of newer commands."""

    def __init__(self, ports, differences, same_commands=False):
        self._ports, self._same_commands = ports, same_commands
        self._differences = [one for one in differences if one.family is None]
        self.commands = self.allowed = 0

    def run_round(self, seed, number, count=ROUND_COMMANDS):
        """None, or where the servers parted: (as it was found, as it is after cutting down)."""
        together = number % 3 == 2
        units = Generator(f"{seed}/{number}", together).units(count)
        protocol = 2 + number % 2
        found = self._run(units, protocol, together, counting=True)
        return found and (found, self._shrink(units, protocol, together) or found)

    def _run(self, units, protocol, together, counting=False):
        connections = [Both(self._ports, protocol) for _ in range(CONNECTIONS + 1)]
        observer = Connection(self._ports[0])
        watching = Watching(observer)
        try:
            connections[0].call([b"FLUSHALL"])
            done = []
            for batch in batches([step for unit in units for step in unit], together):
                watching.before(batch[0])
                self.commands += counting * len(batch)
                for step, result in zip(batch, self._call(connections, batch)):
                    done.append(step)
                    rounded = step.mode == "float" and result.left != result.right
                    if result.agrees and rounded and result.left[0] == "$":
                        connections[0].call([b"SET", step.args[1], result.left[1], b"KEEPTTL"])
                    if not result.agrees and not self._documented(step, protocol, result):
                        if step.name in ALONE and result.right[1] == NOT_ALONE:
                            return None  # what is left of a round from which EXEC was cut out
                        if watching.may_fail(step, result):
                            self.allowed += counting
                            return None  # from here on the two have done different things
                        return Found(done, result)
                    watching.after(step, result)
                    time.sleep(step.wait_s)
            return None
        finally:
            observer.close()
            for connection in connections:
                connection.close()

    def _call(self, connections, batch):
        calls = []
        for step in batch:
            same = self._same_commands and step.redis_args
            calls.append((step.redis_args if same else step.args, step.mode, step.redis_args))
        connection = connections[batch[0].connection]
        return [connection.call(*calls[0])] if len(calls) == 1 else connection.call_together(calls)

    def _documented(self, step, protocol, result):
        line = _AsLine(command_text(step.args))
        return any(one.covers(line, protocol) and one.tells(result.right) for one in self._differences)

    def _shrink(self, units, protocol, together):
        """Leaves out ever smaller parts, as long as what is left still shows a difference."""
        deadline, found, size = time.monotonic() + SHRINK_LIMIT_S, None, len(units) // 2
        while size >= 1 and time.monotonic() < deadline:
            at = 0
            while at < len(units) and time.monotonic() < deadline:
                shorter = units[:at] + units[at + size :]
                again = self._run(shorter, protocol, together)
                if again:
                    units, found = shorter, again
                else:
                    at += size
            size //= 2
        return found


class _AsLine:
    def __init__(self, text):
        self.family, self._text = None, text

    def command(self):
        return self._text


class Watching:
    """WATCH of a key that is not there: there EXEC may fail though that key was left alone, once any
    key was deleted meanwhile (docs: transactions). Knows of each connection whether that may be."""

    def __init__(self, observer):
        self._observer, self._missing = observer, False
        self._absent = [False] * (CONNECTIONS + 1)
        self._deleted = [False] * (CONNECTIONS + 1)
        self._dying = False  # whether a key may be removed at any time, because its time is over

    def before(self, step):
        self._missing = False
        if step.name == b"WATCH" and len(step.args) > 1:
            self._missing = self._observer.call(b"EXISTS", *step.args[1:])[1] < len(step.args) - 1

    def after(self, step, result):
        here, done = step.connection, not is_error(result.left) and result.left != QUEUED
        if step.name == b"WATCH" and done and self._missing and not self._absent[here]:
            self._absent[here], self._deleted[here] = True, self._dying
        if step.name in ENDING and (done or result.left[1].startswith(b"EXECABORT")):
            self._absent[here] = False
        self._dying = self._dying or step.wait_s > 0
        if step.name in DELETING or step.wait_s:
            self._deleted = [True] * (CONNECTIONS + 1)

    def may_fail(self, step, result):
        mine = self._absent[step.connection] and self._deleted[step.connection]
        failed = is_nil(result.right) and result.left[0] == "*" and not is_nil(result.left)
        return step.name == b"EXEC" and mine and failed
