"""Redis is there, but cuts connections, answers nothing for a while or forgets everything, while traffic flows."""

import random
import time

from cluster import LEASE
from harness import until
from observe import redis_is_up
from outage import outage

# How often a node says that it lives.
BEAT = LEASE / 3


def lasted(seconds):
    """A fault is as long as the story wants it."""
    began = time.monotonic()
    until(lambda: time.monotonic() - began >= seconds, "the fault has lasted", seconds + 1)


def test_subscription_connections_are_cut():
    with outage() as (cluster, redis, traffic):
        assert redis.cli("CLIENT", "KILL", "TYPE", "pubsub") == len(cluster.nodes)


def test_every_connection_is_cut():
    with outage() as (cluster, redis, traffic):
        redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        redis.cli("CLIENT", "KILL", "TYPE", "pubsub")


def test_five_seconds_without_answers():
    with outage() as (cluster, redis, traffic):
        assert redis.cli("CLIENT", "PAUSE", "5000") == "OK"
        began = time.monotonic()
        until(lambda: redis.cli("PING") == "PONG", "Redis answers again")
        assert time.monotonic() - began > 4


def test_fifteen_seconds_frozen():
    with outage() as (cluster, redis, traffic):
        redis.pause()
        lasted(15)
        redis.resume()


def test_everything_is_forgotten():
    with outage(forgets=True, losses=0) as (cluster, redis, traffic):
        redis.cli("FLUSHALL")


def test_all_of_it_in_any_order():
    with outage(append_only=True, losses=None) as (cluster, redis, traffic):

        def all_beat():
            """Faults that follow each other must not add up to a lease without a heartbeat, which costs a node its
            clients."""
            until(lambda: all(redis_is_up(node) for node in cluster.nodes), "every node has Redis")
            lasted(BEAT)

        def frozen_node():
            all_beat()
            node = random.choice(cluster.nodes)
            node.pause()
            lasted(random.uniform(0, LEASE / 2))
            node.resume()
            all_beat()

        faults = [
            lambda: redis.cli("CLIENT", "KILL", "TYPE", "pubsub"),
            lambda: redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
            lambda: redis.cli("CLIENT", "PAUSE", "700"),
            lambda: (redis.kill(), redis.start()),
            frozen_node,
        ]
        for fault in random.choices(faults, k=20):
            fault()
            lasted(random.uniform(0, 0.7))
