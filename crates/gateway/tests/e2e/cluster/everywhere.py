"""Clients of every kind behind nginx and HAProxy, which give them to three nodes in turn. They change transport and node
under traffic, or stay and are thrown out, while one node after the other is killed: each gets everything, in order and
once. `MOVER_STAY=5` has them stay five seconds on each transport."""

import concurrent.futures
import contextlib
import itertools
import os
import time

import pytest

from front import Haproxy, Nginx, WithoutStreams, WithoutWebSocket
from harness import Server, until
from mover import Mover, Way
from traffic import StubbornTraffic

# What comes without a cursor comes again from the last one, however long ago that was.
SETTINGS = {"client": {"allowed_origins": ["http://127.0.0.1:*"], "recovery_max": 5000}}
# How long clients stay on a transport, in seconds, once they have received something there.
STAY = float(os.environ.get("MOVER_STAY", "0"))
# Clients of the Centrifuge protocol go on from positions, the others from a cursor.
CENTRIFUGE = ["json", "stream-protobuf", "sse-json", "protobuf", "stream-json", "page-sse", "page-json", "page-stream"]
PLAIN = [
    "eventsource",
    "curl-poll",
    "httpx-ndjson",
    "page-eventsource",
    "page-reconnecting-websocket",
    "httpx-sse",
    "envelope-reconnecting-websocket",
    "page-reconnectingwebsocket",
    "envelope-reconnectingwebsocket",
]
# What the package finds by itself where a proxy refuses the transports before it in its list.
FOUND = {WithoutWebSocket: "http_stream", WithoutStreams: "sse"}


@pytest.fixture(scope="module")
def fronts(cluster):
    proxies = [Nginx, Haproxy, WithoutWebSocket, WithoutStreams]
    with contextlib.ExitStack() as started:
        yield [started.enter_context(cluster.front(proxy)) for proxy in proxies]


@pytest.fixture(scope="module")
def families(fronts):
    """The ways that clients of each family may go: the transports in turn, through one proxy and the other."""
    nginx, haproxy, without_websocket, without_streams = fronts
    centrifuge, plain = (
        [Way(kind, place) for kind, place in zip(kinds, [nginx, haproxy] * len(kinds))] for kinds in [CENTRIFUGE, PLAIN]
    )
    return [[*centrifuge, Way("any-protobuf", without_websocket), Way("any-json", without_streams)], plain]


def test_whatever_happens_each_client_gets_everything_once(cluster, families, listeners, fresh):
    topics, names = [fresh("open"), fresh("open")], map(str, itertools.count())
    # A page without a protocol gets its first cursor with its content.
    content = listeners.open("httpx-ndjson", "content", cluster.node(0), cluster.node(0).token("content"), topics)
    listeners.close(content)
    # Each begins elsewhere, so that every transport is in use at any time.
    ways = [family[number:] + family[:number] for family in families for number in range(len(family))]
    movers, stayers = (
        [Mover(f"{way[0].kind} {next(names)}", cluster, listeners, topics, way, content) for way in ways]
        for _ in range(2)
    )
    listeners.begin([one.next_stage() for one in movers + stayers])

    with StubbornTraffic(cluster, topics) as traffic, concurrent.futures.ThreadPoolExecutor(len(movers)) as pool:

        def move_all(meanwhile=lambda: None):
            moves = [pool.submit(mover.move) for mover in movers]
            meanwhile()
            for move in moves:
                move.result()
            count = traffic.count + 1
            for mover in movers:
                until(lambda: mover.has(count), f"{count} messages reach {mover}")
            time.sleep(STAY)

        for node, end in zip(cluster.nodes, [Server.kill, Server.stop, Server.kill]):
            move_all(lambda: end(node))
            move_all(node.launch)
    assert traffic.failure is None, traffic.failure
    for one in movers + stayers:
        until(lambda: one.has(traffic.count), f"everything reaches {one}")
        one.close()
    for stayer in stayers:
        seen, place = stayer.stages[-1], stayer.ways[0].place
        connected = seen.of("connected")
        assert len(connected) > 1, f"{stayer} was never thrown out"
        if found := FOUND.get(type(place)):
            assert {one["transport"] for one in connected} == {found}
        assert seen.of("pong") or "websocket" not in seen.kind, f"{stayer} sent no heartbeat"
