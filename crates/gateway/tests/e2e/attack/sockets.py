"""Connections that are silent or slow. Clients, API callers and health checks are served beside them."""

import contextlib

from attackers import get


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
