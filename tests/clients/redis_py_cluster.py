"""redis-py's RedisCluster: any node to start from, and a leader that dies under it."""

import time

from check import HOST, LEADER, NODES, check, equal, kill_leader, raises
from redis.cluster import RedisCluster
from redis.exceptions import ClusterDownError, ConnectionError, ResponseError, TimeoutError

TAKEOVER_S = 10  # 2 s is what the cluster needs; redis-py retries at its own pace


@check("100 keys from each node as the start node")
def _():
    for port in NODES:
        with RedisCluster(host=HOST, port=port) as cluster:
            for i in range(100):
                assert cluster.set(f"pyc:{port}:{i}", i)
            equal([cluster.get(f"pyc:{port}:{i}") for i in range(100)], [b"%d" % i for i in range(100)])
            equal(cluster.exists(*(f"pyc:{port}:{i}" for i in range(100))), 100)
            equal(cluster.delete(*(f"pyc:{port}:{i}" for i in range(50))), 50)
            equal(cluster.get(f"pyc:{port}:0"), None)


@check("it knows one primary and two replicas")
def _():
    with RedisCluster(host=HOST, port=NODES[1]) as cluster:
        equal([node.port for node in cluster.get_primaries()], [LEADER])
        equal(sorted(node.port for node in cluster.get_replicas()), sorted(NODES[1:]))
        assert cluster.ping(target_nodes=RedisCluster.ALL_NODES)
        equal(cluster.cluster_info()["cluster_state"], "ok")


@check("a pipeline over many slots")
def _():
    with RedisCluster(host=HOST, port=NODES[2]) as cluster:
        pipeline = cluster.pipeline()
        for i in range(100):
            pipeline.set(f"pyc:{i}", i).get(f"pyc:{i}")
        equal(pipeline.execute(), [reply for i in range(100) for reply in (True, b"%d" % i)])


@check("errors are raised, not retried")
def _():
    with RedisCluster(host=HOST, port=NODES[1]) as cluster:
        with raises(ResponseError, "value too large"):
            cluster.set("pyc:a", b"v" * 65537)
        with raises(ResponseError, "wrong number of arguments for 'get' command"):
            cluster.execute_command("GET", "a", "b")


# What redis-py may raise while there is no leader: the application calls again, on the same client.
RETRIED = (ConnectionError, TimeoutError, ClusterDownError)


def set_until_done(cluster, key, value):
    deadline = time.monotonic() + TAKEOVER_S
    while True:
        try:
            return cluster.set(key, value)
        except RETRIED:
            if time.monotonic() >= deadline:
                raise


@check("after kill -9 of the leader the same client goes on, and finds all it wrote")
def _():
    with RedisCluster(host=HOST, port=NODES[1], socket_timeout=5) as cluster:
        for i in range(100):
            assert cluster.set(f"pyc:kill:{i}", i)
        kill_leader()
        for i in range(100, 200):
            assert set_until_done(cluster, f"pyc:kill:{i}", i)
        equal([cluster.get(f"pyc:kill:{i}") for i in range(200)], [b"%d" % i for i in range(200)])
        leader = cluster.get_node_from_key("pyc:kill:0").port
        assert leader in NODES[1:], leader
