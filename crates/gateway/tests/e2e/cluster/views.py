"""Every node gives the same picture of the cluster: who is present, which topics are active, which nodes there are."""

import contextlib

import pytest

from client import Client
from harness import until


@pytest.fixture
def clients(cluster):
    """Connects clients to nodes; those that are left are gone everywhere when the next test begins."""
    with contextlib.ExitStack() as opened:
        yield lambda index, user: opened.enter_context(Client(cluster.node(index), cluster.node(index).token(user)))
    until(lambda: not channels(cluster.node(0)), "all subscriptions of the test have ended")


def presence(node, topic):
    """Client and user of everybody who is in the topic."""
    present = node.api("presence", {"channel": topic})["presence"]
    return {client: info["user"] for client, info in present.items()}


def stats(node, topic):
    counted = node.api("presence_stats", {"channel": topic})
    return counted["num_clients"], counted["num_users"]


def channels(node, pattern=""):
    return {name: of["num_clients"] for name, of in node.api("channels", {"pattern": pattern})["channels"].items()}


def everywhere(cluster, ask, *about):
    """What all nodes answer, which is the same."""
    answers = [ask(node, *about) for node in cluster.nodes]
    assert all(answer == answers[0] for answer in answers), answers
    return answers[0]


def test_who_subscribed_is_seen_from_each_node_right_after_the_reply(cluster, clients, fresh):
    topic = fresh("open")
    expected = {}
    for index, user in enumerate(["alice", "bob", "alice"]):
        client = clients(index, user)
        client.subscribe(topic)
        expected[client.id] = user
        assert everywhere(cluster, presence, topic) == expected
        assert everywhere(cluster, stats, topic) == (len(expected), len(set(expected.values())))
        assert everywhere(cluster, channels) == {topic: len(expected)}
    # Clients are answered as the API is.
    assert set(client.ask(presence={"channel": topic})["presence"]) == set(expected)


def test_who_left_is_seen_nowhere_right_after_the_reply(cluster, clients, fresh):
    topic = fresh("open")
    everybody = [clients(index, f"user {index}") for index in range(3)]
    for client in everybody:
        client.subscribe(topic)
    for left, client in enumerate(everybody, 1):
        client.unsubscribe(topic)
        staying = everybody[left:]
        assert everywhere(cluster, presence, topic) == {one.id: f"user {left + at}" for at, one in enumerate(staying)}
        assert everywhere(cluster, stats, topic) == (len(staying), len(staying))
        assert everywhere(cluster, channels) == ({topic: len(staying)} if staying else {})


def test_who_disconnected_is_gone_everywhere(cluster, clients, fresh):
    topic = fresh("open")
    alice, bob = clients(0, "alice"), clients(1, "bob")
    alice.subscribe(topic)
    bob.subscribe(topic)
    alice.socket.close()
    until(lambda: everywhere(cluster, presence, topic) == {bob.id: "bob"}, "alice is gone")
    assert everywhere(cluster, channels) == {topic: 1}


def test_channels_of_all_nodes_are_listed_by_each(cluster, clients, fresh):
    shared, own = fresh("plain"), [fresh("plain") for _ in cluster.nodes]
    everybody = [clients(index, "alice") for index in range(3)]
    for client, topic in zip(everybody, own):
        client.subscribe(shared)
        client.subscribe(topic)
    assert everywhere(cluster, channels) == {shared: 3, **dict.fromkeys(own, 1)}
    assert everywhere(cluster, channels, own[1][:-2] + "*") == {own[1]: 1}
    assert everywhere(cluster, channels, "nothing*") == {}


def test_each_node_knows_all_nodes(cluster, clients, fresh):
    topics = [fresh("plain"), fresh("plain")]
    for index, user in [(0, "alice"), (0, "alice"), (2, "bob")]:
        client = clients(index, user)
        for topic in topics:
            client.subscribe(topic)

    def counts(node):
        nodes = sorted(node.api("info")["nodes"], key=lambda of: of["name"])
        assert len({of["uid"] for of in nodes}) == 3
        assert len({of["version"] for of in nodes}) == 1
        counted = "name", "num_clients", "num_users", "num_subs", "num_channels"
        return [tuple(of[key] for key in counted) for of in nodes]

    assert everywhere(cluster, counts) == [("node-0", 2, 1, 4, 2), ("node-1", 0, 0, 0, 0), ("node-2", 1, 1, 2, 2)]


def test_joins_and_leaves_reach_clients_of_all_nodes_once(cluster, clients, fresh):
    topic = fresh("open")
    watchers = [clients(index, f"watcher {index}") for index in range(3)]
    # Joins and leaves are told after the replies. Each has come before the next step, so all have one order.
    for watcher in watchers:
        watcher.subscribe(topic)
        watcher.is_told("join")
    guests = [clients(index, f"guest {index}") for index in range(3)]
    for count, guest in enumerate(guests, 1):
        guest.subscribe(topic)
        guest.unsubscribe(topic)
        watchers[0].wait(lambda: len(watchers[0].of("leave", topic)) == count)
    cluster.node(0).publish(topic, "end")

    came = [guest.id for guest in guests]
    for place, watcher in enumerate(watchers):
        # The order of a topic holds for all events in it, so whatever was to come before this has come.
        watcher.publications(topic, 1)
        joined = [join["info"]["client"] for join in watcher.of("join", topic)]
        left = [leave["info"]["client"] for leave in watcher.of("leave", topic)]
        # A watcher sees those who came after it, and itself.
        assert joined == [one.id for one in watchers[place:]] + came
        assert left == came
