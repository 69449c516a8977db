"""One history for all nodes: who leaves one node and comes back on another misses nothing and gets nothing twice."""

import itertools
import threading

from client import Client


def connect(node, user="alice"):
    return Client(node, node.token(user))


def subscribe_at(client, topic, position):
    # An offset of 0 is left out of replies.
    return client.subscribe(topic, recover=True, epoch=position["epoch"], offset=position.get("offset", 0))


def come_back(client, topic, position):
    """Subscribes at a position and gives what was missed."""
    reply = subscribe_at(client, topic, position)
    assert reply["recovered"], reply
    return [publication["data"] for publication in reply.get("publications", [])]


def history(node, topic, limit=-1):
    return node.api("history", {"channel": topic, "limit": limit})


def numbers(first, last):
    return list(range(first, last + 1))


def test_who_comes_back_on_another_node_gets_what_it_missed(cluster, fresh):
    topic = fresh("open")
    with connect(cluster.node(0)) as client:
        position = client.subscribe(topic)
        for number in numbers(1, 5):
            cluster.node(1).publish(topic, number)
        assert client.publications(topic, 5) == numbers(1, 5)
        position["offset"] = client.of("pub", topic)[-1]["offset"]
    for number in numbers(6, 15):
        cluster.node(number % 3).publish(topic, number)
    with connect(cluster.node(2)) as client:
        assert come_back(client, topic, position) == numbers(6, 15)
        cluster.node(0).publish(topic, 16)
        assert client.publications(topic, 1) == [16]


def test_who_missed_nothing_gets_nothing(cluster, fresh):
    topic = fresh("open")
    with connect(cluster.node(0)) as client:
        position = client.subscribe(topic)
    with connect(cluster.node(1)) as client:
        assert come_back(client, topic, position) == []


def test_who_missed_more_than_is_kept_is_told(cluster, fresh):
    topic = fresh("short")
    with connect(cluster.node(0)) as client:
        position = client.subscribe(topic)
    for number in numbers(1, 5):
        cluster.node(1).publish(topic, number)
    with connect(cluster.node(2)) as client:
        reply = subscribe_at(client, topic, position)
        assert reply["was_recovering"] and not reply.get("recovered")


def test_a_client_that_wanders_between_nodes_sees_one_stream(cluster, fresh):
    """Publishing never stops, so each return meets it at another point."""
    topic, ended = fresh("open"), threading.Event()
    published = itertools.count(1)

    def publish():
        while not ended.is_set():
            number = next(published)
            cluster.node(number % 3).publish(topic, number)

    publisher = threading.Thread(target=publish)
    seen, position = [], None
    try:
        for turn in range(15):
            with connect(cluster.node(turn % 3)) as client:
                if position is None:
                    position = client.subscribe(topic)
                    publisher.start()
                else:
                    seen += come_back(client, topic, position)
                missed, wanted = len(seen), len(seen) + 5
                client.wait(lambda: missed + len(client.data(topic)) >= wanted)
                seen += client.data(topic)
                position["offset"] = client.of("pub", topic)[-1]["offset"]
    finally:
        ended.set()
    publisher.join()
    assert seen == numbers(1, len(seen))


def test_history_is_the_same_from_each_node(cluster, fresh):
    topic = fresh("open")
    results = [cluster.node(number % 3).publish(topic, number) for number in numbers(1, 9)]
    assert [result["offset"] for result in results] == numbers(1, 9)
    assert len({result["epoch"] for result in results}) == 1
    answers = [history(node, topic) for node in cluster.nodes]
    assert [publication["data"] for publication in answers[0]["publications"]] == numbers(1, 9)
    assert answers[1] == answers[2] == answers[0]

    cluster.node(0).api("history_remove", {"channel": topic})
    for node in cluster.nodes:
        emptied = history(node, topic)
        assert not emptied.get("publications") and emptied["offset"] == 9


def test_an_idempotency_key_holds_on_all_nodes(cluster, fresh):
    for topic in fresh("open"), fresh("plain"):
        with connect(cluster.node(0)) as client:
            client.subscribe(topic)
            first, *others = [node.publish(topic, "once", idempotency_key="key") for node in cluster.nodes]
            assert others == [first, first]
            cluster.node(1).publish(topic, "end")
            assert client.publications(topic, 2) == ["once", "end"]


def test_versions_hold_on_all_nodes(cluster, fresh):
    topic = fresh("open")
    with connect(cluster.node(0)) as client:
        client.subscribe(topic)
        cluster.node(0).publish(topic, "five", version=5)
        cluster.node(1).publish(topic, "four", version=4)
        cluster.node(2).publish(topic, "five again", version=5)
        cluster.node(1).publish(topic, "six", version=6)
        assert client.publications(topic, 2) == ["five", "six"]


def test_what_a_client_publishes_reaches_clients_of_all_nodes(cluster, fresh):
    topic = fresh("open")
    everybody = [connect(node, f"user {index}") for index, node in enumerate(cluster.nodes)]
    for client in everybody:
        client.subscribe(topic)
    for client in everybody:
        client.ask(publish={"channel": topic, "data": client.id})
    for client in everybody:
        assert client.publications(topic, 3) == [one.id for one in everybody]
        senders = [publication["info"]["client"] for publication in client.of("pub", topic)]
        assert senders == [one.id for one in everybody]
    for client in everybody:
        client.socket.close()
