"""Plain HTTP: too many topics, heads that are too long, cursors that ask for much, bare WebSockets that flood."""

import itertools
import json

import pytest

from amplification import fill
from attackers import drop, get
from harness import RawSocket, frame, handshake
from over_http import post

# `client.subscriptions_max`.
TOPICS_MAX = 128
# A head may have 32 KiB.
LONG = 30_000
MISSED = "wild:missed"
# A recovery of 4 MB, close to `client.recovery_bytes_max`.
PUBLICATIONS, BYTES = 65, 60_000


def forms_of(path):
    """Returns requests for the same in every form."""
    return [get(f"{path}&as=sse"), get(f"{path}&as=ndjson"), handshake(path)]


def topics(count):
    return "&".join(f"topic=t{number}" for number in range(count))


def test_a_thousand_topics_in_every_form(trial):
    """They are more than is allowed, so each request is refused."""
    trial.serve()
    path = f"/subscribe?{topics(1000)}"
    forms = forms_of(path)
    with trial.attack("GET /subscribe of 1,000 topics, pipelined, 3 forms, 30 connections", prompt=True) as attack:
        for form in forms:
            attack.crowd(10, lambda form=form: attack.flood(form * 16))


def test_streams_of_128_topics_that_come_and_go(trial):
    server = trial.serve({"topics": {"default": {"allow_subscribe_for_client": True}}})
    path = f"/subscribe?{topics(TOPICS_MAX)}&token={server.token('rogue')}"
    forms = forms_of(path)

    def visit(form):
        connection = attack.socket()
        connection.sendall(form)
        assert connection.recv(12)[9:] in (b"101", b"200")
        drop(connection)

    with trial.attack("streams of 128 topics that come and go, 3 forms, 15 clients", prompt=True) as attack:
        for form in forms:
            attack.crowd(5, lambda form=form: visit(form))


def long_requests():
    """Requests whose heads are as long as they may be, and one that is longer."""
    long = "A" * LONG
    nested = "%5B" * (LONG // 3)
    yield get(f"/subscribe?topic=wild:a&cursor={long}")
    yield f"GET /subscribe?topic=wild:a HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {long}\r\n\r\n".encode()
    yield get("/subscribe?topic=wild:a" + "&subscription_token=e30.e30.x" * (LONG // 29))
    yield f"GET /subscribe?topic=wild:a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {long}\r\n\r\n".encode()
    yield f"GET /subscribe?topic=wild:a HTTP/1.1\r\nHost: x\r\nAccept: {'a/b,' * (LONG // 4)}\r\n\r\n".encode()
    yield handshake("/subscribe?topic=wild:a", {"Sec-WebSocket-Protocol": "a," * (LONG // 2)})
    for path in ("/connection/sse", "/connection/uni_sse"):
        yield get(f"{path}?cf_connect={nested}")
    yield handshake(f"/connection/uni_websocket?cf_connect={nested}")
    yield post(f"/publish?topic={long}", b"{}")
    yield post("/emulation", b"{}", f"Cookie: {'a=b; ' * (LONG // 5)}")
    yield get("/probe?" + "A" * 10 * LONG)


def test_long_heads(trial):
    trial.serve()
    requests = list(long_requests())
    with trial.attack(f"heads of 30 KB, {len(requests)} kinds, pipelined, 3 connections each", prompt=True) as attack:
        for each in requests:
            attack.crowd(3, lambda each=each: attack.flood(each * 16))


def first_line(server, path):
    """Returns what a stream of lines begins with."""
    with RawSocket(server, upgrade=False) as raw:
        raw.send(get(f"{path}&as=ndjson"))
        head = raw.read_head()
        assert head.startswith("HTTP/1.1 200 "), head
        while b"\n" not in raw.received:
            assert raw.fill(len(raw.received) + 1), "the stream ends without a line"
        return json.loads(raw.received.partition(b"\n")[0])


def test_recoveries_by_cursor_that_nobody_reads(trial):
    server = trial.serve()
    path = f"/subscribe?topic={MISSED}&token={server.token('rogue')}"
    server.publish(MISSED, "first")
    path += f"&cursor={first_line(server, path)['cursor']}"
    fill(server, PUBLICATIONS, BYTES, MISSED)
    assert first_line(server, path)["subscribed"] == [{"topic": MISSED, "recovered": True}]
    forms = forms_of(path)

    def ask(form):
        attack.socket().sendall(form)
        attack.over.wait()

    with trial.attack("recoveries of 4 MB by a cursor, 3 forms, 48 clients, unread", prompt=True) as attack:
        for form in forms:
            attack.crowd(16, lambda form=form: ask(form))


def test_cursors_with_a_letter_changed(trial):
    """Most are cursors of other topics, streams or places, which are not recovered; others are refused."""
    server = trial.serve()
    path = f"/subscribe?topic={MISSED}&token={server.token('rogue')}"
    cursor = first_line(server, path)["cursor"]
    changed = [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(len(cursor))]

    def visit(text):
        connection = attack.socket()
        connection.sendall(get(f"{path}&as=sse&cursor={text}"))
        assert connection.recv(12)[9:] in (b"200", b"400")
        drop(connection)

    texts = itertools.cycle(changed)
    with trial.attack("cursors with a letter changed, 12 clients", prompt=True) as attack:
        attack.crowd(12, lambda: visit(next(texts)))


FLOODS = {
    "heartbeats": ("wild:bare", frame(0x1, b"ping") * 1000),
    "texts that are published": ("wild:bare", frame(0x1, b"no JSON") * 1000),
    "texts that are refused": ("calm:news", frame(0x1, b"x") * 1000),
    "bytes": ("wild:bare", frame(0x2, b"\xff" * 100) * 1000),
    "texts of 60 KB": ("wild:bare", frame(0x1, b"x" * 60_000) * 4),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_floods_of_bare_sockets(trial, kind):
    server = trial.serve()
    topic, frames = FLOODS[kind]
    path = f"/subscribe?topic={topic}&token={server.token('rogue')}"

    def flood():
        raw = RawSocket(server, path)
        attack.hold(raw.socket)
        attack.send_and_drain(raw.socket, itertools.repeat(frames))

    with trial.attack(f"{kind}, 20 bare WebSockets", prompt=True) as attack:
        attack.crowd(20, flood)
