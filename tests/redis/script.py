"""Scripts of commands: how their lines are written, and how they are run.

    == name               a new family: empty servers, new connections
    SET a "b\\x00c"        a command, quoted as redis-cli takes it
    ~set @2 KEYS *        how to compare the replies (comparison.py), and on which connection; 1 if none
    !send @2 GET a        sends a command and reads no reply
    !inline PING          sends the text as it stands, as a line
    !bytes "*1\\r\\n"       sends these bytes, and reads one reply
    !sleep 0.05           both servers get that much older
    !close @2             hangs up; who next uses the connection opens it again

{x*300} is 300 times x; {now+100} and {now_ms+100} are the time as Unix has it, in 100 s and in 100 ms.
Lines that begin with # are comments. Where one server alone is asked (newer.txt), the line after a
command has the reply that is expected, as `-> OK`; * stands for anything.

differences.txt says where Seshat is not as Redis:

    [family] SELECT *                      the family is optional; * stands for anything, \\* for itself
        seshat: (error) ERR SELECT is*     what Seshat answers
        resp: 3                            if it is so with RESP3 (or RESP2) alone
        why: the reason, for who reads it
"""

import os
import re
import sys
import time

from comparison import Both
from resp import CLOSED, Connection, show

HERE = os.path.dirname(os.path.abspath(__file__))


class Line:
    def __init__(self, where, family, text):
        self.where, self.family, self.text = where, family, text
        self.mode, self.connection, self.directive, self.expected = "exact", 1, None, None
        rest = text
        if rest.startswith("!"):
            self.directive, _, rest = rest[1:].partition(" ")
            if self.directive not in ("send", "inline", "bytes", "sleep", "close"):
                raise ValueError(f"{where}: there is no !{self.directive}")
        if rest.startswith("~"):
            self.mode, _, rest = rest[1:].partition(" ")
        if rest.startswith("@"):
            number, _, rest = rest[1:].partition(" ")
            self.connection = int(number)
        self.rest = rest

    def args(self):
        return split(self.rest)

    def command(self):
        """What differences.txt calls this line."""
        return self.text if self.directive else self.rest


_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "b": b"\b", "a": b"\a"}
_TOKEN = re.compile(r'"(?:\\x[0-9a-fA-F]{2}|\\.|[^"\\])*"|\'(?:\\\'|[^\'])*\'|[^\s"\']\S*')
_REPEATED = re.compile(r"\{(.)\*(\d+)\}")
_TIME = re.compile(r"\{now(_ms)?([+-]\d+)\}")


def split(text):
    args, at = [], 0
    text = text.strip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None or (token.end() < len(text) and not text[token.end()].isspace()):
            raise ValueError(f"quotes do not match: {text}")
        args.append(_unquoted(token[0]))
        at = token.end()
        while at < len(text) and text[at].isspace():
            at += 1
    return args


def _unquoted(token):
    if token.startswith('"'):
        return re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", _escaped, token[1:-1].encode(), flags=re.DOTALL)
    if token.startswith("'"):
        return token[1:-1].replace("\\'", "'").encode()
    repeated, moment = _REPEATED.fullmatch(token), _TIME.fullmatch(token)
    if repeated:
        return repeated[1].encode() * int(repeated[2])
    if moment:
        return b"%d" % (int(time.time() * (1000 if moment[1] else 1)) + int(moment[2]))
    return token.encode()


def _escaped(match):
    what = match[1].decode("latin-1")
    return bytes([int(what[1:], 16)]) if len(what) > 1 else _ESCAPES.get(what, what.encode())


def read_script(name):
    """Families of lines, in the order of the file."""
    families, family, last = {}, None, None
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            text, where = text.strip(), f"{name}:{number}"
            if not text or text.startswith("#"):
                continue
            if text.startswith("== "):
                family = text[3:]
                if family in families:
                    raise ValueError(f"{where}: a second family {family}")
                families[family] = []
            elif text.startswith("-> "):
                last.expected = text[3:]
            else:
                last = Line(where, family, text)
                families[family].append(last)
    return families


def glob(pattern):
    """Whether a whole text fits a pattern in which only * is special; \\* is an asterisk."""
    parts = re.split(r"(?<!\\)\*", pattern)
    return re.compile(".*".join(re.escape(part.replace("\\*", "*")) for part in parts), re.DOTALL).fullmatch


class Difference:
    def __init__(self, where, pattern):
        self.where, self.used = where, 0
        scoped = re.match(r"\[([^\]]+)\] (.*)", pattern)
        self.family, self.pattern = scoped.groups() if scoped else (None, pattern)
        self.fields = {}

    def covers(self, line, protocol):
        return (
            self.family in (None, line.family)
            and self.fields.get("resp", str(protocol)) == str(protocol)
            and glob(self.pattern)(line.command()) is not None
        )

    def tells(self, reply):
        return glob(self.fields["seshat"])(show(reply, sys.maxsize)) is not None


def read_differences(name="differences.txt"):
    differences = []
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if not text.strip() or text.startswith("#"):
                continue
            if not text[0].isspace():
                differences.append(Difference(f"{name}:{number}", text.strip()))
                continue
            field, _, value = text.strip().partition(": ")
            if not differences or field not in ("seshat", "resp", "why") or not value:
                raise ValueError(f"{name}:{number}: not a field of a difference: {text.strip()}")
            differences[-1].fields[field] = value
    for difference in differences:
        if not {"seshat", "why"} <= set(difference.fields):
            raise ValueError(f"{difference.where}: a difference needs `seshat:` and `why:`")
    return differences


class Connections:
    """Connections by number, opened when they are first used."""

    def __init__(self, open_one):
        self._open_one, self._open = open_one, {}

    def __getitem__(self, number):
        if number not in self._open:
            self._open[number] = self._open_one()
        return self._open[number]

    def close(self, number=None):
        for one in [number] if number else list(self._open):
            if one in self._open:
                self._open.pop(one).close()


class Comparison:
    """Runs families against two servers; counts, and keeps what went wrong as texts."""

    def __init__(self, ports, protocol, differences):
        self._ports, self._protocol, self._differences = ports, protocol, differences
        self.lines = self.agreed = self.documented = 0
        self.wrong = []

    def run(self, families):
        for lines in families.values():
            connections = Connections(lambda: Both(self._ports, self._protocol))
            try:
                self._empty()
                for line in lines:
                    self._run_line(line, connections)
            finally:
                connections.close()

    def _empty(self):
        flusher = Both(self._ports, 2)
        flusher.call([b"FLUSHALL"])
        flusher.close()

    def _run_line(self, line, connections):
        if line.directive == "sleep":
            time.sleep(float(line.rest))
        elif line.directive == "close":
            connections.close(line.connection)
        elif line.directive == "send":
            connections[line.connection].send(line.args())
        else:
            self._compare(line, self._call(line, connections))
            return
        self.lines += line.directive == "send"
        self.agreed += line.directive == "send"

    def _call(self, line, connections):
        both = connections[line.connection]
        if line.directive == "inline":
            result = both.call_bytes(line.rest.encode() + b"\r\n", line.mode)
        elif line.directive == "bytes":
            result = both.call_bytes(line.args()[0], line.mode)
        else:
            result = both.call(line.args(), line.mode)
        if CLOSED in (result.left, result.right):
            connections.close(line.connection)
        return result

    def _compare(self, line, result):
        self.lines += 1
        known = [one for one in self._differences if one.covers(line, self._protocol)]
        for difference in known:
            difference.used += 1
        if result.agrees:
            self.agreed += 1
            for difference in known:
                self._tell(line, result, f"no longer differs, as {difference.where} says it does")
        elif any(difference.tells(result.right) for difference in known):
            self.documented += 1
        else:
            said = ", and not as " + known[0].where + " says" if known else ""
            self._tell(line, result, "differs" + said)

    def _tell(self, line, result, what):
        self.wrong.append(
            f"{line.where} [{line.family}] RESP{self._protocol} {what}: {line.text[:200]}\n"
            f"    redis:  {show(result.left)}\n    seshat: {show(result.right)}"
        )


def compare_script(ports, protocol, differences, families):
    comparison = Comparison(ports, protocol, differences)
    comparison.run(families)
    return comparison


def check_expected(port, protocol, families):
    """One server against the replies that a script expects: how many lines, and what went wrong."""
    lines, wrong = 0, []
    for family in families.values():
        connections = Connections(lambda: Connection(port, protocol))
        connections[1].call("FLUSHALL")
        for line in family:
            if line.directive == "sleep":
                time.sleep(float(line.rest))
                continue
            if line.expected is None:
                raise ValueError(f"{line.where}: no reply is expected")
            lines += 1
            reply = show(connections[line.connection].call(*line.args()), sys.maxsize)
            if glob(line.expected)(reply.replace("(null)", "(nil)").replace("(nil array)", "(nil)")) is None:
                wrong.append(
                    f"{line.where} [{line.family}] RESP{protocol}: {line.text[:200]}\n"
                    f"    expected: {line.expected}\n    seshat:   {reply}"
                )
        connections.close()
    return lines, wrong
