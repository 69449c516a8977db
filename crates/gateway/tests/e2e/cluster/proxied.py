"""What nginx, configured as it is shipped, does to connections that stay, and what it keeps to itself."""

import statistics
import time

import pytest

from client import Client
from harness import request, until

SETTINGS = {"client": {"ping_interval": "1s", "pong_timeout": "500ms"}}


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


def test_connections_on_which_nothing_happens_live_on(cluster, listeners, fresh):
    """nginx waits for less than the test lasts; pings, and the comments between events, keep connections alive."""
    patience, silence = 2, 6
    topic = fresh("open")
    token = cluster.node(0).token
    with cluster.nginx(f"{patience}s") as front, Client(front, token("by hand")) as counting:
        kinds = ["json", "protobuf", "python-json", "python-protobuf", "eventsource"]
        idle = listeners.open_all([(kind, f"idle {kind}") for kind in kinds], front, token, [topic])
        counting.subscribe(topic)
        began = counting.pings
        # One ping a second.
        counting.wait(lambda: counting.pings >= began + silence)
        cluster.node(0).publish(topic, "awake")
        assert counting.publications(topic, 1) == ["awake"]
        for listener in idle:
            until(lambda: listener.data(topic) == ["awake"], f"{listener.name} receives")
            assert len(listener.of("connected")) == 1, listener.events
        for listener in idle:
            listeners.close(listener)


@pytest.mark.parametrize("path", ["/api/publish", "/api/info", "/metrics", "/livez", "/connection/http_stream", "/"])
def test_only_the_paths_of_clients_are_public(cluster, front, path):
    headers = {"x-api-key": cluster.node(0).api_key, "content-type": "application/json"}
    assert request("POST", front.http + path, b"{}", headers).status == 404
