"""All nodes are restarted one after the other behind nginx while messages flow: nobody loses one, and nobody who is
gone stays present."""

import pytest

from harness import until
from traffic import Traffic

KINDS = ["page-json", "json", "protobuf", "stream-json", "sse-json", "python-json", "python-protobuf", "eventsource"]
# An EventSource waits up to five seconds before it comes back.
SETTINGS = {"client": {"allowed_origins": ["http://127.0.0.1:*"], "recovery_max": 5000}}
SHUTDOWN = 3001


def presence(node, topic):
    return node.api("presence", {"channel": topic})["presence"]


def clients_of(node):
    return {of["name"]: of["num_clients"] for of in node.api("info")["nodes"]}


def told_to_come_back(listener):
    return len([told for told in listener.of("connecting") + listener.of("goodbye") if told.get("code") == SHUTDOWN])


def with_id(everybody):
    """All but the EventSources, which are not told who they are."""
    return [listener for listener in everybody if listener.kind != "eventsource"]


def ids(everybody):
    """The ids of the newest connections; a client may hear its own a little after others see it present."""
    return {listener.client for listener in with_id(everybody)}


@pytest.fixture(scope="module")
def everybody(cluster, front, listeners):
    wanted = [(kind, f"{kind} {number}") for kind in KINDS for number in (1, 2)]
    return listeners.open_all(wanted, front, cluster.node(0).token, ["open:restarts"])


def test_a_rolling_restart(cluster, everybody):
    topic = "open:restarts"
    with Traffic(cluster, topic) as traffic:
        for index in range(3):
            traffic.serving = [other for other in range(3) if other != index]
            traffic.goes_on()
            restart(cluster, index, everybody, topic)
            traffic.goes_on()
    everything = list(range(1, traffic.count + 1))
    for listener in everybody:
        until(lambda: len(listener.data(topic)) >= traffic.count, f"everything reaches {listener.name}")
        assert listener.data(topic) == everything
        assert listener.offsets(topic) == everything
        returns = listener.of("subscribed", topic)[1:]
        assert all(reply["recovered"] and reply["wasRecovering"] for reply in returns), listener.name


def restart(cluster, index, everybody, topic):
    """Ends a node as an orchestrator does, sees its clients move, and starts it again."""
    node, other = cluster.node(index), cluster.node((index + 1) % 3)
    there = clients_of(other)[node.name]
    told = sum(map(told_to_come_back, everybody))
    before = {listener.name: listener.of("connected")[-1] for listener in everybody}

    def moved():
        """Those with an id that are on another connection than before."""
        return [one for one in with_id(everybody) if one.of("connected")[-1] is not before[one.name]]

    def old_ids():
        return {before[listener.name]["client"] for listener in moved()}

    assert node.stop() == 0
    # Its members had left before it went.
    assert node.name not in clients_of(other)
    assert not old_ids() & set(presence(other, topic))
    until(lambda: sum(map(told_to_come_back, everybody)) == told + there, f"{there} clients are told")

    def all_are_back():
        return sum(clients_of(other).values()) == len(everybody) == len(presence(other, topic))

    until(all_are_back, "all clients are on the other nodes")
    for one in cluster.nodes:
        if one is not node:
            present = presence(one, topic)
            assert {info["user"] for info in present.values()} == {listener.name for listener in everybody}
            until(lambda: ids(everybody) < set(present), "all who have an id are present by it")
    for stayed in [listener for listener in with_id(everybody) if listener not in moved()]:
        until(lambda: old_ids() <= {left["client"] for left in stayed.of("leave")}, f"{stayed.name} sees them leave")
    node.launch()
    for one in cluster.nodes:
        assert len(clients_of(one)) == 3


def test_each_who_stayed_saw_each_change_once(everybody):
    """A listener that was subscribed all the time cannot be told of a join or a leave twice."""
    for listener in everybody:
        for event in "join", "leave":
            clients = [seen["client"] for seen in listener.of(event, "open:restarts")]
            assert len(clients) == len(set(clients)), (listener.name, event)
