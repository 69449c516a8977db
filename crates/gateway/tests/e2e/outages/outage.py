"""The frame of every story in which something happens to Redis under traffic, and what has to be so after each."""

import contextlib

from checker import Ended, Subscribed
from cluster import Cluster
from observe import LogMark, readiness, redis_is_up
from redis_server import RedisServer
from sdk import SdkClient
from traffic import Traffic

NODES = 3
# The only reason for which an outage may close a connection: a position that cannot be kept.
INSUFFICIENT_STATE = 3010
# How a client's own close ends.
OWN_CLOSE = 1000


@contextlib.contextmanager
def outage(append_only=False, forgets=False, losses=1):
    """Traffic of a cluster on a Redis to which the test may do anything. In the end everything must be as it was:
    nobody has missed anything, or everybody knows if Redis `forgets`. Each node says so many times that Redis is lost,
    and as often that it is back; `None` if the test cannot know how often."""
    with RedisServer(append_only=append_only) as redis, Cluster(NODES, redis=redis) as cluster:
        with Traffic(cluster, more_clients=[SdkClient]) as traffic:
            mark = LogMark(cluster.nodes)
            yield cluster, redis, traffic
            traffic.wait_for_publishes(50)
            traffic.check()
            assert_everybody_was_told(traffic) if forgets else assert_nobody_missed_anything(traffic)
            assert traffic.close_codes() <= {INSUFFICIENT_STATE, OWN_CLOSE}, "clients stay connected"
            for node in cluster.nodes:
                assert readiness(node)[0] == 200
                assert redis_is_up(node)
                lost, found = len(mark.lines(node, "Redis is lost")), len(mark.lines(node, "Redis is connected"))
                assert lost == found and losses in (lost, None), f"lines of loss: {lost}, of return: {found}"


def assert_nobody_missed_anything(traffic):
    """No recoverable subscription was ended by the server, and every recovery gave what was missed."""
    for client in traffic.clients:
        for topic in traffic.recoverable:
            events = client.subscriptions[topic].history.events
            ends = {event.code for event in events if isinstance(event, Ended)} - {OWN_CLOSE}
            assert not ends, f"{client.name} was cut off from {topic} with {ends}"
            made = [event for event in events if isinstance(event, Subscribed)]
            assert all(event.recovered for event in made[1:]), f"{client.name} lost its position in {topic}: {made}"


def assert_everybody_was_told(traffic):
    """Every recoverable subscription learnt that its stream is another now."""
    for client in traffic.clients:
        for topic in traffic.recoverable:
            events = client.subscriptions[topic].history.events
            made = [event for event in events if isinstance(event, Subscribed)]
            assert any(event.asked is not None and not event.recovered for event in made), f"{client.name}, {topic}"
            assert made[0].epoch != made[-1].epoch
