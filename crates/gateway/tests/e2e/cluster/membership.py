"""Which nodes are one cluster: they come, go and die, and one whose settings do not fit does not come in."""

import json
import subprocess
import time

import pytest

from client import Client
from cluster import LEASE, Cluster
from harness import BINARY, DEADLINE, ApiError, environment, merge, until

ALL = {"node-0", "node-1", "node-2"}


def names(node):
    return {of["name"] for of in node.api("info")["nodes"]}


def refused(cluster, folder, engine):
    """Starts a node whose engine is set differently, which has to end with an error; gives what it said."""
    different = {"engine": {"redis": engine}, "server": {"port": 0}, "internal": {"port": 0}}
    file = folder / "fanwire.json"
    file.write_text(json.dumps(merge(cluster.node(0).config, different)))
    ended = subprocess.run(
        [BINARY, "serve", "--config", file],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=DEADLINE,
        check=False,
    )
    assert ended.returncode == 1, ended
    return ended.stderr


def test_a_node_that_comes_and_goes_is_known_at_once(cluster):
    with Cluster(0, redis=cluster.redis) as more:
        newcomer = more.add({"server": {"name": "newcomer"}})
        for node in [newcomer, *cluster.nodes]:
            assert names(node) == {*ALL, "newcomer"}
    for node in cluster.nodes:
        assert names(node) == ALL


def test_a_node_that_died_is_waited_for_no_longer_than_its_lease(cluster):
    """Until then it may only be slow, so whoever asks all nodes waits for it, for a while."""

    def answer_at_once(node):
        began = time.monotonic()
        return names(node) == ALL and time.monotonic() - began < 1

    with Cluster(0, redis=cluster.redis) as more:
        doomed = more.add({"server": {"name": "doomed"}})
        assert "doomed" in names(cluster.node(0))
        doomed.kill()
        # A question that was asked just before the lease ended still takes its time.
        until(lambda: all(map(answer_at_once, cluster.nodes)), "it is not waited for", 2 * LEASE)


def test_an_order_while_a_node_is_paused_is_done_when_it_wakes(cluster, fresh):
    """The asker does not wait for ever, is told which node has not done it, and the order is not lost."""
    sleeper, other = cluster.node(2), cluster.node(0)
    user = fresh("user")
    with Client(sleeper, sleeper.token(user)) as client:
        sleeper.pause()
        try:
            with pytest.raises(ApiError, match=f"^100 .* no answer from {sleeper.name} "):
                other.api("disconnect", {"user": user, "disconnect": {"code": 4123, "reason": "go"}})
        finally:
            sleeper.resume()
        # Had it slept for longer than its lease, it would close all its clients by its own code.
        assert client.closed() in (4123, 3010)
    until(lambda: names(other) == ALL, "the node is back")


def test_a_node_with_another_lease_is_refused(cluster, tmp_path):
    said = refused(cluster, tmp_path, {"lease": "7s"})
    assert "engine.redis.lease" in said and "7s" in said and f"{LEASE}s" in said, said
    assert names(cluster.node(0)) == ALL


def test_a_node_with_another_prefix_is_refused(cluster, tmp_path):
    said = refused(cluster, tmp_path, {"prefix": "other"})
    for word in '"other"', '"fanwire"', "engine.redis.prefix", "engine.redis.allow_other_prefixes":
        assert word in said, said
    assert names(cluster.node(0)) == ALL


def test_clusters_with_different_prefixes_share_a_redis_when_they_say_so(cluster, fresh):
    topic = fresh("open")
    other = {"engine": {"redis": {"prefix": "other", "allow_other_prefixes": True, "lease": "7s"}}}
    with Cluster(2, other, redis=cluster.redis) as apart:
        assert names(apart.node(0)) == {"node-0", "node-1"}
        assert names(cluster.node(0)) == ALL
        here, there = cluster.node(0), apart.node(1)
        with Client(here, here.token("alice")) as alice, Client(there, there.token("alice")) as namesake:
            alice.subscribe(topic)
            namesake.subscribe(topic)
            cluster.node(1).publish(topic, "here")
            apart.node(0).publish(topic, "there")
            assert alice.publications(topic, 1) == ["here"]
            assert namesake.publications(topic, 1) == ["there"]
            assert list(here.api("presence", {"channel": topic})["presence"]) == [alice.id]
            apart.node(0).api("disconnect", {"user": "alice"})
            assert namesake.closed() == 3503
            assert list(here.api("presence", {"channel": topic})["presence"]) == [alice.id]


def test_settings_may_change_once_all_nodes_have_gone(cluster):
    apart = {"prefix": "changing", "allow_other_prefixes": True}
    for lease in f"{LEASE}s", "9s", f"{LEASE}s":
        with Cluster(2, {"engine": {"redis": {**apart, "lease": lease}}}, cluster.redis) as changing:
            assert names(changing.node(1)) == {"node-0", "node-1"}


@pytest.mark.parametrize("engine", [{"lease": "7s"}, {"prefix": "other"}])
def test_nodes_that_are_in_stay_in_while_others_are_refused(cluster, tmp_path, engine, fresh):
    topic = fresh("open")
    with Client(cluster.node(0), cluster.node(0).token("alice")) as client:
        client.subscribe(topic)
        refused(cluster, tmp_path, engine)
        cluster.node(2).publish(topic, "still here")
        assert client.publications(topic, 1) == ["still here"]
