"""For the recipes: a redis-py client that goes to the node that leads, and finds the next one.

    connect("127.0.0.1:6379")                                     that server
    connect("127.0.0.1:6379,127.0.0.1:6380,127.0.0.1:6381")       whichever of the cluster leads

A command that meets an election raises redis.ConnectionError, as one whose connection breaks does; the
next one goes to the new leader. Whether to repeat the command is for the caller to say: it may have been
carried out. (redis-py's RedisCluster finds the leader, too, but has transactions only from 6.0 on.)
"""

import contextlib

import redis
from redis.exceptions import ClusterDownError, MovedError

TIMEOUT_S = 5
LOST = ("NOQUORUM", "outcome unknown", "timeout")  # what else a node says that lost its leadership


def connect(addresses):
    nodes = [(host, int(port)) for host, _, port in (one.rpartition(":") for one in addresses.split(","))]
    if len(nodes) == 1:
        return redis.Redis(*nodes[0], socket_timeout=TIMEOUT_S)
    pool = redis.ConnectionPool(
        connection_class=LeaderConnection, nodes=nodes, socket_timeout=TIMEOUT_S
    )
    return redis.Redis(connection_pool=pool)


@contextlib.contextmanager
def transaction(client):
    """client.pipeline(), whose WatchError means that a watched key was changed and nothing was carried out.

    redis-py raises it as well when a connection breaks while keys are watched, though nobody knows then
    what became of an EXEC: here that is redis.ConnectionError, as it is without WATCH.
    """
    with client.pipeline() as pipeline:
        try:
            yield pipeline
        except redis.WatchError as error:
            if isinstance(error.__context__, (redis.ConnectionError, redis.TimeoutError)):
                raise redis.ConnectionError(f"while keys were watched: {error.__context__}") from error
            raise


class LeaderConnection(redis.Connection):
    """Asks the nodes who leads whenever it connects."""

    def __init__(self, nodes, **options):
        super().__init__(**options)
        self._nodes = nodes

    def connect(self):
        if self._sock is None:
            self.host, self.port = leader(self._nodes)
        super().connect()

    def read_response(self, *args, **options):
        try:
            return super().read_response(*args, **options)
        except redis.ResponseError as error:
            if isinstance(error, (MovedError, ClusterDownError)) or str(error).startswith(LOST):
                self.disconnect()
                raise redis.ConnectionError(f"no longer the leader: {error}") from error
            raise


def leader(nodes):
    """(host, port) of the leader, by the word of the first node that knows."""
    for host, port in nodes:
        try:
            with redis.Redis(host, port, socket_timeout=1) as node:
                for address, told in node.cluster("NODES").items():
                    if "master" in told["flags"] and told["connected"]:
                        host, _, port = address.rpartition(":")
                        return host, int(port)
        except (redis.ConnectionError, redis.TimeoutError):
            continue
    raise redis.ConnectionError("no node knows a leader")
