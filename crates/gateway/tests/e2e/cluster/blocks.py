"""Blocked users and revoked tokens: told to one node, known to all, also to those that come later or come back."""

import time

import pytest

from client import Client, Closed
from cluster import Cluster
from harness import ApiError, RawSocket, request, until


def answer(node, token):
    """What a connect with the token is answered with: `connected`, or the code of the close or error."""
    try:
        with Client(node, token):
            return "connected"
    except Closed as why:
        return why.args[0]


def answers(cluster, token):
    return {answer(node, token) for node in cluster.nodes}


def publish(node, token, topic):
    return request("POST", f"{node.http}/publish?topic={topic}&token={token}", b'"hello"', {}).status


def test_a_blocked_user_is_closed_everywhere_and_comes_back_nowhere(cluster, fresh):
    user, topic = fresh("user"), fresh("open")
    tokens = [node.token(user) for node in cluster.nodes]
    everybody = [Client(node, token) for node, token in zip(cluster.nodes, tokens)]
    other = Client(cluster.node(0), cluster.node(0).token(fresh("other")))
    assert cluster.node(1).api("block_user", {"user": user}) == {}
    assert [client.closed() for client in everybody] == [3507] * 3
    assert answers(cluster, tokens[0]) == {3507}
    assert {publish(node, tokens[0], topic) for node in cluster.nodes} == {403}
    other.subscribe(topic)
    assert cluster.node(2).api("unblock_user", {"user": user}) == {}
    assert answers(cluster, tokens[0]) == {"connected"}
    other.socket.close()


def test_a_block_ends_by_itself(cluster, fresh):
    user = fresh("user")
    token = cluster.node(0).token(user)
    cluster.node(0).api("block_user", {"user": user, "expire_at": int(time.time()) + 2})
    assert answers(cluster, token) == {3507}
    until(lambda: answers(cluster, token) == {"connected"}, "the block is over")


def test_a_revoked_token_is_refused_and_others_of_its_user_are_not(cluster, fresh):
    user, topic = fresh("user"), fresh("token")
    node = cluster.node(0)
    revoked = node.token(user, jti="one")
    assert answers(cluster, revoked) == {"connected"}
    assert node.api("revoke_token", {"jti": "one", "expire_at": int(time.time()) + 3600}) == {}
    assert answers(cluster, revoked) == {3500}
    for token in node.token(user, jti="two"), node.token(user):
        assert answers(cluster, token) == {"connected"}
    with Client(node, node.token(user)) as client:
        refused = client.reply_to(subscribe={"channel": topic, "token": node.token(user, channel=topic, jti="one")})
        assert refused["error"]["code"] == 103


def test_nodes_that_come_later_or_come_back_know(fresh):
    user = fresh("user")
    with Cluster(2) as cluster:
        token = cluster.node(0).token(user, jti="three")
        other = cluster.node(0).token(fresh("other"), jti="four")
        cluster.node(0).api("block_user", {"user": user})
        cluster.node(0).api("revoke_token", {"jti": "four"})
        late = cluster.add()
        assert [answer(late, token), answer(late, other)] == [3507, 3500]
        late.pause()
        with pytest.raises(ApiError) as not_done:
            cluster.node(0).api("unblock_user", {"user": user})
        assert not_done.value.code == 100 and late.config["server"]["name"] in str(not_done.value)
        late.resume()
        until(lambda: answer(late, token) == "connected", "the order is carried out")
        cluster.node(1).restart()
        assert answer(cluster.node(1), other) == 3500


def test_connections_of_a_revoked_token_are_closed_where_that_is_wanted(fresh):
    user = fresh("user")
    with Cluster(settings={"client": {"token": {"revocable": True}}}) as cluster:
        first, second, third = cluster.nodes
        one, two = first.token(user, jti="one"), first.token(user, jti="two")
        nameless, other = first.token(user), first.token(fresh("other"))
        revoked = [Client(node, one) for node in cluster.nodes]
        stream = RawSocket(second, upgrade=False)
        stream.send(f"GET /subscribe?as=sse&topic=open:a&token={one} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert stream.read_head().startswith("HTTP/1.1 200 ")
        refreshed, left = Client(third, one), Client(third, one)
        left.socket.close()
        refreshed.ask(refresh={"token": two})
        unnamed, stays = [Client(node, nameless) for node in (first, second)], Client(first, other)
        until(lambda: third.metric("fanwire_clients") == 2, "one has left")

        assert third.api("revoke_token", {"jti": "one"}) == {"connections_closed": 4}
        assert [client.closed() for client in revoked] == [3500] * 3
        assert b"3500" in stream.read_rest()
        assert answers(cluster, one) == {3500}
        assert second.api("revoke_token", {"token": nameless}) == {"connections_closed": 2}
        assert [client.closed() for client in unnamed] == [3500] * 2
        assert answers(cluster, nameless) == {3500}
        assert third.api("revoke_token", {"token": nameless}) == {"connections_closed": 0}

        third.pause()
        with pytest.raises(ApiError) as not_done:
            first.api("revoke_token", {"token": two})
        assert not_done.value.code == 100 and third.name in str(not_done.value)
        third.resume()
        assert refreshed.closed() == 3500
        stays.subscribe("open:a")
        stays.socket.close()


def test_what_cannot_be_meant_is_refused_with_its_field(cluster):
    for method, parameters, field in (
        ("block_user", {}, "user is empty"),
        ("block_user", {"user": "a", "expire_at": 1}, "expire_at is over"),
        ("unblock_user", {"user": ""}, "user is empty"),
        ("revoke_token", {"expire_at": 0}, "jti is empty"),
        ("revoke_token", {"jti": "a", "expire_at": 1}, "expire_at is over"),
        ("revoke_token", {"jti": "a", "token": "a.e30.a"}, "jti and token are both given"),
        ("revoke_token", {"token": "a.b.c"}, "token is no JSON Web Token"),
    ):
        with pytest.raises(ApiError) as refused:
            cluster.node(0).api(method, parameters)
        assert refused.value.code == 107 and field in str(refused.value), method
