"""Requests that cost the server more than the client. Each is answered, and no other client waits for it."""

import itertools

import pytest

from attackers import commands, drop, get
from harness import RawSocket, handshake

# Three letters a name.
NAMES = ["".join(letters) for letters in itertools.product("abcdefghijklmnopqrst", repeat=3)]
# As many topics as fit into the head of a request: 32 KiB.
TOPICS = get("/subscribe?" + "&".join(f"topic={name}" for name in NAMES[:3240]))
# As many as fit into a message: 64 KiB.
SUBS = {name: {} for name in NAMES[:7000]}


@pytest.mark.parametrize("connections", [1, 40])
def test_pipelined_subscribe_requests_of_3240_topics(trial, connections):
    trial.serve()
    with trial.attack(f"GET /subscribe of 3,240 topics, pipelined, {connections} connections") as attack:
        attack.crowd(connections, lambda: attack.flood(TOPICS * 16))


def test_connect_with_7000_subs(trial):
    """`subs` are the topics of an earlier connection that a client asks for again."""
    server = trial.serve({"topics": {"default": {"allow_subscribe_for_client": True}}})
    connect = commands({"id": 1, "connect": {"token": server.token("rogue"), "subs": SUBS}})

    def connect_once():
        raw = RawSocket(server, upgrade=False)
        attack.sockets.append(raw.socket)
        raw.send(handshake("/connection/websocket") + connect)
        raw.read_head()
        raw.read_frame()
        drop(raw.socket)

    with trial.attack("connect with 7,000 subs, 20 connections") as attack:
        attack.crowd(20, connect_once)
