"""Real clients of every kind, spread over three nodes by nginx: whichever node something is published on, each gets it
once, and all get it in one order."""

import concurrent.futures
import json
import subprocess

import cent
import pytest

from harness import until

KINDS = [
    "page-json",
    "page-protobuf",
    "page-stream",
    "page-sse",
    "json",
    "protobuf",
    "stream-json",
    "stream-protobuf",
    "sse-json",
    "python-json",
    "python-protobuf",
    "eventsource",
]
SETTINGS = {"client": {"allowed_origins": ["http://127.0.0.1:*"]}}


@pytest.fixture(scope="module")
def everybody(cluster, front, listeners):
    """One listener of every kind, in a recoverable topic and one that keeps nothing."""
    wanted = [(kind, f"{kind} listener") for kind in KINDS]
    return listeners.open_all(wanted, front, cluster.node(0).token, ["open:everybody", "plain:everybody"])


@pytest.fixture(params=["open:everybody", "plain:everybody"])
def topic(request):
    return request.param


class Published:
    """What a test published, and where in each listener's events it began."""

    def __init__(self, everybody, topic):
        self.everybody, self.topic, self.data = everybody, topic, []
        self.begin = {listener.name: len(listener.data(topic)) for listener in everybody}

    def of(self, listener):
        return listener.data(self.topic)[self.begin[listener.name] :]

    def arrive(self):
        """All of it at each listener, once; gives the order in which all have it."""
        for listener in self.everybody:
            until(lambda: len(self.of(listener)) >= len(self.data), f"everything reaches {listener.name}")
        order = self.of(self.everybody[0])
        assert sorted(order) == sorted(self.data)
        for listener in self.everybody:
            assert self.of(listener) == order, listener.name
        return order


@pytest.fixture
def published(everybody, topic):
    return Published(everybody, topic)


def clients_of(node):
    return {of["name"]: of["num_clients"] for of in node.api("info")["nodes"]}


def test_they_are_on_all_nodes_and_each_node_knows_it(cluster, everybody, topic):
    for node in cluster.nodes:
        there = clients_of(node)
        assert sum(there.values()) == len(everybody)
        assert min(there.values()) >= 1, there
        assert node.api("channels")["channels"][topic]["num_clients"] == len(everybody)
    # The namespace "plain" has no presence.
    for node in cluster.nodes:
        present = node.api("presence", {"channel": "open:everybody"})["presence"]
        assert {info["user"] for info in present.values()} == {listener.name for listener in everybody}
        told = {listener.client for listener in everybody if listener.kind != "eventsource"}
        assert told < set(present)


def test_cent_on_each_node_in_turn(cluster, published, topic):
    backends = [cent.Client(f"{node.http}/api", node.api_key) for node in cluster.nodes]
    for number in range(150):
        backends[number % 3].publish(cent.PublishRequest(channel=topic, data=number))
        published.data.append(number)
    assert published.arrive() == published.data


def test_curl_on_each_node_in_turn(cluster, published, topic):
    for number in range(30):
        node = cluster.node(number % 3)
        body = json.dumps({"channel": topic, "data": number})
        headers = ["-H", f"X-API-Key: {node.api_key}", "-H", "Content-Type: application/json"]
        told = subprocess.run(
            ["curl", "-sS", "--fail", "--noproxy", "*", *headers, "-d", body, f"{node.http}/api/publish"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "result" in json.loads(told.stdout)
        published.data.append(number)
    assert published.arrive() == published.data


def test_several_backends_at_once_on_all_nodes(cluster, published, topic):
    """Nobody says which of them comes first, but it is the same for all, and each backend's own order holds."""
    backends, each = 6, 100

    def publish(backend):
        for number in range(each):
            cluster.node(backend % 3).publish(topic, [backend, number])

    with concurrent.futures.ThreadPoolExecutor(backends) as pool:
        # Raises what any of them raised.
        list(pool.map(publish, range(backends)))
    published.data = [[backend, number] for backend in range(backends) for number in range(each)]
    order = published.arrive()
    # Sorting by backend alone keeps the order in which each one's came.
    assert sorted(order, key=lambda item: item[0]) == published.data


def test_offsets_are_those_of_the_history(cluster, everybody):
    """The last word on what was published to the recoverable topic in this suite."""
    topic = "open:everybody"
    kept = cluster.node(0).api("history", {"channel": topic, "limit": -1})["publications"]
    for listener in everybody:
        assert listener.data(topic) == [publication["data"] for publication in kept]
        assert listener.offsets(topic) == [publication["offset"] for publication in kept]
