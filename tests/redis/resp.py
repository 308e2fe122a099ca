"""A small client that hides nothing of a reply: its types, its bytes, and that a server hung up.

A reply is a tuple of its type's byte and its content, so that +OK and $2 OK are not the same:

    ("+", b"OK")  ("-", b"ERR ...")  (":", 1)  ("$", b"..." or None)  ("*", [replies] or None)

and for RESP3 ("_", None) ("#", bool) (",", b"1.5") ("(", b"...") ("=", b"txt:...") ("~" and ">", [...])
("%" [(key, value), ...]). A connection that was closed gives CLOSED.
"""

import re
import socket

CLOSED = ("closed", None)
OK = ("+", b"OK")
QUEUED = ("+", b"QUEUED")
REPLY_TIMEOUT_S = 20


class Connection:
    def __init__(self, port, protocol=2):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")
        if protocol == 3:
            reply = self.call(b"HELLO", b"3")
            if reply[0] != "%":
                raise OSError(f"HELLO 3 was answered {show(reply)}")

    def close(self):
        self._reader.close()
        self._socket.close()

    def send(self, *args):
        self.send_bytes(encode(args))

    def send_bytes(self, data):
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # reading tells the same

    def read(self):
        try:
            return self._read_reply()
        except (EOFError, ConnectionResetError):
            return CLOSED

    def call(self, *args):
        self.send(*args)
        return self.read()

    def _line(self):
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        return line[:-2]

    def _bytes(self, size):
        data = self._reader.read(size + 2)
        if len(data) != size + 2:
            raise EOFError
        return data[:-2]

    def _read_reply(self):
        line = self._line()
        kind, rest = line[:1].decode("latin-1"), line[1:]
        if kind == "|":  # attributes come before the reply that they belong to
            for _ in range(2 * int(rest)):
                self._read_reply()
            return self._read_reply()
        if kind in "+-,(":
            return kind, rest
        if kind == ":":
            return kind, int(rest)
        if kind == "_":
            return kind, None
        if kind == "#":
            return kind, rest == b"t"
        if kind in "$=":
            return kind, None if rest == b"-1" else self._bytes(int(rest))
        if kind in "*~>":
            return kind, None if rest == b"-1" else [self._read_reply() for _ in range(int(rest))]
        if kind == "%":
            return kind, [(self._read_reply(), self._read_reply()) for _ in range(int(rest))]
        raise ValueError(f"no RESP: {line[:80]!r}")


def encode(args):
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def is_error(reply):
    return reply[0] == "-"


def is_nil(reply):
    return reply[0] in "$*_" and reply[1] is None


def show(reply, limit=400):
    """One line for a reply, as redis-cli would have it, with the types told apart."""
    text = _show(reply)
    return text if len(text) <= limit else f"{text[: limit - 40]} ... {text[-30:]}"


def _show(reply):
    kind, value = reply
    if kind == "closed":
        return "(closed)"
    if kind == "+":
        return _escaped(value)
    if kind == "-":
        return "(error) " + _escaped(value)
    if kind == ":":
        return f"(integer) {value}"
    if value is None:
        return {"$": "(nil)", "*": "(nil array)", "_": "(null)"}[kind]
    if kind == "$":
        return quoted(value)
    if kind in "*~>":
        opening, closing = {"*": "[]", "~": ("~{", "}"), ">": (">[", "]")}[kind]
        return opening + ", ".join(_show(element) for element in value) + closing
    if kind == "%":
        return "{" + ", ".join(f"{_show(key)}: {_show(item)}" for key, item in value) + "}"
    name = {"#": "boolean", ",": "double", "(": "big number", "=": "verbatim"}[kind]
    return f"({name}) {_escaped(value) if isinstance(value, bytes) else value}"


_PLAIN = re.compile(rb"[A-Za-z0-9_.,:;/*?+\-\[\]^()=<>@!%&|~{}#$]+")
_ESCAPES = {10: "\\n", 13: "\\r", 9: "\\t", 34: '\\"', 92: "\\\\"}


def quoted(data):
    return '"' + _escaped(data, _ESCAPES) + '"'


def _escaped(data, escapes={}):
    out = []
    for byte in data:
        known = escapes.get(byte)
        out.append(known or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"))
    return "".join(out)


def command_text(args):
    """A command as a line of a script: quoted where it must be."""
    return " ".join(arg.decode() if _PLAIN.fullmatch(arg) else quoted(arg) for arg in args)
