"""Whoever publishes on one node is left out, and so is a client that the API names, on each of three nodes: live, where a
gap is repaired, and where the same client recovers. Everybody else gets everything, and so does the next connection."""

import contextlib

import pytest

from client import Client

EVERYTHING = ["by the writer", "by the other tab", "by the API, not for the other tab", "by the API, for all"]
OF_WRITER = EVERYTHING[1:]
OF_OTHER_TAB = [EVERYTHING[0], EVERYTHING[3]]


class Room:
    """A topic in which two tabs of one user, on two nodes, publish, and others read on all nodes."""

    def __init__(self, cluster, topic, opened):
        self.cluster, self.topic = cluster, topic

        def connect(index, user):
            node = cluster.node(index)
            return opened.enter_context(Client(node, node.token(user)))

        self.writer, self.other_tab = connect(0, "ann"), connect(1, "ann")
        self.readers = [connect(index, f"reader {index}") for index in range(3)]
        self.begin = [client.subscribe(topic) for client in [self.writer, self.other_tab, *self.readers]][0]

    def fill(self):
        self.writer.ask(publish={"channel": self.topic, "data": EVERYTHING[0]})
        self.other_tab.ask(publish={"channel": self.topic, "data": EVERYTHING[1]})
        # On a node that neither of them is on.
        self.cluster.node(2).publish(self.topic, EVERYTHING[2], exclude=self.other_tab.id)
        self.cluster.node(2).publish(self.topic, EVERYTHING[3])

    def is_seen(self):
        assert self.writer.publications(self.topic, 3) == OF_WRITER
        assert self.other_tab.publications(self.topic, 2) == OF_OTHER_TAB
        for reader in self.readers:
            assert reader.publications(self.topic, 4) == EVERYTHING

    def recovered(self, client):
        reply = client.subscribe(self.topic, recover=True, epoch=self.begin["epoch"], offset=0)
        assert reply["recovered"], reply
        return [publication["data"] for publication in reply["publications"]]


@pytest.fixture
def room(cluster, fresh):
    with contextlib.ExitStack() as opened:
        yield Room(cluster, fresh("unechoed"), opened)


def test_live(room):
    room.fill()
    room.is_seen()


def test_where_a_gap_is_repaired(cluster, room):
    with cluster.redis.unheard():
        room.fill()
    room.is_seen()


def test_where_the_same_client_recovers(room):
    room.fill()
    for client, expected in (room.writer, OF_WRITER), (room.other_tab, OF_OTHER_TAB):
        client.unsubscribe(room.topic)
        assert room.recovered(client) == expected


def test_the_next_connection_gets_it_on_each_node(cluster, room):
    room.fill()
    room.writer.socket.close()
    for node in cluster.nodes:
        with Client(node, node.token("ann")) as back:
            assert room.recovered(back) == EVERYTHING
        kept = node.api("history", {"channel": room.topic, "limit": -1})["publications"]
        assert [publication["data"] for publication in kept] == EVERYTHING
