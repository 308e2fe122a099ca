"""redis-py, one connection to the leader."""

import os

import redis
from check import FOLLOWERS, HOST, LEADER, check, contains, equal, raises
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


@check("pipeline(transaction=True) raises, and nothing of it is applied")
def _():
    client.delete("py:multi", "py:other")
    pipeline = client.pipeline()
    pipeline.set("py:multi", "1").set("py:other", "2").delete("py:large")
    with raises(ResponseError, "MULTI is not supported yet"):
        pipeline.execute()
    equal(client.exists("py:multi", "py:other"), 0)
    equal(client.exists("py:large"), 1)
    assert pipeline.connection_pool is client.connection_pool  # so the same connection goes on:
    client.set("py:multi", "3")
    equal(client.get("py:multi"), b"3")


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
