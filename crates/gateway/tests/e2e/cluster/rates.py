"""Rates that nodes count together: one who spreads over all of them gets little more than on one."""

import contextlib
import time

from client import Client
from harness import RawSocket, handshake, until

RATE, BURST, CONNECTS = 100, 200, 20
SETTINGS = {
    "client": {
        "user_commands_per_second_max": RATE,
        "commands_burst_max": BURST,
        "commands_per_second_max": 0,
        "subscriptions_max": BURST,
        "address_connects_per_second_max": CONNECTS,
        "cluster_rates": True,
    }
}
TOO_MANY_REQUESTS = 111
SECONDS = 8
# Nodes tell what was taken four times in a second; a busy machine is given a whole one.
TOLD_WITHIN = 1


def served(clients, count=20):
    """The commands that were served, of as many to each client. The session itself answers them, without Redis."""
    for client in clients:
        client.send_commands(*({"id": client.command + number, "rpc": {}} for number in range(1, count + 1)))
    for client in clients:
        client.command += count
        client.wait(lambda: client.command in client.replies)
    replies = [reply for client in clients for reply in client.replies.values()]
    for client in clients:
        client.replies.clear()
    assert len(replies) == count * len(clients)
    return sum(reply["error"]["code"] != TOO_MANY_REQUESTS for reply in replies)


def status(node):
    """The status of one client's handshake, and its socket."""
    socket = RawSocket(node, upgrade=False)
    socket.send(handshake("/connection/websocket"))
    return int(socket.read_head().split()[1]), socket


def for_seconds(do):
    """The sum of what is done again and again, and the time that it took."""
    began, total = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        total += do()
        time.sleep(0.02)
    return total, time.monotonic() - began


def most(rate, burst, seconds, counts):
    """What one gets of a rate that so many count together: a burst from each, and what each gives until it is told."""
    return burst * counts + rate * (seconds + TOLD_WITHIN * counts)


def test_a_user_has_one_rate_on_all_nodes(cluster, fresh):
    user = fresh("user")
    with contextlib.ExitStack() as open_sockets:
        clients = [open_sockets.enter_context(Client(node, node.token(user))) for node in cluster.nodes]
        total, seconds = for_seconds(lambda: served(clients))
        assert RATE * (seconds - 2) < total <= most(RATE, BURST, seconds, len(clients)), (total, seconds)
        other = open_sockets.enter_context(Client(cluster.node(0), cluster.node(0).token(fresh("other"))))
        assert served([other]) == 20


def test_an_address_connects_at_one_rate_on_all_nodes(cluster):
    with contextlib.ExitStack() as open_sockets:

        def connect():
            opened = [status(node) for node in cluster.nodes]
            for _, socket in opened:
                open_sockets.enter_context(socket)
            assert {answer for answer, _ in opened} <= {101, 503}
            return sum(answer == 101 for answer, _ in opened)

        total, seconds = for_seconds(connect)
        assert CONNECTS * (seconds - 2) < total <= most(CONNECTS, CONNECTS, seconds, len(cluster.nodes)), (
            total,
            seconds,
        )
    until(lambda: status(cluster.node(0))[0] == 101, "the address may connect again")


def test_without_redis_each_node_counts_alone(cluster, fresh):
    user = fresh("user")
    node = cluster.node(0)
    client = until(lambda: connected(node, user), "the client is connected")
    assert node.metric("fanwire_rates_uncounted_total") == 0
    cluster.redis.kill()
    until(lambda: served([client]) < 20, "the node refuses what is beyond the limit")
    until(lambda: served([client]) >= 0 and node.metric("fanwire_rates_uncounted_total") > 0, "it is counted")
    client.socket.close()


def connected(node, user):
    """A client, unless its address has connected too often of late."""
    with contextlib.suppress(AssertionError):
        return Client(node, node.token(user))
