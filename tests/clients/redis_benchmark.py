"""redis-benchmark: no error, no warning. One with --cluster is refused by redis-benchmark itself:
it wants more than one master."""

import re

from check import (
    FOLLOWERS, GUARDED, GUARDED_TLS, HOST, LEADER, PASSWORD, Finished, certificate, check, contains, equal,
)


def benchmark(*arguments, port=LEADER):
    return Finished("redis-benchmark", "-h", HOST, "-p", str(port), *arguments)


def measured(done):
    """The tests that were run to their end, from what -q prints."""
    equal((done.code, done.err), (0, ""))
    assert not re.search("warning|error", done.out, re.I), done.out
    return re.findall(r"(\w+): [0-9.]+ requests per second", done.out)


ALL = ["PING_INLINE", "PING_MBULK", "SET", "GET"]
TESTS = ("-q", "-t", "ping,set,get")


@check("50 clients")
def _():
    equal(measured(benchmark(*TESTS, "-n", "2000", "-c", "50")), ALL)


@check("pipelines of 16, random keys")
def _():
    equal(measured(benchmark(*TESTS, "-n", "10000", "-P", "16", "-r", "1000")), ALL)


@check("-3 (RESP3), and values of 4 KB")
def _():
    equal(measured(benchmark(*TESTS, "-n", "2000", "-3")), ALL)
    equal(measured(benchmark(*TESTS, "-n", "1000", "-d", "4096")), ALL)


@check("the full report, with the settings it asks CONFIG GET for")
def _():
    done = benchmark("-t", "set", "-n", "500")
    equal((done.code, done.err), (0, ""))
    contains(done.out, "host configuration")
    contains(done.out, "throughput summary")
    assert not re.search("warning|error", done.out, re.I), done.out


@check("commands of the user's own: DEL, EXISTS, ECHO")
def _():
    for command in (["DEL", "bench:a"], ["EXISTS", "bench:a"], ["ECHO", "hello"]):
        done = benchmark("-q", "-n", "500", *command)
        equal((done.code, done.err), (0, ""))
        contains(done.out, "requests per second")


@check("on a follower it stops and names the leader; --cluster wants more than one master")
def _():
    done = benchmark("-q", "-n", "10", "-t", "set", port=FOLLOWERS[0])
    equal(done.code, 1)
    contains(done.err, "Error from server: MOVED")
    contains(done.err, f"{HOST}:{LEADER}")
    done = benchmark("--cluster", "-q", "-n", "10", "-t", "set")
    contains(done.err, "Invalid cluster: 1 node(s).")


@check("with a password, and through TLS")
def _():
    done = benchmark("-q", "-n", "500", "-t", "set,get", "-a", PASSWORD, port=GUARDED)
    equal(measured(done), ["SET", "GET"])
    done = benchmark("-q", "-n", "500", "-t", "set,get", "-a", PASSWORD, "--tls", "--cacert",
                     certificate("ca.crt"), "--cert", certificate("client.crt"), "--key",
                     certificate("client.key"), port=GUARDED_TLS)
    equal(measured(done), ["SET", "GET"])
