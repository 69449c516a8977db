"""Redis goes away and comes back, with and without what it kept, while traffic flows. Clients stay connected, nothing
is lost in silence, nothing stays deaf, and no node has to be restarted."""

import time

from checker import ACKNOWLEDGED
from harness import until
from observe import readiness, redis_is_up
from outage import outage

# Publishes that were under way when Redis died may be answered after it.
UNDER_WAY_MAX = 10


def keep_away(cluster, redis, traffic, seconds):
    """Redis is dead for that long; what its loss looks like meanwhile."""
    redis.kill()
    killed, answered = time.monotonic(), len(traffic.publishes)
    for node in cluster.nodes:
        until(lambda: not redis_is_up(node), "a metric shows the loss", 2)
        # Taking every node out of its balancer would help nobody.
        status, text = readiness(node)
        assert status == 200 and "degraded" in text, text
    until(lambda: time.monotonic() - killed > seconds, "the outage has lasted", seconds + 1)
    meanwhile = traffic.publishes[answered:]
    assert len(meanwhile) > 10 * seconds, "publishes are answered at once"
    assert sum(publish.outcome == ACKNOWLEDGED for publish in meanwhile) <= UNDER_WAY_MAX


def test_two_seconds_away_and_back_empty():
    with outage(forgets=True) as (cluster, redis, traffic):
        keep_away(cluster, redis, traffic, 2)
        redis.start()


def test_two_seconds_away_and_back_with_its_data():
    with outage(append_only=True) as (cluster, redis, traffic):
        keep_away(cluster, redis, traffic, 2)
        redis.start()


def test_clients_that_come_back_while_it_is_away():
    """They are connected and wait with their subscriptions, which recover what was missed."""
    with outage(append_only=True) as (cluster, redis, traffic):
        redis.kill()
        comers = traffic.clients[:6]
        traffic.come_back(comers)
        until(lambda: all(len(client.lives) == 2 and client.client_id for client in comers), "they are connected")
        until(lambda: all(client.retries > len(traffic.topics) for client in comers), "they are asked to wait")
        redis.start()


def test_forty_seconds_away_which_is_longer_than_a_lease():
    with outage(forgets=True) as (cluster, redis, traffic):
        keep_away(cluster, redis, traffic, 40)
        redis.start()
