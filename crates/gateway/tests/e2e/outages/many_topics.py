"""Tens of thousands of topics on one node: what was joined is joined again at once, and every stream is checked."""

import random
import time

from bulk import BULK, subscribed
from cluster import Cluster
from harness import until
from observe import cpu_seconds

TOPICS = 50_000
CONNECTIONS = 10
# Of processor time, for a build without optimization. The engine's own test demands two seconds of wall-clock time,
# which says little here beside whatever else the machine does.
RESTORE_CPU_SECONDS = 8


def joined_topics(redis):
    """The channels that somebody is subscribed to."""
    return int(redis.info("stats")["pubsub_channels"])


def test_fifty_thousand_topics_are_joined_again():
    with Cluster(1, {"client": {"subscriptions_max": TOPICS // CONNECTIONS, **BULK}}) as cluster:
        node, redis = cluster.node(0), cluster.redis
        # With history, so that each position is checked as well.
        topics = [f"short:{number}" for number in range(TOPICS)]
        shares = [topics[index::CONNECTIONS] for index in range(CONNECTIONS)]
        with subscribed(node, shares) as sockets:
            before = joined_topics(redis)
            assert before >= TOPICS
            began, used = time.monotonic(), cpu_seconds(node.process)
            redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
            until(lambda: joined_topics(redis) < before, "the connection is cut")
            until(lambda: joined_topics(redis) == before, "every topic is joined again")
            took = time.monotonic() - began
            until(lambda: node.metric("fanwire_position_checks_total") >= TOPICS, "every stream is checked")
            checked = time.monotonic() - began
            used = cpu_seconds(node.process) - used
            print(f"{TOPICS} topics are joined again after {took:.2f} s, checked after {checked:.2f} s, with {used:.2f} s of processor time")
            assert used < RESTORE_CPU_SECONDS
            for index in random.sample(range(TOPICS), 100):
                node.publish(topics[index], index)
                (reply,) = sockets[index % CONNECTIONS].read_replies()
                assert reply["push"]["channel"] == topics[index]
                assert reply["push"]["pub"]["data"] == index
