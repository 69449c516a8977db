"""Clients that never read, on every transport. They are closed, and others receive everything."""

import json

from attackers import get
from content import field, varint
from harness import frame, handshake, until
from over_http import lines, post

TOPIC = "wild:flow"
CLIENTS_OF_EACH = 10
PUBLICATION_BYTES = 60_000
# The code of clients that do not take what is sent to them.
SLOW = "3008"


def requests(token):
    """Returns what a client of each transport sends."""
    commands = {"id": 1, "connect": {"token": token}}, {"id": 2, "subscribe": {"channel": TOPIC}}
    binary = [b"\x08\x01" + field(4, field(1, token.encode())), b"\x08\x02" + field(5, field(1, TOPIC.encode()))]
    binary = b"".join(varint(len(command)) + command for command in binary)
    connect = json.dumps({"token": token, "subs": {TOPIC: {}}}).encode()
    path = f"/subscribe?topic={TOPIC}&token={token}"
    return [
        handshake("/connection/websocket") + frame(0x1, lines(*commands)),
        post("/connection/http_stream", lines(*commands)),
        post("/connection/http_stream", binary, "Content-Type: application/octet-stream"),
        post("/connection/sse", lines(*commands)),
        handshake("/connection/uni_websocket") + frame(0x1, connect),
        post("/connection/uni_http_stream", connect),
        post("/connection/uni_sse", connect),
        handshake(path),
        get(f"{path}&as=ndjson"),
        get(f"{path}&as=sse"),
    ]


def test_clients_that_never_read(trial):
    # Without pongs none is closed for want of one.
    server = trial.serve({"client": {"queue_bytes_max": "256KiB", "pong_timeout": "0s"}})
    all_requests = requests(server.token("rogue"))
    count = len(all_requests) * CLIENTS_OF_EACH
    data = "x" * PUBLICATION_BYTES

    def hold(request):
        attack.socket().sendall(request)
        attack.over.wait()

    def are_closed():
        return server.metric("fanwire_connections_closed_total", code=SLOW) >= count

    with trial.attack(f"{count} clients of {len(all_requests)} transports that never read", prompt=True) as attack:
        for request in all_requests:
            attack.crowd(CLIENTS_OF_EACH, lambda request=request: hold(request))
        attack.crowd(2, lambda: server.publish(TOPIC, data))
        until(are_closed, f"all of them are closed with {SLOW}")
