"""Nodes die, freeze and start without Redis while traffic flows: nobody is lost in silence, nobody haunts presence."""

import time

import pytest

from checker import Leave
from cluster import LEASE, Cluster
from harness import until
from observe import LogMark, UnreadyServer, cpu_seconds, readiness, redis_settings
from redis_server import RedisServer
from relay import Relay
from traffic import CLIENTS, GHOST_SECONDS, Traffic

NODES = 3
TERMINAL_CODE_MIN = 3500


@pytest.fixture
def cluster():
    with Cluster(NODES) as cluster:
        yield cluster


def until_seen(traffic, time_wanted):
    """Waits until presence was asked for after that time."""

    def was_seen():
        return any(snapshot.time > time_wanted for snapshot in traffic.snapshots)

    until(was_seen, "presence was watched for long enough")


def assert_was_present(traffic, gone, since):
    """Snapshots could have shown ghosts: those who have gone are present until the lease ends."""
    assert any(gone & snapshot.clients for snapshot in traffic.snapshots if snapshot.time > since)


def assert_said_to_leave_once(traffic, gone):
    """Whoever was there all the time was told exactly these leaves, by whatever node."""
    watchers = [client for client in traffic.clients if len(client.lives) == 1]
    assert len(watchers) == CLIENTS - len(gone)
    for client in watchers:
        for topic in traffic.recoverable:
            events = client.subscriptions[topic].history.events
            left = [event.client for event in events if isinstance(event, Leave)]
            assert sorted(left) == sorted(gone), f"{client.name} was told of other leaves in {topic}"


def test_a_killed_node(cluster):
    with Traffic(cluster) as traffic:
        victim = cluster.node(1)
        gone = traffic.leave_out(victim)
        assert len(gone) >= CLIENTS // NODES
        killed = time.monotonic()
        victim.kill()
        until_seen(traffic, killed + GHOST_SECONDS + 1)
        assert_was_present(traffic, gone, killed)
        # Its clients are on the others before anybody else has noticed.
        traffic.wait_for_clients()
        traffic.wait_for_publishes(50)
        traffic.check()
        assert_said_to_leave_once(traffic, gone)


def test_a_frozen_node(cluster):
    with Traffic(cluster) as traffic:
        victim = cluster.node(2)
        lives = [client.lives[-1] for client in traffic.clients_of(victim)]
        gone = traffic.leave_out(victim)
        paused = time.monotonic()
        victim.pause()
        until_seen(traffic, paused + 2 * LEASE)
        assert_was_present(traffic, gone, paused)
        victim.resume()
        until(lambda: all(life.ended for life in lives), "the clients of the node are sent away", LEASE + 2)
        codes = {life.code for life in lives}
        assert all(3000 <= code < TERMINAL_CODE_MIN for code in codes), f"closed with {codes}"
        traffic.asked_nodes.add(victim)
        traffic.wait_for_publishes(50)
        traffic.check()
        assert_said_to_leave_once(traffic, gone)


def test_a_node_that_dies_while_redis_is_away():
    """No node may be fenced because Redis was lost, but nodes that died meanwhile must be."""
    with RedisServer(append_only=True) as redis, Cluster(NODES, redis=redis) as cluster:
        with Traffic(cluster) as traffic:
            redis.kill()
            victim = cluster.node(1)
            gone = traffic.leave_out(victim)
            victim.kill()
            redis.start()
            came_back = time.monotonic()
            # Every node has a lease's time to return before it is fenced.
            until_seen(traffic, came_back + LEASE + GHOST_SECONDS)
            traffic.check()
            assert_said_to_leave_once(traffic, gone)


def test_clients_move_between_nodes_of_which_one_lags_behind():
    """Whoever comes from a node that has delivered more gets nothing twice, and nothing is missing."""
    with RedisServer() as redis, Relay(redis, lag_seconds=0.5) as relay, Cluster(NODES - 1, redis=redis) as cluster:
        cluster.add({"engine": {"redis": {"address": relay.address}}})
        with Traffic(cluster) as traffic:
            for _ in range(2 * NODES):
                traffic.come_back(traffic.clients)
                traffic.wait_for_clients()
                traffic.wait_for_publishes(50)
            traffic.check()


def test_a_node_that_starts_without_redis():
    with RedisServer() as redis:
        redis.kill()
        with UnreadyServer(redis_settings(redis.address)) as node:
            mark = LogMark([node])
            mark.begin[node] = 0
            said = until(lambda: mark.lines(node, "Redis is unavailable"), "it says what is missing")
            assert readiness(node)[0] == 503
            before, began = cpu_seconds(node.process), time.monotonic()
            until(lambda: time.monotonic() - began > 2, "some attempts have failed")
            assert cpu_seconds(node.process) - before < 0.4, "a node that waits for Redis costs next to nothing"
            assert mark.lines(node, "Redis is unavailable") == said, "it is said once"
            redis.start()
            until(lambda: readiness(node)[0] == 200, "the node is ready", LEASE)
            node.publish("open:first", 1)
            assert len(mark.lines(node, "Redis is connected")) == 1
