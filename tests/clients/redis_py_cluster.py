"""redis-py's RedisCluster: any node to start from, and a leader that dies under it."""

import contextlib
import logging
import time

import redis
from check import (
    FOLLOWERS, GUARDED_TLS, HOST, LEADER, NODES, PASSWORD, certificate, check, equal, kill, paused, raises,
)
from redis.cluster import RedisCluster
from redis.exceptions import ClusterDownError, ConnectionError, ResponseError, TimeoutError

TAKEOVER_S = 10  # 2 s is what the cluster needs; redis-py retries at its own pace

# redis-py logs each redirection and each error that it meets, and without a handler on stderr.
logged = []


class Keeper(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())


logging.getLogger("redis").addHandler(Keeper())


@contextlib.contextmanager
def cluster_from(port, **options):
    with RedisCluster(host=HOST, port=port, **options) as cluster:
        logged.clear()
        yield cluster


@check("100 keys from each node as the start node")
def _():
    for port in NODES:
        with cluster_from(port) as cluster:
            for i in range(100):
                assert cluster.set(f"pyc:{port}:{i}", i)
            found = [cluster.get(f"pyc:{port}:{i}") for i in range(100)]
            equal(found, [b"%d" % i for i in range(100)])
            equal(cluster.exists(*(f"pyc:{port}:{i}" for i in range(100))), 100)
            equal(cluster.delete(*(f"pyc:{port}:{i}" for i in range(50))), 50)
            equal(cluster.get(f"pyc:{port}:0"), None)
            equal(logged, [])


@check("it knows one primary and two replicas")
def _():
    with cluster_from(NODES[1]) as cluster:
        equal([node.port for node in cluster.get_primaries()], [LEADER])
        equal(sorted(node.port for node in cluster.get_replicas()), sorted(NODES[1:]))
        assert cluster.ping(target_nodes=RedisCluster.ALL_NODES)
        equal(cluster.cluster_info()["cluster_state"], "ok")


@check("a pipeline over many slots")
def _():
    with cluster_from(NODES[2]) as cluster:
        pipeline = cluster.pipeline()
        for i in range(100):
            pipeline.set(f"pyc:{i}", i).get(f"pyc:{i}")
        equal(pipeline.execute(), [reply for i in range(100) for reply in (True, b"%d" % i)])


@check("errors are raised, not retried")
def _():
    with cluster_from(NODES[1]) as cluster:
        with raises(ResponseError, "value too large"):
            cluster.set("pyc:a", b"v" * 65537)
        with raises(ResponseError, "wrong number of arguments for 'get' command"):
            cluster.execute_command("GET", "a", "b")


# What redis-py may raise while there is no leader: the application calls again, on the same client.
RETRIED = (ConnectionError, TimeoutError, ClusterDownError)

# Two faults of redis-py before 4.4, whatever the server. When the node it lost is the first that
# CLUSTER SLOTS names it never reads the topology again ("cannot pickle '_thread.lock' object"), but
# for a client that keeps to the nodes it was given. And a replica that became the only primary is
# an IndexError once.
LASTING = {}
if tuple(map(int, redis.__version__.split(".")[:2])) < (4, 4):
    LASTING = {"dynamic_startup_nodes": False}
    RETRIED += (IndexError,)


def await_leader():
    deadline = time.monotonic() + TAKEOVER_S
    for port in NODES:
        with redis.Redis(host=HOST, port=port, socket_timeout=5) as node:
            while node.cluster("INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline, f"no leader after {TAKEOVER_S} s"
                time.sleep(0.02)


def set_until_done(cluster, key, value):
    deadline = time.monotonic() + TAKEOVER_S
    while True:
        try:
            return cluster.set(key, value)
        except RETRIED:
            if time.monotonic() >= deadline:
                raise


@check("nothing is acknowledged while two nodes stand still; then the same client goes on")
def _():
    with cluster_from(FOLLOWERS[0], socket_timeout=0.2, **LASTING) as cluster:
        assert cluster.set("pyc:before", "1")
        with paused([LEADER, FOLLOWERS[1]]), raises(RETRIED, ""):
            cluster.set("pyc:meanwhile", "1")
        assert set_until_done(cluster, "pyc:after", "1")
        equal(cluster.get("pyc:before"), b"1")


@check("after kill -9 of the leader the same client goes on, and finds all it wrote")
def _():
    await_leader()
    with cluster_from(FOLLOWERS[0], socket_timeout=5, **LASTING) as cluster:
        for i in range(100):
            assert cluster.set(f"pyc:kill:{i}", i)
        leader = cluster.get_node_from_key("pyc:kill:0").port
        kill(leader)
        for i in range(100, 200):
            assert set_until_done(cluster, f"pyc:kill:{i}", i)
        equal([cluster.get(f"pyc:kill:{i}") for i in range(200)], [b"%d" % i for i in range(200)])
        assert cluster.get_node_from_key("pyc:kill:0").port != leader


@check("a password and TLS, and the address that the cluster names is that of TLS")
def _():
    options = {
        "password": PASSWORD, "ssl": True, "ssl_ca_certs": certificate("ca.crt"),
        "ssl_certfile": certificate("client.crt"), "ssl_keyfile": certificate("client.key"),
    }
    with cluster_from(GUARDED_TLS, **options) as cluster:
        equal(cluster.get("guarded"), b"yes")
        equal([node.port for node in cluster.get_nodes()], [GUARDED_TLS])
