"""redis-py, one connection to the leader."""

import os
import time

import redis
from check import (
    FOLLOWERS, GUARDED, GUARDED_TLS, HOST, LEADER, PASSWORD, certificate, check, contains, equal, raises,
)
from redis.exceptions import ResponseError

client = redis.Redis(host=HOST, port=LEADER, socket_timeout=10)


@check("PING, SET, GET, DEL, EXISTS")
def _():
    assert client.ping()
    assert client.set("py:a", "1")
    equal(client.get("py:a"), b"1")
    equal(client.exists("py:a", "py:a", "py:none"), 2)
    equal(client.delete("py:a", "py:none"), 1)
    equal(client.get("py:a"), None)
    equal(client.echo("hello"), b"hello")


@check("any bytes as a value, and the largest value")
def _():
    every_byte = bytes(range(256))
    client.set(b"py:\x00\r\n", every_byte)
    equal(client.get(b"py:\x00\r\n"), every_byte)
    equal(client.delete(b"py:\x00\r\n"), 1)
    large = os.urandom(65536)
    client.set("py:large", large)
    equal(client.get("py:large"), large)
    client.set("py:empty", "")
    equal(client.get("py:empty"), b"")


@check("errors are ResponseError with Redis' texts, and the connection goes on")
def _():
    with raises(ResponseError, "key too large"):
        client.set("k" * 257, "1")
    with raises(ResponseError, "value too large"):
        client.set("py:a", b"v" * 65537)
    with raises(ResponseError, "unknown command 'NOPE', with args beginning with: 'x'"):
        client.execute_command("NOPE", "x")
    with raises(ResponseError, "wrong number of arguments for 'get' command"):
        client.execute_command("GET")
    with raises(ResponseError, "syntax error"):
        client.execute_command("SET", "py:a", "1", "OOPS")
    with raises(ResponseError, "SELECT is not allowed in cluster mode"):
        client.execute_command("SELECT", "1")
    assert client.ping()


@check("a follower raises MOVED with the leader's address")
def _():
    with redis.Redis(host=HOST, port=FOLLOWERS[0]) as follower:
        with raises(ResponseError, f"MOVED {client.cluster('KEYSLOT', 'py:a')} {HOST}:{LEADER}"):
            follower.get("py:a")


@check("pipeline(transaction=False) of 1,000 commands keeps the order")
def _():
    pipeline = client.pipeline(transaction=False)
    for i in range(500):
        pipeline.set(f"py:{i}", i).get(f"py:{i}")
    equal(pipeline.execute(), [reply for i in range(500) for reply in (True, b"%d" % i)])
    pipeline.set("py:a", "1").execute_command("NOPE").get("py:a")
    replies = pipeline.execute(raise_on_error=False)
    equal((replies[0], type(replies[1]), replies[2]), (True, ResponseError, b"1"))


@check("pipeline(transaction=True) is all or nothing")
def _():
    client.delete("py:multi", "py:other")
    pipeline = client.pipeline()
    pipeline.set("py:multi", "1").set("py:other", "2").delete("py:large")
    equal(pipeline.execute(), [True, True, 1])
    equal(client.mget("py:multi", "py:other", "py:large"), [b"1", b"2", None])
    pipeline.set("py:multi", "3").execute_command("INCR").set("py:other", "3")
    with raises(redis.ResponseError, "Command # 2 (INCR) of pipeline caused error"):
        pipeline.execute()
    equal(client.mget("py:multi", "py:other"), [b"1", b"2"])
    pipeline.append("py:multi", "x").incr("py:multi").incr("py:other")
    replies = pipeline.execute(raise_on_error=False)
    equal((replies[0], str(replies[1]), replies[2]), (2, "value is not an integer or out of range", 3))


@check("WATCH: a transaction fails if a key was changed since, and transaction() repeats it")
def _():
    client.set("py:watched", 1)
    with client.pipeline() as pipeline:
        pipeline.watch("py:watched")
        value = int(pipeline.get("py:watched"))
        client.set("py:watched", 10)
        pipeline.multi()
        pipeline.set("py:watched", value + 1)
        with raises(redis.WatchError, "Watched variable changed"):
            pipeline.execute()
    equal(client.get("py:watched"), b"10")
    calls = []

    def double(pipeline):
        value = int(pipeline.get("py:watched"))
        if not calls:
            client.incr("py:watched")
        calls.append(value)
        pipeline.multi()
        pipeline.set("py:watched", 2 * value)

    client.transaction(double, "py:watched")
    equal((calls, client.get("py:watched")), ([10, 11], b"22"))


@check("strings: what redis-py has a method for")
def _():
    client.delete("py:s", "py:n", "py:m")
    assert client.set("py:s", "v", nx=True, ex=100)
    equal(client.set("py:s", "w", nx=True), None)
    equal(client.set("py:s", "w", xx=True, get=True, keepttl=True), b"v")
    assert 0 < client.ttl("py:s") <= 100
    equal(client.getex("py:s", persist=True), b"w")
    equal((client.ttl("py:s"), client.getset("py:s", "x"), client.getdel("py:s")), (-1, b"w", b"x"))
    equal((client.append("py:s", "Hello"), client.setrange("py:s", 5, " World")), (5, 11))
    equal((client.getrange("py:s", -5, -1), client.substr("py:s", 0, 4), client.strlen("py:s")),
          (b"World", b"Hello", 11))
    equal((client.incr("py:n"), client.incrby("py:n", 5), client.decr("py:n", 2)), (1, 6, 4))
    equal(client.incrbyfloat("py:n", 0.1), 4.1)
    assert client.mset({"py:n": 1, "py:m": 2}) and not client.msetnx({"py:n": 3, "py:new": 4})
    equal(client.mget("py:n", "py:m", "py:new"), [b"1", b"2", None])
    assert client.setnx("py:new", 1) and client.setex("py:new", 100, 2) and client.psetex("py:new", 9000, 3)
    assert 0 < client.pttl("py:new") <= 9000
    client.delete("py:new")


@check("keys: names, times to live, and looking for them")
def _():
    client.set("py:k", "v")
    assert client.expire("py:k", 100) and not client.expire("py:k", 200, nx=True)
    assert client.expireat("py:k", 4102444800, gt=True)
    equal((client.expiretime("py:k"), client.pexpiretime("py:k")), (4102444800, 4102444800000))
    assert client.persist("py:k") and client.pexpire("py:k", 90_000)
    assert client.rename("py:k", "py:l") and not client.renamenx("py:l", "py:l")
    assert client.copy("py:l", "py:k") and not client.copy("py:l", "py:k")
    equal((client.type("py:k"), client.type("py:none"), client.object("encoding", "py:k")),
          (b"string", b"none", b"embstr"))
    equal((client.touch("py:k", "py:l", "py:none"), client.unlink("py:l", "py:none")), (2, 1))
    client.mset({f"py:scan:{i}": i for i in range(200)})
    equal({key for key in client.scan_iter("py:scan:*", count=9)}, {b"py:scan:%d" % i for i in range(200)})
    equal(len(client.keys("py:scan:1??")), 100)
    assert client.dbsize() >= 201 and client.randomkey() is not None
    client.psetex("py:short", 50, "v")
    time.sleep(0.1)
    equal((client.get("py:short"), client.exists("py:short"), client.ttl("py:short")), (None, 0, -2))


@check("INFO, COMMAND, CONFIG GET as redis-py reads them")
def _():
    information = client.info()
    equal(information["redis_mode"], "cluster")
    equal(information["role"], "master")
    equal(information["loading"], 0)
    equal(information["cluster_enabled"], 1)
    assert information["connected_clients"] >= 1
    contains(information["db0"], "keys")
    equal(client.info("raft")["raft_group_1_role"], "leader")
    equal(client.command()["set"]["flags"], ["write", "denyoom"])
    equal(client.command_count(), len(client.command()))
    equal(client.command_getkeys("DEL", "a", "b"), ["a", "b"])
    contains(client.config_get("save"), "save")


@check("CLIENT SETNAME, GETNAME, ID, LIST, and RESET")
def _():
    assert client.client_setname("py-test")
    equal(client.client_getname(), "py-test")
    contains([entry["name"] for entry in client.client_list()], "py-test")
    assert client.client_id() > 0
    with redis.Redis(host=HOST, port=LEADER, client_name="py-named") as named:
        equal(named.client_getname(), "py-named")
    assert client.reset()


@check("CLIENT INFO has the fields that redis-py reads as numbers")
def _():
    equal(client.client_info()["id"], client.client_id())


@check("CLUSTER NODES, SLOTS, INFO, KEYSLOT, MYID as redis-py reads them")
def _():
    nodes = client.cluster("NODES")
    equal(len(nodes), 3)
    equal(nodes[f"{HOST}:{LEADER}"]["slots"], [["0", "16383"]])
    equal(client.cluster("INFO")["cluster_state"], "ok")
    equal(client.cluster("KEYSLOT", "foo"), 12182)
    primary = nodes[f"{HOST}:{LEADER}"]["node_id"]
    equal(client.execute_command("CLUSTER MYID").decode(), primary)
    equal({nodes[f"{HOST}:{port}"]["master_id"] for port in FOLLOWERS}, {primary})


@check("a password: nothing without it or with another, everything with it")
def _():
    with redis.Redis(host=HOST, port=GUARDED) as stranger:
        with raises(redis.AuthenticationError, "Authentication required"):
            stranger.get("guarded")
    with redis.Redis(host=HOST, port=GUARDED, password="wrong") as guessing:
        with raises(ResponseError, "WRONGPASS"):
            guessing.get("guarded")
    for user in (None, "default"):
        with redis.Redis(host=HOST, port=GUARDED, username=user, password=PASSWORD) as known:
            equal(known.get("guarded"), b"yes")


def through_tls(authority):
    return redis.Redis(
        host=HOST, port=GUARDED_TLS, password=PASSWORD, ssl=True, ssl_ca_certs=certificate(authority),
        ssl_certfile=certificate("client.crt"), ssl_keyfile=certificate("client.key"),
    )


@check("TLS: 1,000 commands and the largest value; a node of another authority is refused")
def _():
    with through_tls("ca.crt") as client:
        pipeline = client.pipeline(transaction=False)
        for i in range(500):
            pipeline.set(f"py:{i}", i).get(f"py:{i}")
        equal(pipeline.execute(), [reply for i in range(500) for reply in (True, b"%d" % i)])
        large = os.urandom(65536)
        client.set("py:large", large)
        equal(client.get("py:large"), large)
    with through_tls("other.crt") as client, raises(redis.ConnectionError, "Error 1 connecting"):
        client.get("guarded")
