"""nginx, HAProxy and Apache as shipped, in front of nodes that only note what reaches them: what they pass on, to whom,
and what not."""

import contextlib
import http.client
import http.server
import pathlib
import re
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "crates/gateway/tests/e2e"))

from front import Apache, Haproxy, Nginx
from harness import free_port

DEADLINE = 20

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class FakeNode(http.server.ThreadingHTTPServer):
    """Answers every request with `status`, or ends the connection of one if that is None, and says that it is ready.
    Events come one by one, when `released` is set. One that `keeps` connections answers the first request of each with
    200."""

    daemon_threads = True
    # As many connections as a proxy may open at once.
    request_queue_size = 64

    def __init__(self, status=200, keeps=False):
        self.status = status
        self.keeps = keeps
        self.requests = []
        self.bodies = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), FakeRequest)
        self.port = self.internal_port = self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.shutdown()
        self.server_close()


class FakeRequest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests_here = 0

    def do_GET(self):
        node = self.server
        if self.path == "/readyz":
            return self.answer(200)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        node.requests.append((self.path, dict(self.headers)))
        node.bodies.append(body)
        if node.keeps and not self.requests_here:
            self.requests_here += 1
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.close_connection = True
        if node.status is None:
            return None
        if node.status == 200 and self.path.partition("?")[0] in STREAMS:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: first\n\n")
            # Longer than the client waits for what comes before.
            node.released.wait(3 * DEADLINE)
            self.wfile.write(b"data: second\n\n")
            return None
        return self.answer(node.status)

    do_POST = do_GET

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_):
        pass


class Gone:
    """A node that takes no connections."""

    def __init__(self):
        self.port = self.internal_port = free_port()


STREAMS = {
    "/subscribe": "GET",
    "/connection/sse": "GET",
    "/connection/http_stream": "POST",
    "/connection/uni_sse": "GET",
    "/connection/uni_http_stream": "POST",
}

# Those that clients send something by, and those that open streams.
POSTS = [
    "/publish",
    "/emulation",
    "/connection/http_stream",
    "/connection/sse",
    "/connection/uni_http_stream",
    "/connection/uni_sse",
]


@pytest.fixture(params=[Nginx, Haproxy, Apache], ids=lambda proxy: proxy.program)
def proxy(request):
    return request.param


@contextlib.contextmanager
def answered(front, path, headers=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=DEADLINE)
    try:
        body = b"{}" if method == "POST" else None
        connection.request(method, path, body, headers or {})
        yield connection.getresponse()
    finally:
        connection.close()


def status(front, path, headers=None, method="GET"):
    with answered(front, path, headers, method) as answer:
        return answer.status


def until(condition, what):
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"not within {DEADLINE} s: {what}")


def test_the_configuration_is_sound(proxy):
    with proxy([Gone(), Gone(), Gone()]) as front:
        assert "warn" not in front.check().lower()


def test_a_handshake_is_passed_on_as_one(proxy):
    with FakeNode() as node, proxy([node]) as front:
        assert status(front, "/connection/websocket?cf_protocol=json", HANDSHAKE) == 200
        ((path, headers),) = node.requests
        assert path == "/connection/websocket?cf_protocol=json"
        headers = {name.lower(): value for name, value in headers.items()}
        assert headers["upgrade"] == "websocket"
        assert headers["connection"].lower() == "upgrade"
        assert headers["host"] == f"127.0.0.1:{front.port}"
        assert headers["x-forwarded-for"] == "127.0.0.1"


@pytest.mark.parametrize("path", STREAMS)
def test_events_are_passed_on_as_they_come(proxy, path):
    with FakeNode() as node, proxy([node]) as front:
        with answered(front, f"{path}?topic=news", method=STREAMS[path]) as events:
            assert events.readline() == b"data: first\n"
            assert not node.released.is_set()
            node.released.set()
            assert b"data: second\n" in events.read()


def test_nothing_but_what_clients_need_is_passed_on(proxy):
    with FakeNode() as node, proxy([node]) as front:
        others = ["/", "/api", "/api/publish", "/metrics", "/readyz", "/connection/websocket/x", "/subscribe/", "//api/info"]
        assert {path: status(front, path) for path in others} == dict.fromkeys(others, 404)
        assert node.requests == []


def test_nothing_else_is_passed_on_in_disguise(proxy):
    """Whatever a path says to the proxy, it says the same to the node."""
    disguised = [
        "/connection/../api/info",
        "/connection/%2e%2e/api/info",
        "/connection/x%2f..%2fapi",
        "/api/info/../../subscribe",
        "/api/%2e%2e/subscribe",
        "/subscribe%3f/api",
        "/subscribe%00/api",
        "/subscribe;/../api/info",
    ]
    with FakeNode() as node, proxy([node]) as front:
        node.released.set()
        for path in disguised:
            assert status(front, path) in (200, 400, 404), path
        for path, _ in node.requests:
            assert re.fullmatch("/(connection/[a-z_]+|subscribe)", path), path


def test_nodes_take_turns(proxy):
    with FakeNode() as one, FakeNode() as two, FakeNode() as three:
        nodes = [one, two, three]
        with proxy(nodes) as front:
            for _ in range(9):
                assert status(front, "/connection/websocket", HANDSHAKE) == 200
            assert [len(node.requests) for node in nodes] == [3, 3, 3]


def test_a_client_whose_node_is_full_or_gone_is_given_another(proxy):
    with FakeNode(503) as full, FakeNode() as well, proxy([full, Gone(), well]) as front:
        told = [status(front, "/connection/websocket", HANDSHAKE) for _ in range(6)]
        assert full.requests
        # Apache passes on what a node answers, and leaves the node out from then on.
        refused = 1 if proxy is Apache else 0
        assert sorted(told) == [200] * (6 - refused) + [503] * refused
        assert len(well.requests) == 6 - refused


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(("node_says", "client_is_told"), [(None, 502), (503, 503)])
def test_what_may_have_been_done_is_not_done_twice(proxy, path, node_says, client_is_told):
    """The node took the request, and failed before it answered, or said so late that it may have done what was asked."""
    with FakeNode(node_says) as one, FakeNode(node_says) as two, proxy([one, two]) as front:
        assert status(front, path, method="POST") == client_is_told
        assert len(one.requests) + len(two.requests) == 1


def test_a_post_is_not_repeated_where_a_kept_connection_ends(proxy):
    """A proxy may not take the end of a connection that it kept for one that came before the request."""
    with FakeNode(None, keeps=True) as one, FakeNode(None, keeps=True) as two, proxy([one, two]) as front:
        for number in range(12):
            # A client that keeps its connection too, then another.
            connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=DEADLINE)
            with contextlib.closing(connection), contextlib.suppress(http.client.HTTPException, ConnectionError):
                for part in "ab":
                    connection.request("POST", "/publish", f"{number}{part}".encode())
                    connection.getresponse().read()
        bodies = one.bodies + two.bodies
        assert len(bodies) >= 12
        assert sorted(bodies) == sorted(set(bodies))


@pytest.mark.parametrize("path", [path for path, method in STREAMS.items() if method == "GET"])
def test_what_only_opens_a_connection_is_tried_elsewhere(proxy, path):
    with FakeNode(None) as dying, FakeNode() as well, proxy([dying, well]) as front:
        well.released.set()
        told = [status(front, path) for _ in range(4)]
        assert dying.requests
        # Apache does not try again what it has sent.
        assert set(told) == ({200, 502} if proxy is Apache else {200})


def test_what_was_not_begun_is_begun_elsewhere(proxy):
    """A node that takes no connection has not received a message to publish."""
    with FakeNode() as well, proxy([Gone(), Gone(), well]) as front:
        for _ in range(4):
            assert status(front, "/publish", method="POST") == 200


def test_a_refusal_is_the_nodes_own_and_is_not_tried_elsewhere(proxy):
    with FakeNode(403) as one, FakeNode(403) as two, proxy([one, two]) as front:
        assert status(front, "/connection/websocket", HANDSHAKE) == 403
        assert len(one.requests) + len(two.requests) == 1


def test_a_token_in_the_address_is_not_logged(proxy):
    with FakeNode(200) as node, proxy([node, Gone()]) as front:
        node.released.set()
        for _ in range(4):
            assert status(front, "/subscribe?token=precious") == 200
        until(lambda: front.log.count("GET /subscribe") == 4, "four requests are logged")
        assert "precious" not in front.log
