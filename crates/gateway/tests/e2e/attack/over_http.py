"""Clients without WebSocket: requests with bodies, their answers, and sessions whose commands go by them."""

import json
import re
import threading

from attackers import drain


def post(path, body, *headers):
    """Returns the bytes of a request."""
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def lines(*commands):
    """Returns commands as a body has them."""
    return "\n".join(json.dumps(command, separators=(",", ":")) for command in commands).encode()


def statuses(connection):
    """Yields the status of each answer, until the server closes."""
    received = bytearray()

    def fill():
        more = connection.recv(1 << 16)
        received.extend(more)
        return more

    while True:
        while (end := received.find(b"\r\n\r\n")) < 0:
            if not fill():
                return
        head = bytes(received[:end])
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        whole = end + 4 + (int(length[1]) if length else 0)
        while len(received) < whole and fill():
            pass
        del received[:whole]
        yield int(head.split(b" ", 2)[1])


class Session:
    """A client of `http_stream`, whose replies are read and dropped. It answers no ping."""

    def __init__(self, attack, server=None, user="rogue"):
        server = server or attack.server
        self.stream = attack.socket(server.port)
        connect = {"id": 1, "connect": {"token": server.token(user)}}
        self.stream.sendall(post("/connection/http_stream", lines(connect)))
        connected = self.first_reply().get("connect", {})
        assert "session" in connected, connected
        self.names = {name: connected[name] for name in ("session", "node")}
        threading.Thread(target=drain, args=(self.stream,), daemon=True).start()

    def first_reply(self):
        received = b""
        while b"\n" not in (body := received.partition(b"\r\n\r\n")[2]):
            more = self.stream.recv(1 << 16)
            assert more, received
            received += more
        return json.loads(body.partition(b"\n")[0])

    def call(self, data, **names):
        """Returns a request with these commands. `names` replace the session's own."""
        return post("/emulation", json.dumps({**self.names, **names, "data": data.decode()}).encode())
