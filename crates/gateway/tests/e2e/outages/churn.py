"""Hundreds of thousands of clients come and go, and nothing of them stays: no key in Redis, no memory in a node."""

import concurrent.futures
import socket

from bulk import BULK, command_all
from cluster import Cluster
from harness import RawSocket, until
from redis_server import reply, request

CHURN = 200_000
WARM_UP = 60_000
CONNECTIONS_PER_NODE = 4
# Topics that one connection joins in one frame, and leaves in the next; all connections share them.
FRAME_TOPICS = 100
TOPICS = 2000
# What allocators keep, and what was not touched during the warm-up.
KEPT_BYTES_MAX = 4 << 20
SETTINGS = {
    "client": BULK,
    "topics": {
        "namespaces": [
            {"name": "present", "presence": True, "join_leave": True, "allow_subscribe_for_client": True},
        ]
    }
}
# Keys without a TTL, of which there are none.
LASTING_KEYS = set()


def churn(connection, first, rounds):
    """Joins and leaves that many times `FRAME_TOPICS` topics."""
    for number in range(rounds):
        topics = [f"present:{(first + number * FRAME_TOPICS + index) % TOPICS}" for index in range(FRAME_TOPICS)]
        command_all(connection, "subscribe", topics)
        command_all(connection, "unsubscribe", topics)


def churn_on(cluster, count):
    """So many joins and leaves, on all nodes at once."""
    lanes = [node for node in cluster.nodes for _ in range(CONNECTIONS_PER_NODE)]
    rounds = count // FRAME_TOPICS // len(lanes)

    def lane(index):
        with RawSocket(lanes[index]) as connection:
            connection.connect(lanes[index], f"lane-{index}")
            churn(connection, index * TOPICS // len(lanes), rounds)

    with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
        list(pool.map(lane, range(len(lanes))))


def ttls(redis):
    """What is left of each key's life, in milliseconds; -1 is for ever."""
    keys = redis.keys()
    with socket.create_connection(("127.0.0.1", redis.port)) as connection:
        connection.sendall(b"".join(request("PTTL", key) for key in keys))
        replies = connection.makefile("rb")
        return {key: reply(replies) for key in keys}


def settled(cluster):
    """Waits until nobody is subscribed to anything any more."""
    for node in cluster.nodes:
        until(lambda: node.metric("fanwire_subscriptions") == 0, "nobody is subscribed")
        until(lambda: node.metric("fanwire_topics") == 0, "no topic is left")


def test_nothing_stays_of_those_who_come_and_go():
    with Cluster(2, SETTINGS) as cluster:
        redis = cluster.redis
        keys, channels = set(redis.keys()), redis.info("stats")["pubsub_channels"]

        def nothing_is_left():
            return set(redis.keys()) == keys and redis.info("stats")["pubsub_channels"] == channels

        with RawSocket(cluster.node(0)) as guest:
            guest.connect(cluster.node(0))
            topics = [f"present:{number}" for number in range(FRAME_TOPICS)]
            command_all(guest, "subscribe", topics)
            until(lambda: cluster.node(1).api("channels")["channels"].keys() == set(topics), "the guest is there")
            lives = ttls(redis)
            assert len(lives) >= len(keys) + FRAME_TOPICS, "members are kept"
            for_ever = {key for key, left in lives.items() if left == -1}
            assert for_ever == LASTING_KEYS, "everything has a TTL but what is documented"

        churn_on(cluster, WARM_UP)
        settled(cluster)
        until(nothing_is_left, "Redis holds what it held before")
        warm = [node.resident_bytes() for node in cluster.nodes]
        churn_on(cluster, CHURN)
        settled(cluster)
        until(nothing_is_left, "Redis holds what it held before")

        def kept():
            return [node.resident_bytes() - before for node, before in zip(cluster.nodes, warm)]

        print(f"resident before: {warm}, kept after {CHURN} joins and leaves: {kept()}")
        until(lambda: max(kept()) <= KEPT_BYTES_MAX, "every node's memory is back")
