"""Redis is there, but cuts connections, answers nothing for a while or forgets everything, while traffic flows."""

import time

from harness import until
from outage import outage


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
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 15, "the outage has lasted")
        redis.resume()


def test_everything_is_forgotten():
    with outage(forgets=True, noticed=False) as (cluster, redis, traffic):
        redis.cli("FLUSHALL")
