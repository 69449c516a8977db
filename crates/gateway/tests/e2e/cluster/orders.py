"""An order to any node reaches a client on whichever node it is, and has been carried out when the answer comes."""

import concurrent.futures
import time

import pytest

from client import Client, Closed
from cluster import Cluster
from harness import ApiError, until

LIMIT = 3
SETTINGS = {"client": {"user_connections_max": LIMIT}}


@pytest.fixture
def user(fresh):
    return fresh("user")


@pytest.fixture
def client(cluster, user):
    """A client of node 0; orders are given to the others."""
    with Client(cluster.node(0), cluster.node(0).token(user)) as client:
        yield client


@pytest.fixture(params=["user", "client"])
def whom(request, user, client):
    """How an order says whom it is for."""
    return {"user": user} if request.param == "user" else {"client": client.id}


def is_present(cluster, client, topic):
    """Whether nodes list the client in a topic, which all do or none."""
    said = {client.id in node.api("presence", {"channel": topic})["presence"] for node in cluster.nodes}
    assert len(said) == 1
    return said.pop()


@pytest.mark.parametrize("giver", [0, 1, 2])
def test_disconnect(cluster, client, whom, giver, fresh):
    topic = fresh("open")
    client.subscribe(topic)
    cluster.node(giver).api("disconnect", {**whom, "disconnect": {"code": 4123, "reason": "go"}})
    assert not is_present(cluster, client, topic)
    assert client.closed() == 4123


def test_disconnect_spares_whom_it_is_told_to_spare(cluster, client, user, fresh):
    topic = fresh("open")
    client.subscribe(topic)
    with Client(cluster.node(1), cluster.node(1).token(user)) as other:
        other.subscribe(topic)
        cluster.node(2).api("disconnect", {"user": user, "whitelist": [other.id]})
        assert not is_present(cluster, client, topic)
        assert client.closed() == 3503
        assert is_present(cluster, other, topic)


@pytest.mark.parametrize("giver", [0, 1, 2])
def test_subscribe_and_unsubscribe(cluster, client, whom, giver, fresh):
    topic = fresh("token")
    node = cluster.node(giver)
    node.api("subscribe", {**whom, "channel": topic, "data": {"welcome": True}})
    assert is_present(cluster, client, topic)
    node.publish(topic, "hello")
    assert client.is_told("subscribe")["subscribe"]["data"] == {"welcome": True}
    assert client.publications(topic, 1) == ["hello"]

    node.api("unsubscribe", {**whom, "channel": topic})
    assert not is_present(cluster, client, topic)
    assert client.is_told("unsubscribe")["unsubscribe"]["code"] == 2000


def test_unsubscribe_what_the_client_subscribed_itself(cluster, client, whom, fresh):
    topic = fresh("open")
    client.subscribe(topic)
    cluster.node(2).api("unsubscribe", {**whom, "channel": topic})
    assert not is_present(cluster, client, topic)
    assert client.is_told("unsubscribe")["channel"] == topic


def test_refresh(cluster, client, whom, fresh):
    later = int(time.time()) + 3600
    cluster.node(1).api("refresh", {**whom, "expire_at": later})
    refreshed = client.is_told("refresh")["refresh"]
    assert refreshed["expires"] and 3500 < refreshed["ttl"] <= 3600

    topic = fresh("open")
    client.subscribe(topic)
    cluster.node(2).api("refresh", {**whom, "expired": True})
    assert not is_present(cluster, client, topic)
    assert client.closed() == 3005


def test_an_order_reaches_all_clients_of_a_user(cluster, user, fresh):
    topic = fresh("open")
    everybody = [connect(node, user) for node in cluster.nodes]
    for client in everybody:
        client.subscribe(topic)
    cluster.node(0).api("disconnect", {"user": user})
    for client in everybody:
        assert not is_present(cluster, client, topic)
        assert client.closed() == 3503
        client.socket.close()


def test_orders_for_somebody_who_is_nowhere_do_nothing(cluster, client, fresh):
    topic = fresh("open")
    client.subscribe(topic)
    nobody = {"user": fresh("nobody")}
    for node in cluster.nodes:
        node.api("disconnect", nobody)
        node.api("unsubscribe", {**nobody, "channel": topic})
        node.api("subscribe", {**nobody, "channel": topic})
        node.api("refresh", {**nobody, "expired": True})
    assert is_present(cluster, client, topic)
    with pytest.raises(ApiError) as refused:
        cluster.node(1).api("disconnect", {})
    assert refused.value.code == 107


@pytest.mark.parametrize("topic", ["!control", "!node:1", "!user:alice", "!"])
def test_the_clusters_own_topics_are_nobody_elses(cluster, client, topic):
    assert client.reply_to(subscribe={"channel": topic})["error"]["code"] == 107
    for method in "publish", "history", "presence", "presence_stats", "subscribe":
        with pytest.raises(ApiError) as refused:
            cluster.node(0).api(method, {"channel": topic, "data": {}, "user": "alice"})
        assert refused.value.code == 107, method
    assert not [name for node in cluster.nodes for name in node.api("channels")["channels"] if name.startswith("!")]


def connect(node, user):
    return Client(node, node.token(user))


def connect_if_free(node, user, refusals=(3504,)):
    """`None` if the user has too many connections."""
    try:
        return connect(node, user)
    except Closed as why:
        assert why.args[0] in refusals
        return None


def connect_when_free(node, user):
    """The holder of the last place may have left without Redis knowing it yet: then the client is to come back."""
    return until(lambda: connect_if_free(node, user, (3504, 3013)), "a place is free")


def test_a_user_has_no_more_connections_than_the_limit_on_all_nodes_together(cluster, user):
    everybody = [connect(cluster.node(index), user) for index in range(LIMIT)]
    assert not any(connect_if_free(node, user) for node in cluster.nodes)
    # A place that becomes free on one node is free on another.
    everybody.pop(0).socket.close()
    everybody.append(connect_when_free(cluster.node(1), user))
    assert not any(connect_if_free(node, user) for node in cluster.nodes)
    for client in everybody:
        client.socket.close()


def test_users_who_come_at_once_are_never_more_than_the_limit(cluster, user):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        coming = [pool.submit(connect_if_free, cluster.node(index % 3), user) for index in range(12)]
    came = [client for client in (one.result() for one in coming) if client]
    assert len(came) == LIMIT
    for client in came:
        client.socket.close()


def test_whoever_is_refused_takes_no_place(cluster, user):
    here, elsewhere = cluster.node(0), cluster.node(1)
    everybody = [connect(here, user) for _ in range(LIMIT)]
    for _ in range(2 * LIMIT):
        assert not connect_if_free(elsewhere, user)
    for client in everybody:
        client.socket.close()
    everybody = [connect_when_free(elsewhere, user) for _ in range(LIMIT)]
    for client in everybody:
        client.socket.close()


def test_places_on_a_dead_node_become_free_with_its_lease_and_nobody_is_sent_away_for_good(user, listeners):
    # Long enough for what happens here before it ends.
    lease = {"engine": {"redis": {"lease": "10s"}}}
    with Cluster(2, {"client": {"user_connections_max": 1}, **lease}) as cluster:
        dying, living = cluster.nodes
        lost = connect(dying, user)
        assert not connect_if_free(living, user)
        dying.kill()
        # Until its lease ends nobody knows better than that the dead node holds the place, and nobody confirms it.
        assert not connect_if_free(living, user, (3013,))
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            coming = [pool.submit(connect_if_free, living, user, (3013,)) for _ in range(8)]
        assert not any(one.result() for one in coming)
        refused = living.metric("fanwire_connections_closed_total", code="3013")
        client = listeners.open("json", user, living, living.token(user), ["open:mine"])
        assert not client.of("disconnected")
        assert living.metric("fanwire_connections_closed_total", code="3013") > refused
        assert not connect_if_free(living, user)
        listeners.close(client)
        lost.socket.close()


@pytest.fixture(scope="module")
def singles():
    """A cluster on which a user has one connection, which the server subscribes to the user's own topic."""
    personal = {"enabled": True, "namespace": "open", "single_connection": True}
    with Cluster(2, {"client": {"personal_topic": personal}}) as cluster:
        yield cluster


def test_a_users_newer_connection_closes_the_older_one_on_another_node(singles, user):
    older = connect(singles.node(0), user)
    newer = connect(singles.node(1), user)
    assert older.closed() == 3504
    newest = connect(singles.node(0), user)
    assert newer.closed() == 3504
    topic = f"open:#{user}"
    singles.node(1).publish(topic, "still here")
    assert newest.publications(topic, 1) == ["still here"]
    for client in older, newer, newest:
        client.socket.close()


def test_of_a_users_connections_that_come_at_once_one_stays(singles, fresh):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            user = fresh("user")
            coming = [pool.submit(connect_if_free, node, user) for node in singles.nodes]
            came = [client for client in (one.result() for one in coming) if client]
            topic = f"open:#{user}"

            def present():
                return singles.node(0).api("presence", {"channel": topic})["presence"]

            until(lambda: len(present()) <= 1, "all but one are closed")
            assert list(present()) in [[client.id] for client in came]
            for client in came:
                client.socket.close()
