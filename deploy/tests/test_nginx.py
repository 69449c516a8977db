"""nginx as shipped, in front of nodes that only note what reaches them: what it passes on, to whom, and what not."""

import contextlib
import http.client
import http.server
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

import pytest

SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "nginx"
DEADLINE = 20

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class FakeNode(http.server.ThreadingHTTPServer):
    """Answers every request with `status`; events come one by one, when `released` is set."""

    daemon_threads = True

    def __init__(self, status=200):
        self.status = status
        self.requests = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), FakeRequest)
        self.port = self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.shutdown()
        self.server_close()


class FakeRequest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        node = self.server
        node.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        if self.path.startswith("/subscribe") and node.status == 200:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: first\n\n")
            # Longer than the client waits for what comes before.
            node.released.wait(3 * DEADLINE)
            self.wfile.write(b"data: second\n\n")
            return
        self.send_response(node.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


given_ports = set()


def free_port():
    """A port that nobody uses at this moment, and never the same twice."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        if port not in given_ports:
            given_ports.add(port)
            return port


class Nginx:
    """The shipped nginx.conf, with a port and nodes of the test's."""

    def __init__(self, folder, ports):
        self.folder, self.port = folder, free_port()
        shutil.copy(SHIPPED / "nginx.conf", folder)
        (folder / "listen.conf").write_text(f"listen 127.0.0.1:{self.port};\n")
        servers = "".join(f"server 127.0.0.1:{port} max_fails=3 fail_timeout=5s;\n" for port in ports)
        (folder / "upstream.conf").write_text(f"upstream fanwire {{ zone fanwire 64k; {servers} }}\n")

    def command(self, *arguments):
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        assert program, "nginx is not installed"
        # Started by root, its workers would be of a user that may not enter the test's folder.
        user = " user root;" if os.geteuid() == 0 else ""
        directives = f"daemon off;{user}"
        return [program, "-e", "stderr", "-p", self.folder, "-c", self.folder / "nginx.conf", "-g", directives, *arguments]

    def __enter__(self):
        self.log = open(self.folder / "log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until(self.answers, "nginx answers")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(DEADLINE)
        self.log.close()

    def answers(self):
        assert self.process.poll() is None, f"nginx ended at its start:\n{self.logged()}"
        return self.status("/")

    def logged(self):
        return (self.folder / "log").read_text()

    @contextlib.contextmanager
    def get(self, path, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path, headers=headers or {})
            yield connection.getresponse()
        finally:
            connection.close()

    def status(self, path, headers=None):
        with contextlib.suppress(OSError), self.get(path, headers) as answer:
            return answer.status


def until(condition, what):
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"not within {DEADLINE} s: {what}")


def test_the_configuration_is_sound_as_it_is(tmp_path):
    # Names of nodes are looked up when nginx starts; here they are of no cluster.
    nginx = Nginx(tmp_path, [])
    for name in ("listen.conf", "upstream.conf"):
        text = (SHIPPED / name).read_text()
        for number in (1, 2, 3):
            text = text.replace(f"fanwire-{number}:", f"127.0.0.{number}:")
        (tmp_path / name).write_text(text)
    done = subprocess.run(nginx.command("-t"), capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr, done.stderr


def test_a_handshake_is_passed_on_as_one(tmp_path):
    with FakeNode() as node, Nginx(tmp_path, [node.port]) as nginx:
        assert nginx.status("/connection/websocket?cf_protocol=json", HANDSHAKE) == 200
        ((path, headers),) = node.requests
        assert path == "/connection/websocket?cf_protocol=json"
        assert headers["Upgrade"] == "websocket"
        assert headers["Connection"] == "upgrade"
        assert headers["Host"] == f"127.0.0.1:{nginx.port}"
        assert headers["X-Forwarded-For"] == "127.0.0.1"


def test_events_are_passed_on_as_they_come(tmp_path):
    with FakeNode() as node, Nginx(tmp_path, [node.port]) as nginx, nginx.get("/subscribe?topic=news") as events:
        assert events.readline() == b"data: first\n"
        assert not node.released.is_set()
        node.released.set()
        assert b"data: second\n" in events.read()


def test_nothing_but_what_clients_need_is_passed_on(tmp_path):
    with FakeNode() as node, Nginx(tmp_path, [node.port]) as nginx:
        others = ["/", "/api", "/api/publish", "/metrics", "/readyz", "/connection/websocket/x", "/subscribe/", "//api/info"]
        assert {path: nginx.status(path) for path in others} == dict.fromkeys(others, 404)
        assert node.requests == []


def test_nodes_take_turns(tmp_path):
    with FakeNode() as one, FakeNode() as two, FakeNode() as three:
        nodes = [one, two, three]
        with Nginx(tmp_path, [node.port for node in nodes]) as nginx:
            for _ in range(9):
                assert nginx.status("/connection/websocket", HANDSHAKE) == 200
            assert [len(node.requests) for node in nodes] == [3, 3, 3]


def test_a_client_whose_node_is_full_or_gone_is_given_another(tmp_path):
    with FakeNode(503) as full, FakeNode() as well, Nginx(tmp_path, [full.port, free_port(), well.port]) as nginx:
        for _ in range(6):
            assert nginx.status("/connection/websocket", HANDSHAKE) == 200
        assert len(well.requests) == 6
        assert full.requests


def test_a_refusal_is_the_nodes_own_and_is_not_tried_elsewhere(tmp_path):
    with FakeNode(403) as one, FakeNode(403) as two, Nginx(tmp_path, [one.port, two.port]) as nginx:
        assert nginx.status("/connection/websocket", HANDSHAKE) == 403
        assert len(one.requests) + len(two.requests) == 1


def test_a_token_in_the_address_is_not_logged(tmp_path):
    with FakeNode(200) as node, Nginx(tmp_path, [node.port, free_port()]) as nginx:
        node.released.set()
        for _ in range(4):
            assert nginx.status("/subscribe?token=precious") == 200
        until(lambda: nginx.logged().count("GET /subscribe") == 4, "four requests are logged")
        assert "precious" not in nginx.logged()
