"""Requests that cost the server more than the client. Each is answered, and no other client waits for it."""

import base64
import itertools
import json
import pathlib

import pytest

from attackers import commands, drop, get
from harness import RawSocket, handshake

P384 = pathlib.Path(__file__).resolve().parents[4] / "server/src/auth/testdata/p384_public.pem"

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
        attack.hold(raw.socket)
        raw.send(handshake("/connection/websocket") + connect)
        raw.read_head()
        raw.read_frame()
        drop(raw.socket)

    with trial.attack("connect with 7,000 subs, 20 connections") as attack:
        attack.crowd(20, connect_once)


def test_forged_signatures(trial):
    """Subscription tokens that are refused after a signature was verified."""
    trial.serve({"client": {"token": {"ecdsa_public_key": P384.read_text()}}})
    claims = {"sub": "rogue", "channel": "wild:forged"}
    parts = (json.dumps({"alg": "ES384"}).encode(), json.dumps(claims).encode(), bytes(range(1, 97)))
    token = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts).decode()
    subscribe = {"id": 2, "subscribe": {"channel": claims["channel"], "token": token}}
    request = commands(*[subscribe] * 60)

    with trial.attack("subscribes with forged ES384 tokens, 200 clients") as attack:
        attack.crowd(200, lambda: attack.send_and_drain(attack.websocket().socket, itertools.repeat(request)))
