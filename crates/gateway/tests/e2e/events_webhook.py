"""Events posted to a webhook: the receiver is away, refuses, hangs, and nodes are killed meanwhile."""

import contextlib
import hashlib
import hmac
import json
import os
import queue
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness import FOLDER, Server, die_with_parent, free_port, request, until
from lifecycle import EVERY_CLIENT, EVERY_TOPIC, Client
from redis_server import RedisServer

LEASE = 3
SECRET = "webhook-secret-0c2f6e1b97d84a35bb60"
PREVIOUS_SECRET = "webhook-secret-of-last-year-77aa5e"
HEADER = "Bearer webhook-key-19e0c4"
EXAMPLES = {
    "Python": [sys.executable, str(FOLDER.parents[3] / "docs/examples/events_receiver.py")],
    "Node": ["node", str(FOLDER.parents[3] / "docs/examples/events-receiver.mjs")],
}


class Receiver:
    """Takes events, and notes each request. `judge` gives the status for some events."""

    def __init__(self):
        self.port = free_port()
        self.judge = lambda events: 204
        self.requests, self.events, self.repeats = [], {}, 0
        self.lock = threading.Lock()
        self.server = None
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/events"

    def start(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver.receive(dict(self.headers), body)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *_):
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            # Those that are open are closed with it, as a process that ends closes them.
            open_sockets = set()

            def process_request(self, sock, address):
                self.open_sockets.add(sock)
                super().process_request(sock, address)

        Listener.open_sockets = set()
        self.server = Listener(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        """Nobody listens any more, and open connections end."""
        self.server.shutdown()
        self.server.server_close()
        for sock in self.server.open_sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(2)

    def receive(self, headers, body):
        headers = {name.lower(): value for name, value in headers.items()}
        assert_signed(headers["fanwire-signature"], body)
        assert headers["content-type"] == "application/json" and headers["authorization"] == HEADER
        events = json.loads(body)["events"]
        status = self.judge(events)
        with self.lock:
            self.requests.append((time.monotonic(), status, events))
            if status == 204:
                for event in events:
                    self.repeats += event["id"] in self.events
                    self.events.setdefault(event["id"], event)
        return status

    def of_user(self, user):
        with self.lock:
            return [e["event"] for e in self.events.values() if "topic" not in e and e["user"] == user]

    def until_user(self, user, expected, seconds=20):
        until(lambda: self.of_user(user) == expected, f"{user}: {expected}", seconds)

    def until_empty(self, nodes):
        """Until no event waits any more."""
        until(lambda: all(node.metric("fanwire_events_waiting") == 0 for node in nodes), "nothing waits", 40)


def assert_signed(header, body):
    parts = [part.partition("=") for part in header.split(",")]
    (seconds,) = [value for name, _, value in parts if name == "t"]
    assert abs(time.time() - int(seconds)) < 60, header
    signed = [
        hmac.new(secret.encode(), seconds.encode() + b"." + body, hashlib.sha256).hexdigest()
        for secret in (SECRET, PREVIOUS_SECRET)
    ]
    assert [value for name, _, value in parts if name == "v1"] == signed, header


@contextlib.contextmanager
def cluster(url, names="ab", **webhook):
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        settings = {
            "engine": {"type": "redis", "redis": {"address": redis.address, "lease": f"{LEASE}s", "answer_timeout": "1s"}},
            "client": {"events": EVERY_CLIENT},
            "events": {
                "deliver": "webhook",
                "offline_delay": "0s",
                "webhook": {
                    "url": url,
                    "timeout": "2s",
                    "signature_secret": SECRET,
                    "signature_previous_secret": PREVIOUS_SECRET,
                    "static_headers": {"Authorization": HEADER},
                    **webhook,
                },
            },
            "topics": {
                "namespaces": [{"name": "room", "allow_subscribe_for_client": True, "events": EVERY_TOPIC}],
            },
        }
        nodes = [stack.enter_context(Server({**settings, "server": {"name": name}})) for name in names]
        yield nodes
        for node in nodes:
            for secret in (SECRET, PREVIOUS_SECRET, HEADER, "webhook-key"):
                assert secret not in node.log


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.stop()


def visit(node, user):
    Client(node, user).close()


GONE = ["user_online", "connected", "disconnected", "user_offline"]


def working(nodes):
    """The node that delivers."""
    found = [node for node in nodes if node.process.poll() is None and node.metric("fanwire_events_working") == 1]
    return found[0] if len(found) == 1 else None


def test_a_receiver_that_is_down_loses_nothing(receiver):
    with cluster(receiver.url) as nodes:
        visit(nodes[0], "first")
        receiver.until_user("first", GONE)
        receiver.stop()
        users = [f"u{number}" for number in range(12)]
        for round in range(3):
            for number, user in enumerate(users):
                visit(nodes[(number + round) % 2], user)
        # It has been tried in the meantime, and has lost nothing by it.
        failed = lambda: sum(node.metric("fanwire_event_posts_total", result="failed") for node in nodes)
        until(lambda: failed() >= 4, "it was tried")
        assert set(receiver.of_user("u0")) == set()
        receiver.start()
        for user in users:
            receiver.until_user(user, GONE * 3, 30)
        assert len(receiver.events) == 4 + 12 * 12
        receiver.until_empty(nodes)
        assert sum(node.metric("fanwire_events_delivered_total") for node in nodes) >= 148
        assert sum(node.metric("fanwire_event_dead_letters_total") for node in nodes) == 0
        assert len(receiver.requests) < 148, "events come together"


def test_a_receiver_that_is_busy_is_left_alone_for_as_long_as_it_asks():
    """503 with Retry-After, by a receiver of its own."""
    seen, answers = queue.Queue(), iter([b"503 Busy\r\nretry-after: 3", b"200 OK"])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            seen.put(time.monotonic())
            self.wfile.write(b"HTTP/1.1 " + next(answers, b"200 OK") + b"\r\ncontent-length: 0\r\n\r\n")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with cluster(f"http://127.0.0.1:{server.server_port}/", "a") as (node,):
            visit(node, "ann")
            first, second = seen.get(timeout=20), seen.get(timeout=20)
            assert second - first >= 2.9
        server.shutdown()


@pytest.mark.parametrize("status", [400, 500])
def test_a_poisoned_event_is_a_dead_letter_and_holds_up_nobody(receiver, status):
    is_poisoned = lambda event: event["event"] == "connected" and event["user"] == "poison"
    receiver.judge = lambda events: status if any(map(is_poisoned, events)) else 204
    with cluster(receiver.url, attempts_max=2) as nodes:
        for number in range(5):
            visit(nodes[number % 2], f"u{number}")
        visit(nodes[0], "poison")
        letters = []

        def is_dead():
            # A receiver that fails is not the fault of an event until others are taken.
            visit(nodes[1], "bystander")
            letters[:] = nodes[1].api("dead_letters")["letters"]
            return letters

        until(is_dead, "it is a dead letter", 40)
        (letter,) = letters
        assert (letter["status"], letter["event"]["event"], letter["event"]["user"]) == (status, "connected", "poison")
        assert letter["attempts"] >= 2 and abs(letter["refused_at"] / 1000 - time.time()) < 60
        receiver.until_user("poison", ["user_online", "disconnected", "user_offline"])
        for number in range(5):
            receiver.until_user(f"u{number}", GONE)
        until(lambda: sum(node.metric("fanwire_event_dead_letters") for node in nodes) == 1, "it is counted", 30)
        assert sum(node.metric("fanwire_event_dead_letters_total") for node in nodes) == 1

        # Refused again it is a dead letter again, with all its attempts.
        assert nodes[0].api("dead_letters_retry", {"ids": [letter["id"]]}) == {"count": 1}
        again = lambda: [l for l in nodes[0].api("dead_letters", {"limit": 5})["letters"] if l["attempts"] > letter["attempts"]]
        until(again, "it was refused again", 30)
        assert again()[0]["event"] == letter["event"]

        receiver.judge = lambda events: 204
        assert nodes[0].api("dead_letters_retry", {"all": True}) == {"count": 1}
        receiver.until_user("poison", ["user_online", "disconnected", "user_offline", "connected"])
        assert letter["event"]["id"] in receiver.events
        assert nodes[1].api("dead_letters") == {"letters": []}
        assert nodes[1].api("dead_letters_remove", {"all": True}) == {"count": 0}


def test_dead_letters_are_removed_on_request(receiver):
    receiver.judge = lambda events: 422 if any(event["user"] == "poison" for event in events) else 204
    with cluster(receiver.url, "a", attempts_max=1) as (node,):
        visit(node, "poison")
        until(lambda: len(node.api("dead_letters")["letters"]) == 4, "all four are dead letters", 30)
        letters = node.api("dead_letters", {"limit": 3})["letters"]
        assert [letter["event"]["event"] for letter in letters] == GONE[:3]
        assert node.api("dead_letters_remove", {"ids": [letters[0]["id"], "1-1"]}) == {"count": 1}
        assert node.api("dead_letters_remove", {"all": True}) == {"count": 3}
        for method, wrong, words in [
            ("dead_letters", {"limit": 1001}, "limit"),
            ("dead_letters_retry", {}, "ids"),
            ("dead_letters_retry", {"ids": ["1-1"], "all": True}, "all"),
            ("dead_letters_remove", {"ids": ["here"]}, "ids[0]"),
        ]:
            error = node.post(f"/api/{method}", json.dumps(wrong).encode()).json()["error"]
            assert error["code"] == 107 and words in error["message"], error


def test_another_node_takes_over_from_one_that_was_killed(receiver):
    with cluster(receiver.url, "abc") as nodes:
        visit(nodes[0], "ann")
        receiver.until_user("ann", GONE)
        until(lambda: working(nodes), "one node works")
        killed = working(nodes)
        others = [node for node in nodes if node is not killed]
        staying = Client(killed, "staying")
        receiver.until_user("staying", ["user_online", "connected"])
        # It is killed with a request under way, whose events the receiver has taken.
        entered, killing = threading.Event(), threading.Event()

        def hold(events):
            if any(event["user"] == "bob" for event in events) and not entered.is_set():
                entered.set()
                killing.wait(10)
            return 204

        receiver.judge = hold
        visit(others[0], "bob")
        assert entered.wait(10)
        began = time.monotonic()
        killed.kill()
        killing.set()
        visit(others[1], "cid")
        receiver.until_user("cid", GONE, 20)
        print(f"taken over after {time.monotonic() - began:.1f} s")
        receiver.until_user("bob", GONE)
        assert receiver.repeats > 0
        receiver.until_user("staying", GONE)
        reasons = [e["reason"]["text"] for e in receiver.events.values() if e["event"] == "disconnected" and e["user"] == "staying"]
        assert reasons == ["node died"]
        # A node that stops leaves the work at once.
        until(lambda: working(others), "another node works")
        stopping = working(others)
        (left,) = [node for node in others if node is not stopping]
        began = time.monotonic()
        stopping.stop()
        visit(left, "dan")
        receiver.until_user("dan", GONE, 10)
        print(f"handed over within {time.monotonic() - began:.1f} s")


@pytest.mark.parametrize("language", EXAMPLES)
def test_the_examples_receive(language):
    port, lines = free_port(), []
    process = subprocess.Popen(
        EXAMPLES[language],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PORT": str(port), "SIGNATURE_SECRET": SECRET},
        preexec_fn=die_with_parent,
    )
    threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True).start()
    url = f"http://127.0.0.1:{port}/events"
    body = json.dumps({"events": [{"id": "7-1700000000000-0", "event": "user_online", "time": 1700000000000, "user": "eve"}]}).encode()

    def post(body, secret=SECRET, age=0):
        seconds = int(time.time()) - age
        signed = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "fanwire-signature": f"t={seconds},v1={signed}"}
        return request("POST", url, body, headers).status

    try:

        def listens():
            with contextlib.suppress(OSError):
                return request("POST", url, b"{}", {}).status == 401

        until(listens, "the example listens")
        assert [post(body, "another"), post(body, age=400)] == [401, 401]
        assert [post(body), post(body), post(b"nonsense")] == [204, 204, 500]
        with cluster(url, "a") as (node,):
            visit(node, "ann")
            told = lambda: [event["event"] for event in map(json.loads, list(lines)) if event["user"] == "ann"]
            until(lambda: told() == GONE, "ann came and went")
        assert json.loads(lines[0]) == json.loads(body)["events"][0] and len(lines) == 1 + len(GONE)
    finally:
        process.kill()
        process.wait()
