"""redis-py's RedisCluster: any node to start from, and a leader that dies under it."""

import contextlib
import logging
import time

import redis
from check import FOLLOWERS, HOST, LEADER, NODES, check, equal, kill_leader, paused, raises
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
            equal([cluster.get(f"pyc:{port}:{i}") for i in range(100)], [b"%d" % i for i in range(100)])
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

# Before 4.4 redis-py can't read the topology again when the node it lost is the first that CLUSTER
# SLOTS names, whatever the server: "cannot pickle '_thread.lock' object". It can when it asks the
# node that it started from instead.
OLD = tuple(map(int, redis.__version__.split(".")[:2])) < (4, 4)
LASTING = {"dynamic_startup_nodes": False} if OLD else {}


def set_until_done(cluster, key, value):
    deadline = time.monotonic() + TAKEOVER_S
    while True:
        try:
            return cluster.set(key, value)
        except RETRIED:
            if time.monotonic() >= deadline:
                raise


@check("without a majority it raises; with one again, the same client goes on")
def _():
    with cluster_from(FOLLOWERS[0], socket_timeout=0.2, **LASTING) as cluster:
        assert cluster.set("pyc:pause", "1")
        with paused([LEADER, FOLLOWERS[1]]):
            with raises(RETRIED, ""):
                cluster.set("pyc:pause", "2")
        assert set_until_done(cluster, "pyc:pause", "3")
        equal(cluster.get("pyc:pause"), b"3")


@check("after kill -9 of the leader the same client goes on, and finds all it wrote")
def _():
    with cluster_from(FOLLOWERS[0], socket_timeout=5, **LASTING) as cluster:
        for i in range(100):
            assert cluster.set(f"pyc:kill:{i}", i)
        kill_leader()
        for i in range(100, 200):
            assert set_until_done(cluster, f"pyc:kill:{i}", i)
        equal([cluster.get(f"pyc:kill:{i}") for i in range(200)], [b"%d" % i for i in range(200)])
        assert cluster.get_node_from_key("pyc:kill:0").port in FOLLOWERS
