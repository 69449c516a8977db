"""nginx, HAProxy and Apache, configured as they are shipped, in front of three nodes: what they do to connections that
stay, to nodes that go, and what they keep to themselves."""

import contextlib
import json
import os
import select
import signal
import socket
import ssl
import statistics
import subprocess
import time

import pytest
import websockets.sync.client

from client import Client
from front import Apache, Haproxy, Nginx, ProxyProtocol
from harness import DEADLINE, RawSocket, Server, get, handshake, request, until
from traffic import Traffic

PROXIES = [Nginx, Haproxy, Apache]
# As long as they may be for pings that come within the patience of each proxy below.
SETTINGS = {"client": {"ping_interval": "2s", "pong_timeout": "1900ms"}}
# One after the other, so that three of each kind are on several nodes.
KINDS = ["json", "protobuf", "stream-json", "stream-protobuf", "sse-json", "eventsource"]
SHUTDOWN = 3001


@pytest.fixture(scope="module", params=PROXIES, ids=lambda proxy: proxy.program)
def front(cluster, request):
    with cluster.front(request.param) as front:
        yield front


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Files of a certificate and its key for this machine; the first holds both, as HAProxy wants it."""
    folder = tmp_path_factory.mktemp("tls")
    both, key = folder / "both.pem", folder / "node.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subject = ["-subj", "/CN=front", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", *curve, *subject, "-keyout", key, "-out", both]
    subprocess.run(made, capture_output=True, check=True)
    both.write_text(both.read_text() + key.read_text())
    return both, key


def clients_of(node):
    return {of["name"]: of["num_clients"] for of in node.api("info")["nodes"]}


def members(node, topic):
    return node.api("presence_stats", {"channel": topic})["num_clients"]


def takes_part(front, node):
    """Waits until the proxy gives clients to a node that it may have left out."""

    def is_given_one():
        before = clients_of(node)[node.name]
        with Client(front, node.token("looking")):
            return clients_of(node)[node.name] > before

    until(is_given_one, f"{node.name} is given a client")


def subscribe_address(front, topic, token):
    return f"{front.http}/subscribe?topic={topic}&token={token}"


def test_the_configuration_is_sound(cluster, front, certificate):
    assert "warn" not in front.check().lower()
    with cluster.front(type(front), tls=certificate) as encrypted:
        assert "warn" not in encrypted.check().lower()


def test_nodes_take_turns(cluster, front):
    for node in cluster.nodes:
        takes_part(front, node)
    before = dict.fromkeys((node.name for node in cluster.nodes), 0)
    until(lambda: clients_of(cluster.node(0)) == before, "the clients of before are gone")
    with contextlib.ExitStack() as opened:
        for number in range(6):
            opened.enter_context(Client(front, cluster.node(0).token(f"in turn {number}")))
        now = clients_of(cluster.node(0))
        assert [now[node.name] - before[node.name] for node in cluster.nodes] == [2, 2, 2]
    until(lambda: clients_of(cluster.node(0)) == before, "they are gone")


def test_whatever_node_a_message_comes_from_each_client_gets_it(cluster, front, listeners, fresh):
    topic = fresh("open")
    wanted = [(kind, f"{front.program} {kind} {number}") for kind in KINDS for number in range(3)]
    everybody = listeners.open_all(wanted, front, cluster.node(0).token, [topic])
    assert min(clients_of(cluster.node(0)).values()) >= 1
    for number in range(30):
        cluster.node(number % 3).publish(topic, number)
    for listener in everybody:
        until(lambda: len(listener.data(topic)) >= 30, f"everything reaches {listener.name}")
        assert listener.data(topic) == list(range(30))
        listeners.close(listener)


def test_events_are_passed_on_as_they_come(cluster, front, listeners, fresh):
    topic = fresh("open")
    listener = listeners.open("eventsource", "alice", front, cluster.node(0).token("alice"), [topic])
    delays = []
    for number in range(30):
        began = time.monotonic()
        cluster.node(number % 3).publish(topic, number)
        until(lambda: len(listener.data(topic)) > number, "the event arrives")
        delays.append(time.monotonic() - began)
    assert listener.data(topic) == list(range(30))
    # A buffer would hold each back until later ones fill it.
    assert statistics.median(delays) < 0.2, delays
    assert max(delays) < 2, delays
    listeners.close(listener)


def test_connections_on_which_nothing_happens_live_on(cluster, listeners, fresh):
    """Each proxy waits for less than the test lasts; pings, and the comments between events, keep connections alive."""
    patience, silence = 5, 4
    topic = fresh("open")
    token = cluster.node(0).token
    kinds = [*KINDS, "python-json", "python-protobuf"]
    with contextlib.ExitStack() as started:
        fronts = [started.enter_context(cluster.front(proxy, patience=patience)) for proxy in PROXIES]
        counting = started.enter_context(Client(fronts[0], token("by hand")))
        idle = []
        for front in fronts:
            wanted = [(kind, f"idle {kind} of {front.program}") for kind in kinds]
            idle += listeners.open_all(wanted, front, token, [topic])
        counting.subscribe(topic)
        began = counting.pings
        # A ping every two seconds.
        counting.wait(lambda: counting.pings >= began + silence)
        cluster.node(0).publish(topic, "awake")
        assert counting.publications(topic, 1) == ["awake"]
        for listener in idle:
            until(lambda: listener.data(topic) == ["awake"], f"{listener.name} receives")
            assert len(listener.of("connected")) == 1, listener.events
        for listener in idle:
            listeners.close(listener)


@pytest.mark.parametrize("path", ["/api/publish", "/api/info", "/metrics", "/livez", "/readyz", "/connection/a/b", "/"])
def test_only_the_paths_of_clients_are_public(cluster, front, path):
    headers = {"x-api-key": cluster.node(0).api_key, "content-type": "application/json"}
    answer = request("POST", front.http + path, b"{}", headers)
    assert answer.status == 404
    # The node names the paths that it serves.
    assert "This port serves" not in answer.text


def test_the_probe_is_passed_on(front):
    answer = get(f"{front.http}/probe")
    assert (answer.status, answer.json()) == (200, {})


def test_connections_that_this_version_does_not_know_are_passed_on(front):
    answer = request("POST", f"{front.http}/connection/of_tomorrow", b"{}", {})
    assert answer.status == 404 and "This port serves" in answer.text


def test_long_queries_and_refusals_are_passed_on(cluster, front):
    """Tokens make queries long, and a node's own words say which setting to change."""
    answer = get(subscribe_address(front, "plain:x", "x" * 24_000))
    assert answer.status == 401
    assert "token" in answer.json()["error"]["message"]


def test_tokens_are_not_logged(cluster, front):
    told = "quite-a-secret"
    get(subscribe_address(front, "plain:x", told))
    until(lambda: "/subscribe" in front.log, "the request is logged")
    assert told not in front.log


def test_a_client_whose_node_is_full_is_given_another(cluster, front):
    with Server({"server": {"connections_max": 1}}) as full, Client(full, full.token("first")):
        other = cluster.node(1)
        with type(front)([full, other]) as before, contextlib.ExitStack() as opened:
            began, refused = time.monotonic(), 0
            for number in range(6):
                socket = opened.enter_context(RawSocket(before, upgrade=False))
                socket.send(handshake("/connection/websocket"))
                refused += not socket.read_head().startswith("HTTP/1.1 101 ")
            # Apache passes the refusal on, and leaves the node out for five seconds.
            again = (time.monotonic() - began) // 5
            assert 1 <= refused <= 1 + again if isinstance(front, Apache) else refused == 0


def test_a_node_is_killed(cluster, front, listeners, fresh):
    """Clients come back through another node at once, with what they missed; others find an open door meanwhile."""
    topic, victim = fresh("open"), cluster.node(0)
    takes_part(front, victim)
    wanted = [(kind, f"{front.program} {kind} {number}") for kind in KINDS for number in range(3)]
    everybody = listeners.open_all(wanted, front, victim.token, [topic])
    assert clients_of(victim)[victim.name] >= 1
    with Traffic(cluster, topic) as traffic:
        traffic.serving = [1, 2]
        traffic.goes_on()
        victim.kill()
        try:
            for number in range(6):
                with Client(front, victim.token(f"later {number}")) as client:
                    client.subscribe(topic)
            traffic.goes_on()
        finally:
            victim.launch()
        traffic.goes_on()
    everything = list(range(1, traffic.count + 1))
    for listener in everybody:
        until(lambda: len(listener.data(topic)) >= traffic.count, f"everything reaches {listener.name}")
        assert listener.data(topic) == everything
        returns = listener.of("subscribed", topic)[1:]
        assert all(reply["recovered"] for reply in returns), listener.events
    assert any(len(listener.of("connected")) > 1 for listener in everybody), "none was on the node"
    for listener in everybody:

        def hears():
            cluster.node(1).publish(topic, "last")
            return listener.data(topic)[-1] == "last"

        until(hears, f"{listener.name} is back")
        listeners.close(listener)


def test_a_node_is_stopped(cluster, front, listeners, fresh):
    """It sends its clients away while others take the new ones: nobody is refused."""
    victim, topic = cluster.node(0), fresh("open")
    takes_part(front, victim)
    wanted = [("json", f"{front.program} sent away {number}") for number in range(6)]
    everybody = listeners.open_all(wanted, front, victim.token, [topic])
    # Those of before have left.
    until(lambda: sum(clients_of(victim).values()) == len(everybody), "the nodes have these clients alone")
    there = clients_of(victim)[victim.name]
    # Two in turn; Apache counts the requests of a moment by the process that takes them.
    assert 1 <= there <= 4
    victim.process.send_signal(signal.SIGTERM)
    served = 0
    while victim.process.poll() is None or served < 6:
        with Client(front, victim.token(f"later {served}")) as client:
            client.subscribe(topic)
        assert get(f"{front.http}/subscribe").status == 401
        served += 1
    assert victim.process.returncode == 0
    victim.launch()
    told = [listener for listener in everybody if SHUTDOWN in [seen["code"] for seen in listener.of("connecting")]]
    assert len(told) == there
    for listener in everybody:
        until(lambda: len(listener.of("connected")) == 1 + (listener in told), f"{listener.name} is connected")
        listeners.close(listener)


class Behind:
    """A node behind a proxy, and its clients, each at an address of this machine."""

    def __init__(self, proxy, node):
        self.proxy, self.node, self.sockets = proxy, node, []

    def open(self, client, place):
        opened = socket.create_connection(("127.0.0.1", place.port), DEADLINE, source_address=(client, 0))
        self.sockets.append(opened)
        return opened

    def begin(self, client, count=1):
        """Requests straight to the node that do not end."""
        begun = [self.open(client, self.node) for _ in range(count)]
        for one in begun:
            one.sendall(b"G")
        return begun

    def ask(self, client, claimed, count):
        """Requests through the proxy. The node takes them up at once, so each has a connection of its own to the node,
        most of which the proxy keeps."""
        there = len(self.node.socket_states())
        self.node.pause()
        # The signal has reached all threads.
        os.waitid(os.P_PID, self.node.process.pid, os.WSTOPPED)
        begun = [self.open(client, self.proxy) for _ in range(count)]
        for one in begun:
            one.sendall(f"GET /probe HTTP/1.1\r\nHost: node\r\nX-Forwarded-For: {claimed}\r\n\r\n".encode())
        until(lambda: len(self.node.socket_states()) == there + count, "each has a connection to the node")
        self.node.resume()
        for one in begun:
            assert one.recv(65536).startswith(b"HTTP/1.1 200 ")

    def dropped(self, candidates):
        """The first of these that have to give way to more and more clients."""
        more = (f"127.0.1.{number}" for number in range(1, 255))

        def given_way():
            self.begin(next(more))
            return select.select(candidates, [], [], 0)[0]

        return until(given_way, "a connection gives way")


@pytest.mark.parametrize("proxy", [*PROXIES, ProxyProtocol], ids=lambda proxy: proxy.__name__)
def test_nodes_learn_the_addresses_of_clients(proxy):
    """The oldest connection of the client with the most of them gives way. Those by the proxy make the difference."""
    busy, less_busy = "127.0.0.66", "127.0.0.77"
    server = {"shards": 1, "http_connections_max": 20, "trusted_proxies": ["127.0.0.1"]}
    with Server({"server": server}) as node, proxy([node]) as front:
        behind = Behind(front, node)
        oldest, *_ = behind.begin(busy, 4)
        behind.ask(busy, less_busy, 4)
        others = behind.begin(less_busy, 5)
        assert behind.dropped([oldest, *others]) == [oldest]


class OverTls:
    """A client by PyPI `websockets`, whose replies to commands are not looked at."""

    def __init__(self, socket, token, topic):
        self.socket = socket
        self.socket.send(json.dumps({"id": 1, "connect": {"token": token}}))
        self.socket.send(json.dumps({"id": 2, "subscribe": {"channel": topic}}))

    def publication(self):
        """The data of the next one."""
        while True:
            for line in self.socket.recv(DEADLINE).split("\n"):
                if (publication := json.loads(line).get("push", {}).get("pub")) is not None:
                    return publication["data"]


def test_with_tls_streams_and_sockets_are_passed_on(cluster, front, certificate, fresh):
    """More streams than a browser has HTTP/1.1 connections; WebSockets as browsers open them."""
    topic, streams, (file, _) = fresh("open"), 8, certificate
    version = "HTTP/1.1" if isinstance(front, Apache) else "HTTP/2"
    token = cluster.node(0).token
    context = ssl.create_default_context(cafile=file)
    with cluster.front(type(front), tls=certificate) as encrypted:
        curl = ["curl", "-sSNi", "--http2", "--parallel", "--noproxy", "*", "--cacert", file]
        addresses = [
            subscribe_address(encrypted, topic, token(f"curl {number}")) + "&as=sse" for number in range(streams)
        ]
        with (
            subprocess.Popen([*curl, *addresses], stdout=subprocess.PIPE, text=True) as listening,
            websockets.sync.client.connect(encrypted.websocket, ssl=context, proxy=None) as opened,
        ):
            client = OverTls(opened, token("alice"), topic)
            until(lambda: members(cluster.node(1), topic) == streams + 1, "all listen")
            cluster.node(1).publish(topic, "over TLS")
            assert client.publication() == "over TLS"
            answers, events = [], []
            while len(events) < streams:
                line = next(listening.stdout)
                answers += [line.split()[0]] if line.startswith("HTTP/") else []
                event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                # The event before them says where the stream begins.
                events += [event["data"]] if "data" in event else []
            assert answers == [version] * streams
            assert events == ["over TLS"] * streams
            listening.terminate()
