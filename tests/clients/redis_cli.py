"""redis-cli: one-shot, -c, -3, --json, input from a pipe, --pipe, --cluster, and interactive."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time

from check import (
    FOLLOWERS, GUARDED, GUARDED_TLS, HOST, LEADER, NODES, PASSWORD, Finished, certificate, check, contains, equal,
)

# No history and no settings of whoever runs this.
os.environ.update(REDISCLI_HISTFILE="/dev/null", REDISCLI_RCFILE="/dev/null", TERM="xterm")
VALUE_SIZE_BYTES = 65536


def redis_cli(*arguments, port=LEADER, stdin=""):
    done = Finished("redis-cli", "-h", HOST, "-p", str(port), *arguments, stdin=stdin)
    equal(done.err, "")
    return done.out


@check("one-shot commands on the leader")
def _():
    equal(redis_cli("PING"), "PONG\n")
    equal(redis_cli("PING", "hello"), "hello\n")
    equal(redis_cli("ECHO", "hello"), "hello\n")
    equal(redis_cli("SET", "cli:a", "1"), "OK\n")
    equal(redis_cli("get", "cli:a"), "1\n")
    equal(redis_cli("EXISTS", "cli:a", "cli:a", "cli:none"), "2\n")
    equal(redis_cli("DEL", "cli:a", "cli:none"), "1\n")
    equal(redis_cli("--no-raw", "GET", "cli:a"), "(nil)\n")


@check("PING, INFO and CLUSTER SLOTS on every node")
def _():
    for port in NODES:
        equal(redis_cli("PING", port=port), "PONG\n")
        contains(redis_cli("INFO", port=port), "raft_group_1_leader:")
        contains(redis_cli("CLUSTER", "SLOTS", port=port), f"{HOST}\n{LEADER}\n")


@check("errors are Redis' own texts, or those of the limits")
def _():
    unknown = "ERR unknown command 'NOPE', with args beginning with: 'x' \n\n"
    equal(redis_cli("NOPE", "x"), unknown)
    equal(redis_cli("GET"), "ERR wrong number of arguments for 'get' command\n\n")
    equal(redis_cli("SET", "cli:a", "1", "OOPS"), "ERR syntax error\n\n")
    equal(redis_cli("SET", "k" * 257, "1"), "ERR key too large\n\n")
    large = "v" * (VALUE_SIZE_BYTES + 1)
    equal(redis_cli("-x", "SET", "cli:a", stdin=large), "ERR value too large\n\n")
    equal(redis_cli("SELECT", "1"), "ERR SELECT is not allowed in cluster mode\n\n")
    equal(redis_cli("EXEC"), "ERR EXEC without MULTI\n\n")
    equal(redis_cli("INCRBY", "cli:a", "x"), "ERR value is not an integer or out of range\n\n")


@check("a value of the largest size, from stdin (-x), comes back whole")
def _():
    value = "v" * VALUE_SIZE_BYTES
    equal(redis_cli("-x", "SET", "cli:big", stdin=value), "OK\n")
    equal(redis_cli("GET", "cli:big"), value + "\n")


@check("without -c a follower answers MOVED with the slot and the leader's address")
def _():
    slot = redis_cli("CLUSTER", "KEYSLOT", "cli:a").strip()
    for port in FOLLOWERS:
        equal(redis_cli("SET", "cli:a", "1", port=port), f"MOVED {slot} {HOST}:{LEADER}\n\n")


@check("-c follows from every node")
def _():
    for port in NODES:
        equal(redis_cli("-c", "SET", f"cli:{port}", str(port), port=port), "OK\n")
    for port in NODES:
        for written in NODES:
            equal(redis_cli("-c", "GET", f"cli:{written}", port=port), f"{written}\n")
    equal(redis_cli("-c", "DEL", *(f"cli:{port}" for port in NODES), port=FOLLOWERS[0]), "3\n")


@check("strings, keys, times to live, and a transaction")
def _():
    def typed(*lines, options=()):
        return redis_cli(*options, stdin="\n".join(lines) + "\n")

    equal(typed("MSET cli:a 1 cli:b 2", "MGET cli:a cli:b"), "OK\n1\n2\n")
    equal(typed("INCRBYFLOAT cli:a 0.5", "APPEND cli:b 3"), "1.5\n2\n")
    equal(typed("SET cli:a 1 EX 100 GET", "EXPIREAT cli:a 4102444800 GT"), "1.5\n1\n")
    equal(typed("EXPIRETIME cli:a", "PERSIST cli:a", "TTL cli:a"), "4102444800\n1\n-1\n")
    equal(typed("RENAME cli:a cli:c", "COPY cli:c cli:b REPLACE", "TYPE cli:b"), "OK\n1\nstring\n")
    equal(typed("GETDEL cli:b", "EXISTS cli:a cli:b cli:c"), "1\n1\n")
    transaction = ["MULTI", "INCR cli:c", "SET cli:c x NX", "GET cli:c", "EXEC"]
    replies = '1) (integer) 2\n2) (nil)\n3) "2"\n'
    equal(typed(*transaction, options=["--no-raw"]), "OK\n" + 3 * "QUEUED\n" + replies)
    aborted = typed("MULTI", "INCR", "SET cli:c 9", "EXEC", "GET cli:c")
    contains(aborted, "EXECABORT Transaction discarded because of previous errors.\n\n2\n")


@check("--scan finds each key once, by pattern")
def _():
    redis_cli(stdin="".join(f"SET cli:scan:{i} {i}\n" for i in range(300)))
    equal(sorted(redis_cli("--scan", "--pattern", "cli:scan:*").split()),
          sorted(f"cli:scan:{i}" for i in range(300)))


@check("-3: RESP3 after HELLO 3")
def _():
    equal(redis_cli("-3", "--no-raw", "GET", "cli:none"), "(nil)\n")
    contains(redis_cli("-3", "--no-raw", "HELLO"), '3# "proto" => (integer) 3\n')
    contains(redis_cli("-3", "CLIENT", "INFO"), " resp=3 ")
    equal(redis_cli("-3", "-c", "SET", "cli:a", "3", port=FOLLOWERS[0]), "OK\n")


@check("--json")
def _():
    redis_cli("SET", "cli:a", 'say "hi"')
    equal(redis_cli("--json", "GET", "cli:a"), '"say \\"hi\\""\n')
    equal(redis_cli("--json", "GET", "cli:none"), "null\n")
    contains(redis_cli("--json", "COMMAND", "DOCS", "get"), '{"get":{"summary":"Gets the value')


@check("commands from stdin, and 1,000 SET through --pipe")
def _():
    equal(redis_cli(stdin="SET cli:a 1\nGET cli:a\nDEL cli:a\nGET cli:a\n"), "OK\n1\n1\n\n")
    request = "*3\r\n$3\r\nSET\r\n$9\r\ncli:{:05}\r\n$5\r\n{:05}\r\n"
    done = redis_cli("--pipe", stdin="".join(request.format(i, i) for i in range(1000)))
    contains(done, "errors: 0, replies: 1000\n")
    equal(redis_cli("GET", "cli:00999"), "00999\n")


@check("--cluster check and --cluster call, from a follower")
def _():
    done = redis_cli("--cluster", "check", f"{HOST}:{FOLLOWERS[0]}")
    contains(done, "All nodes agree about slots configuration.")
    contains(done, "All 16384 slots covered.")
    contains(done, "2 additional replica(s)")
    done = redis_cli("--cluster", "call", f"{HOST}:{FOLLOWERS[0]}", "PING")
    equal(sorted(re.findall(r"^\S+:(\d+): PONG$", done, re.M)), sorted(map(str, NODES)))


class Terminal:
    """redis-cli with a terminal, as somebody at a keyboard has it."""

    def __init__(self, *arguments):
        self.output = ""
        self.seen = 0
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execvp("redis-cli", ["redis-cli", *arguments])
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))

    def read_some(self, deadline):
        wait_s = deadline - time.monotonic()
        if wait_s <= 0 or not select.select([self.descriptor], [], [], wait_s)[0]:
            return False
        try:
            self.output += os.read(self.descriptor, 4096).decode()
        except OSError:  # Linux: the other side has closed
            return False
        return True

    def expect(self, text):
        deadline = time.monotonic() + 10
        while text not in self.plain()[self.seen :]:
            if not self.read_some(deadline):
                raise AssertionError(f"{text!r} did not come: {self.plain()[self.seen:]!r}")
        self.seen = self.plain().index(text, self.seen) + len(text)

    def plain(self):
        """Without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.output)

    def type(self, text):
        os.write(self.descriptor, text.encode())

    def end(self):
        deadline = time.monotonic() + 5
        while self.read_some(deadline):
            pass
        os.close(self.descriptor)
        return os.waitpid(self.pid, 0)[1]


@check("interactive: hints and help from COMMAND DOCS, redirection with -c, no warnings")
def _():
    follower = f"{HOST}:{FOLLOWERS[0]}> "
    leader = f"{HOST}:{LEADER}> "
    terminal = Terminal("-c", "-h", HOST, "-p", str(FOLLOWERS[0]))
    terminal.expect(follower)
    equal(terminal.plain().strip("\r\n "), follower.strip())  # nothing before the first prompt
    terminal.type("help get\r")
    terminal.expect("summary: Gets the value of a key")  # our words: redis-cli has its own as well
    terminal.expect(follower)
    terminal.type("set ")
    terminal.expect("set key value")  # the hint
    terminal.type("cli:a 7\r")
    terminal.expect("-> Redirected to slot [")
    terminal.expect(f"] located at {HOST}:{LEADER}")
    terminal.expect("OK")
    terminal.expect(leader)
    terminal.type("get cli:a\r")
    terminal.expect('"7"')
    terminal.expect(leader)
    terminal.type("nope\r")
    terminal.expect("(error) ERR unknown command 'nope'")
    terminal.expect(leader)
    terminal.type("quit\r")
    equal(terminal.end(), 0)
    assert "warning" not in terminal.plain().lower(), terminal.plain()


@check("interactive with -3")
def _():
    terminal = Terminal("-3", "-h", HOST, "-p", str(LEADER))
    terminal.expect(f"{HOST}:{LEADER}> ")
    terminal.type("hello\r")
    terminal.expect('3# "proto" => (integer) 3')
    terminal.expect(f"{HOST}:{LEADER}> ")
    terminal.type("\x04")  # Ctrl-D
    equal(terminal.end(), 0)


def guarded(*arguments, port=GUARDED, **environment):
    done = Finished("redis-cli", "-h", HOST, "-p", str(port), *arguments, **environment)
    return done.out + done.err


TLS = ("--tls", "--cert", certificate("client.crt"), "--key", certificate("client.key"))


@check("a password: nothing without it, everything with it, in three ways")
def _():
    equal(guarded("GET", "guarded"), "NOAUTH Authentication required.\n\n")
    contains(guarded("-a", "wrong", "--no-auth-warning", "GET", "guarded"), "WRONGPASS")
    equal(guarded("-a", PASSWORD, "--no-auth-warning", "GET", "guarded"), "yes\n")
    equal(guarded("--user", "default", "--pass", PASSWORD, "--no-auth-warning", "GET", "guarded"), "yes\n")
    os.environ["REDISCLI_AUTH"] = PASSWORD
    try:
        equal(guarded("GET", "guarded"), "yes\n")
    finally:
        del os.environ["REDISCLI_AUTH"]


@check("TLS: with a certificate of the authority, and only with one, on both sides")
def _():
    known = ("--cacert", certificate("ca.crt"))
    password = ("-a", PASSWORD, "--no-auth-warning")
    equal(guarded(*TLS, *known, *password, "GET", "guarded", port=GUARDED_TLS), "yes\n")
    equal(guarded(*TLS, *known, *password, "-c", "GET", "guarded", port=GUARDED_TLS), "yes\n")
    strange = ("--cacert", certificate("other.crt"))
    contains(guarded(*TLS, *strange, *password, "GET", "guarded", port=GUARDED_TLS), "certificate verify failed")
    nameless = guarded("--tls", *known, *password, "GET", "guarded", port=GUARDED_TLS)
    assert "yes" not in nameless, nameless
