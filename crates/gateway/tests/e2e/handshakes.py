"""Opening handshakes by hand, good and bad; clients that half-close, vanish or never speak; other libraries."""

import asyncio
import json
import socket
import struct
import time

import pytest
import websockets

from harness import RawSocket, Server, frame, handshake, request, until


@pytest.fixture(scope="module")
def server():
    settings = {
        "client": {
            "allowed_origins": ["https://app.example.com", "https://*.pages.example.com"],
            "ping_interval": "1s",
            "pong_timeout": "500ms",
            "stale_close_delay": "1s",
        },
        "server": {"request_header_timeout": "1s"},
    }
    with Server(settings) as server:
        yield server


WEBSOCKET = "/connection/websocket"
# How long a ping, its answer's time and a busy machine may take together.
GONE_WITHIN = 5


def answer_to(server, request_bytes):
    """Status, headers in lower case, and body of the answer to bytes that ask for no WebSocket."""
    with RawSocket(server, upgrade=False) as raw:
        raw.send(request_bytes)
        head = raw.read_head()
        status_line, *lines = head.split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        while len(raw.received) < length:
            more = raw.socket.recv(65536)
            assert more, "the body is shorter than it says"
            raw.received += more
        return int(status_line.split()[1]), headers, raw.received.decode()


def refused(server, headers, path=WEBSOCKET):
    """The status of a refusal, which always comes with a sentence."""
    status, answer_headers, body = answer_to(server, handshake(path, headers))
    assert len(body.split()) >= 3, f"status {status} has no sentence: {body!r}"
    return status, answer_headers


class TestHandshake:
    def test_the_accepted_key_is_the_one_of_the_specification(self, server):
        with RawSocket(server, upgrade=False) as raw:
            raw.send(handshake(WEBSOCKET, {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}))
            head = raw.read_head().lower()
        assert head.startswith("http/1.1 101 ")
        assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in head
        assert "sec-websocket-protocol" not in head

    @pytest.mark.parametrize(
        "connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "keep-alive,upgrade,te"]
    )
    def test_the_connection_header_is_a_list(self, server, connection):
        with RawSocket(server, headers={"Connection": connection, "Upgrade": "WebSocket"}):
            pass

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            ("centrifuge-json", "centrifuge-json"),
            ("centrifuge-protobuf", "centrifuge-protobuf"),
            ("other, centrifuge-protobuf", "centrifuge-protobuf"),
            ("other", None),
            ("", None),
        ],
    )
    def test_sub_protocols(self, server, offered, chosen):
        with RawSocket(server, upgrade=False) as raw:
            raw.send(handshake(WEBSOCKET, {"Sec-WebSocket-Protocol": offered}))
            lines = raw.read_head().lower().split("\r\n")
        assert lines[0].startswith("http/1.1 101 ")
        given = [line.partition(": ")[2] for line in lines if line.startswith("sec-websocket-protocol")]
        assert given == ([chosen] if chosen else [])

    @pytest.mark.parametrize("query", ["?cf_protocol_version=v2", "?a=b&c", "?", "?format=json"])
    def test_queries_are_ignored(self, server, query):
        with RawSocket(server, path=WEBSOCKET + query) as raw:
            assert raw.connect(server)["client"]

    def test_the_first_frame_may_come_with_the_handshake(self, server):
        with RawSocket(server, upgrade=False) as raw:
            connect = json.dumps({"id": 1, "connect": {"token": server.token("eager")}}).encode()
            raw.send(handshake(WEBSOCKET) + frame(0x1, connect))
            assert raw.read_head().startswith("HTTP/1.1 101 ")
            assert raw.read_reply(1)["connect"]["client"]

    def test_no_upgrade(self, server):
        status, _ = refused(server, {"Upgrade": None, "Connection": None})
        assert status in (400, 426)

    def test_another_upgrade(self, server):
        status, _ = refused(server, {"Upgrade": "h2c"})
        assert status in (400, 426)

    def test_no_connection_header(self, server):
        status, _ = refused(server, {"Connection": "keep-alive"})
        assert status in (400, 426)

    @pytest.mark.parametrize(
        "key", [None, "", "c2hvcnQ=", "not base64 not base64 ==", "dGhlIHNhbXBsZSBub25jZTEyMzQ1Ng=="]
    )
    def test_wrong_keys(self, server, key):
        assert refused(server, {"Sec-WebSocket-Key": key})[0] == 400

    def test_doubled_key(self, server):
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        head = handshake(WEBSOCKET, {"Sec-WebSocket-Key": None})
        status, _, body = answer_to(server, head.replace(b"\r\n\r\n", b"\r\n" + (key + key).encode() + b"\r\n"))
        assert status == 400
        assert len(body.split()) >= 3

    @pytest.mark.parametrize("version", [None, "8", "12", "14", "x", ""])
    def test_other_versions_learn_which_one_it_is(self, server, version):
        status, headers = refused(server, {"Sec-WebSocket-Version": version})
        assert status == 426 or (version is None and status == 400)
        assert headers["sec-websocket-version"] == "13"

    def test_other_methods(self, server):
        for method in ("POST", "PUT", "DELETE"):
            answer = request(method, server.http + WEBSOCKET, b"{}", {})
            assert answer.status == 405
            assert "GET" in answer.headers["Allow"]

    def test_unknown_paths(self, server):
        for path in ("/nothing", "/connection", "/connection/websocket/more", "/..%2f", "/%ff"):
            assert refused(server, {"Upgrade": None, "Connection": None}, path)[0] == 404

    @pytest.mark.parametrize(
        ("origin", "allowed"),
        [
            ("https://app.example.com", True),
            ("https://one.pages.example.com", True),
            ("HTTPS://APP.EXAMPLE.COM", True),
            ("http://app.example.com", False),
            ("https://app.example.com.evil.com", False),
            ("https://evil.com", False),
            ("null", False),
            ("", False),
        ],
    )
    def test_origins(self, server, origin, allowed):
        headers = {"Origin": origin}
        if allowed:
            with RawSocket(server, headers=headers):
                pass
        else:
            status, _, body = answer_to(server, handshake(WEBSOCKET, headers))
            assert status == 403
            assert "client.allowed_origins" in body, "the refusal names the setting to change"

    @pytest.mark.parametrize(
        "garbage",
        [
            b"\r\n\r\n\r\n\r\n",
            b"hello\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /connection/websocket HTTP/1.1\r\nHost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    )
    def test_garbage_is_answered_or_closed(self, server, garbage):
        with RawSocket(server, upgrade=False) as raw:
            raw.send(garbage)
            raw.socket.shutdown(socket.SHUT_WR)
            answer = raw.read_rest()
            assert not answer or answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.0 4")

    def test_a_head_without_end_is_refused(self, server):
        with RawSocket(server, upgrade=False) as raw:
            raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
            try:
                for number in range(20_000):
                    raw.send(b"X-Header-%d: %s\r\n" % (number, b"x" * 100))
                answer = raw.read_rest()
            except OSError:
                answer = b""
            assert not answer or answer.startswith(b"HTTP/1.1 4")


class TestLeaving:
    def test_a_slow_head_runs_out_of_time(self, server):
        with RawSocket(server, upgrade=False) as raw:
            raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
            raw.socket.settimeout(GONE_WITHIN)
            raw.read_rest()

    def test_a_client_that_never_connects_is_stale(self, server):
        with RawSocket(server) as raw:
            assert raw.read_close() == (3502, "stale")

    def test_a_close_frame_is_answered(self, server):
        with RawSocket(server) as raw:
            raw.connect(server)
            raw.send(frame(0x8, struct.pack("!H", 1000) + b"bye"))
            assert raw.read_close()[0] == 1000
            assert raw.read_frame() == (None, b"")
        nobody_left(server)

    def test_a_half_closed_connection_is_closed(self, server):
        with RawSocket(server) as raw:
            raw.connect(server, "half")
            raw.socket.shutdown(socket.SHUT_WR)
            began = time.monotonic()
            while raw.read_frame()[0] is not None:
                pass
            assert time.monotonic() - began < GONE_WITHIN
            nobody_left(server)

    def test_half_closed_before_the_handshake(self, server):
        with RawSocket(server, upgrade=False) as raw:
            raw.send(handshake(WEBSOCKET)[:40])
            raw.socket.shutdown(socket.SHUT_WR)
            raw.read_rest()
            nobody_left(server)

    def test_a_vanished_client_is_gone_after_ping_and_pong(self, server):
        # It reads, so nothing backs up, but it answers no ping.
        with RawSocket(server) as raw:
            hello = raw.connect(server, "silent")
            assert (hello["ping"], hello["pong"]) == (1, True)
            began = time.monotonic()
            assert raw.read_close() == (3012, "no pong")
            assert time.monotonic() - began < GONE_WITHIN

    def test_a_client_that_neither_reads_nor_answers_the_close_is_gone(self, server):
        with RawSocket(server) as raw:
            raw.connect(server, "dead")
            nobody_left(server, within=20)

    def test_a_client_that_answers_pings_stays(self, server):
        with RawSocket(server) as raw:
            raw.connect(server, "alive")
            for _ in range(3):
                assert raw.read_replies() == [{}]
                raw.send_text("{}")
            raw.send_commands({"id": 9, "presence": {"channel": "plain:x"}})
            assert raw.read_reply(9)["error"]["code"] == 108

    def test_native_pings_are_answered(self, server):
        with RawSocket(server) as raw:
            raw.connect(server)
            raw.send(frame(0x9, b"are you there"))
            while (got := raw.read_frame())[0] == 0x1:
                pass
            assert got == (0xA, b"are you there")

    def test_a_pong_that_nobody_asked_for_is_refused(self, server):
        with RawSocket(server) as raw:
            raw.connect(server)
            raw.send_text("{}\n{}\n{}")
            code, reason = raw.read_close()
            assert (code, reason.split(":")[0]) == (3501, "bad request")

    def test_five_hundred_resets_leave_nothing(self, server):
        for _ in range(500):
            raw = RawSocket(server, upgrade=False)
            raw.send(handshake(WEBSOCKET))
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.socket.close()
        nobody_left(server)


# States in which the kernel alone keeps what the server has closed.
KERNELS_OWN = {"TIME-WAIT", "FIN-WAIT-1", "FIN-WAIT-2"}


def nobody_left(server, within=GONE_WITHIN):
    """No connection is counted, and the server holds no socket: none waits for a close, above all."""
    until(lambda: set(server.socket_states()) <= KERNELS_OWN, "no socket is left", within)
    until(lambda: server.metric("fanwire_connections") == 0, "no connection is counted", within)


def test_python_websockets_speaks_the_protocol(server):
    async def scenario():
        async with websockets.connect(server.websocket, proxy=None, origin="https://app.example.com") as socket:
            hello = {"id": 1, "connect": {"token": server.token("alice")}}
            await socket.send(json.dumps(hello))
            assert json.loads(await socket.recv())["connect"]["client"]
            await socket.send(json.dumps({"id": 2, "subscribe": {"channel": "plain:websockets"}}))
            assert json.loads(await socket.recv()) == {"id": 2, "subscribe": {}}
            await asyncio.to_thread(server.publish, "plain:websockets", {"n": 1})
            push = json.loads(await socket.recv())
            assert push == {"push": {"channel": "plain:websockets", "pub": {"data": {"n": 1}}}}
            pong = await socket.ping()
            await asyncio.wait_for(pong, 5)

    asyncio.run(scenario())


def test_a_strange_origin_is_refused_by_name(server):
    async def scenario():
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(server.websocket, proxy=None, origin="https://evil.com")
        assert refused.value.response.status_code == 403

    asyncio.run(scenario())


def test_connections_above_the_limit_are_answered_503():
    with Server({"server": {"connections_max": 2}}) as server:
        with RawSocket(server) as one, RawSocket(server) as two:
            one.connect(server)
            two.connect(server)
            status, _, body = answer_to(server, handshake(WEBSOCKET))
            assert status == 503
            assert "server.connections_max" in body
        until(lambda: server.metric("fanwire_connections") == 0, "both are gone")
        with RawSocket(server) as three:
            three.connect(server)
