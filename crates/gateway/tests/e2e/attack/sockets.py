"""Connections that are silent or slow. Clients, API callers and health checks are served beside them."""

import contextlib

from attackers import get
from harness import RawSocket

# Paths whose requests have a body.
PATHS = (
    "/connection/http_stream",
    "/connection/sse",
    "/connection/uni_http_stream",
    "/connection/uni_sse",
    "/emulation",
    "/publish?topic=wild:drip",
)
DRIPPING_OF_EACH = 150


def drip(attack, sockets):
    """Sends a byte on each every 200 ms."""

    def go_round():
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.sendall(b"x")
        attack.over.wait(0.2)

    attack.crowd(1, go_round)


def test_silent_sockets(trial):
    trial.serve()
    with trial.attack("6,000 sockets that say nothing") as attack:
        for _ in range(6000):
            attack.socket()


def test_metrics_that_nobody_reads(trial):
    server = trial.serve()
    with trial.attack("300 connections that pipeline GET /metrics and read nothing") as attack:
        for _ in range(300):
            connection = attack.socket(server.internal_port)
            with contextlib.suppress(OSError):
                connection.sendall(get("/metrics") * 100)


def test_heads_that_drip(trial):
    """Each sends a byte of its head every 200 ms and never ends it."""
    trial.serve()
    with trial.attack("1,000 heads, a byte at a time") as attack:
        sockets = [attack.socket() for _ in range(1000)]
        for connection in sockets:
            connection.sendall(b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nX-Long: ")
        drip(attack, sockets)


def test_bodies_that_drip(trial):
    """Each sends a byte of its body every 200 ms. Others do the same with the first message of a WebSocket."""
    server = trial.serve()
    token = server.token("rogue")
    path_count = len(PATHS) + 1
    with trial.attack(f"{path_count * DRIPPING_OF_EACH:,} bodies, a byte at a time", prompt=True) as attack:
        sockets = []
        for path in PATHS * DRIPPING_OF_EACH:
            connection = attack.socket()
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 60000\r\n\r\n"
            connection.sendall(head.encode())
            sockets.append(connection)
        for _ in range(DRIPPING_OF_EACH):
            raw = RawSocket(server, "/connection/uni_websocket")
            attack.hold(raw.socket)
            # The begin of a text of 60,000 bytes.
            raw.send(b"\x81\xfe\xea\x60\0\0\0\0")
            sockets.append(raw.socket)
        drip(attack, sockets)
