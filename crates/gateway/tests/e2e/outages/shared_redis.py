"""A Redis that others use too: another environment in another database, and publishers that are no node. Nobody hears
what is not theirs, and nothing that arrives makes a node ask Redis without end."""

import json
import time

import pytest

from cluster import Cluster
from harness import RawSocket, Server, until
from observe import LogMark, readiness, redis_settings
from redis_server import RedisServer

WATCH_SECONDS = 3
# Scripts that nodes may run in a second, beside the few of their own, however much arrives that is not theirs.
SCRIPTS_PER_SECOND_MAX = 100
FOREIGN = "fanwire_redis_publications_foreign_total"


def scripts(redis):
    """How many scripts Redis has run."""
    calls = redis.info("commandstats").get("cmdstat_evalsha", "calls=0")
    return int(calls.partition("calls=")[2].partition(",")[0])


def assert_paced(redis, during=lambda: None):
    before, began = scripts(redis), time.monotonic()
    while time.monotonic() - began < WATCH_SECONDS:
        during()
    rate = (scripts(redis) - before) / (time.monotonic() - began)
    print(f"{rate:.0f} scripts in a second")
    assert rate < SCRIPTS_PER_SECOND_MAX, f"{rate:.0f} scripts in a second"


def assert_publishes(node, channel):
    began = time.monotonic()
    node.publish(channel, "answered")
    print(f"a publish was answered after {time.monotonic() - began:.3f} s")


class Listener:
    """A subscribed client that hears everything that comes."""

    def __init__(self, node, *channels):
        self.raw = RawSocket(node)
        self.raw.connect(node)
        for number, channel in enumerate(channels, 2):
            self.raw.send_commands({"id": number, "subscribe": {"channel": channel}})
            assert "subscribe" in self.raw.read_reply(number)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.raw.__exit__(*error)

    def next_data(self):
        """The next publication's data; a subscription must not end."""
        while True:
            for reply in self.raw.read_replies():
                push = reply.get("push", {})
                assert "unsubscribe" not in push, push
                if not reply:
                    self.raw.send_text("{}")
                elif "pub" in push:
                    return push["pub"]["data"]


@pytest.fixture
def redis():
    with RedisServer() as redis:
        yield redis


def in_database(number):
    return {"engine": {"redis": {"database": number}}}


def test_two_environments_in_one_redis(redis):
    with Cluster(2, redis=redis) as here, Cluster(2, in_database(7), redis=redis) as there:
        with Listener(here.node(0), "open:one", "plain:one") as one, Listener(there.node(0), "open:one", "plain:one") as two:
            there.node(1).publish("open:one", "there")
            assert two.next_data() == "there"
            assert_paced(redis)
            for node in (here.node(1), there.node(1)):
                assert_publishes(node, "open:other")
            there.node(1).publish("plain:one", "there, not kept")
            here.node(1).publish("open:one", "here")
            assert (one.next_data(), two.next_data()) == ("here", "there, not kept")
            # An order concerns the clients of one environment.
            there.node(1).api("disconnect", {"user": "nobody"})
            assert_paced(redis)
            assert all(len(cluster.node(0).api("info")["nodes"]) == 2 for cluster in (here, there))
            assert sum(node.metric(FOREIGN) for node in here.nodes + there.nodes) == 0


def frame(epoch, offset, data):
    """What a node publishes through a topic's channel, as `broker/src/redis/frame.rs` reads it."""
    return b"\x01%s%s%d\n\x01\x01\x00%s" % (epoch, b"a" * 8, offset, json.dumps(data).encode())


def position(redis, channel):
    """The epoch and the top of the topic's stream."""
    meta = redis.cli("GET", f"fanwire:default:m:{{{channel}}}").encode()
    return meta[1:9], int(meta[25:].split()[0])


@pytest.mark.parametrize("kind", ["one other epoch", "ever new epochs", "offsets above the top", "no frame at all"])
def test_a_publisher_that_is_no_node(redis, kind):
    with Server(redis_settings(redis.address)) as node, Listener(node, "open:mine") as client:
        node.publish("open:mine", 1)
        assert client.next_data() == 1
        mark = LogMark([node])
        epoch, top = position(redis, "open:mine")
        number = 0

        def publish():
            nonlocal number
            number += 1
            message = {
                "one other epoch": frame(b"zzzzzzzz", number, "foreign"),
                "ever new epochs": frame(b"%08d" % number, 1, "foreign"),
                "offsets above the top": frame(epoch, top + 1000 + number, "foreign"),
                "no frame at all": b"nonsense",
            }[kind]
            assert redis.cli("PUBLISH", "fanwire:default:c:{open:mine}", message) == 1

        publish()
        assert_paced(redis)
        assert_paced(redis, publish)
        assert_publishes(node, "open:other")
        node.publish("open:mine", 2)
        assert client.next_data() == 2
        if kind != "no frame at all":
            until(lambda: node.metric(FOREIGN) == number, "all that was dropped is counted")
            said = mark.lines(node, "not in the topic's history")
            assert 1 <= len(said) <= 2, said
            assert "another database" in said[0]["message"]
            status, text = readiness(node)
            assert status == 200 and "publications of others arrive" in text, text


def test_an_order_of_others(redis):
    """Orders of the cluster travel through a topic like any other."""
    with Cluster(2, redis=redis) as cluster:
        def order():
            message = frame(b"zzzzzzzz", 1, {"from": "none"})
            assert redis.cli("PUBLISH", "fanwire:default:c:{!control}", message) == 2

        order()
        assert_paced(redis)
        assert_paced(redis, order)
        cluster.node(0).api("disconnect", {"user": "nobody"})


def test_a_position_that_cannot_be_read_is_asked_for_with_pauses(redis):
    """A lost connection makes a node compare its positions, whatever became of their keys."""
    with Server(redis_settings(redis.address)) as node, Listener(node, "open:taken") as client:
        node.publish("open:taken", 1)
        assert client.next_data() == 1
        key = "fanwire:default:m:{open:taken}"
        meta = redis.cli("GET", key)
        redis.cli("SET", key, "not ours")
        redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
        until(lambda: "[+] redis ok" in readiness(node)[1] and node.metric("fanwire_redis_reconnects_total") == 1, "it is connected again")
        assert_paced(redis)
        redis.cli("SET", key, meta)
        node.publish("open:taken", 2)
        assert client.next_data() == 2
