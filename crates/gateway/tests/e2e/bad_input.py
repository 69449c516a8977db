"""What no client should send: each is answered with its code, other clients notice nothing, and memory returns."""

import concurrent.futures
import contextlib
import json
import struct
import threading
import urllib.parse
import uuid

import pytest

from harness import DEADLINE, RawSocket, Server, frame, handshake, request, until

MESSAGE_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 4 * 1024 * 1024
COMMANDS_MAX = 1000


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def bystander(server):
    """Listens to a topic all through the suite and must in the end have everything, in order."""
    channel, got = "open:bystander", []
    raw = RawSocket(server)
    raw.connect(server, "bystander")
    raw.send_commands({"id": 2, "subscribe": {"channel": channel}})
    raw.read_reply(2)
    sent = 0

    def listen():
        while True:
            opcode, payload = raw.read_frame()
            if opcode is None or opcode == 0x8:
                return
            for line in payload.decode().split("\n"):
                reply = json.loads(line)
                if not reply:
                    raw.send_text("{}")
                elif "pub" in reply.get("push", {}):
                    got.append(reply["push"]["pub"]["data"])

    def publish():
        nonlocal sent
        sent += 1
        server.publish(channel, sent)

    raw.socket.settimeout(None)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yield publish
    publish()
    until(lambda: len(got) >= sent, f"the bystander has all {sent} publications (it has {len(got)})")
    assert got == list(range(1, sent + 1))
    raw.socket.close()


@pytest.fixture(autouse=True)
def traffic(bystander):
    """Every test has a publication before and after it that the bystander must get."""
    bystander()
    yield
    bystander()


@pytest.fixture
def raw(server):
    with RawSocket(server) as raw:
        raw.connect(server, "rogue")
        yield raw


def fresh(namespace):
    return f"{namespace}:{uuid.uuid4().hex[:12]}"


def varint(number):
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])



def assert_bad_request(raw):
    """Closed with 3501, whose reason may go on to say what was bad."""
    code, reason = raw.read_close()
    assert (code, reason.split(":")[0]) == (3501, "bad request")


FRAMES = {
    "not masked": (frame(0x1, b"{}", masked=False), 1002),
    "reserved bit 1": (frame(0x1, b"{}", reserved=4), 1002),
    "reserved bit 2": (frame(0x1, b"{}", reserved=2), 1002),
    "reserved bit 3": (frame(0x1, b"{}", reserved=1), 1002),
    "reserved opcode": (frame(0x3, b"{}"), 1002),
    "reserved control opcode": (frame(0xB, b""), 1002),
    "fragmented ping": (frame(0x9, b"x", final=False), 1002),
    "ping of 126 bytes": (frame(0x9, b"x" * 126), 1002),
    "continuation of nothing": (frame(0x0, b"{}"), 1002),
    "new message inside a message": (frame(0x1, b"{", final=False) + frame(0x1, b"}"), 1002),
    "length not minimal, 16 bits": (b"\x81" + bytes([0x80 | 126]) + struct.pack("!H", 2) + b"\0\0\0\0{}", 1002),
    "length not minimal, 64 bits": (b"\x81" + bytes([0x80 | 127]) + struct.pack("!Q", 2) + b"\0\0\0\0{}", 1002),
    "length with the top bit": (b"\x81" + bytes([0x80 | 127]) + struct.pack("!Q", 1 << 63) + b"\0\0\0\0", 1002),
    "close of one byte": (frame(0x8, b"\x03"), 1002),
    "close with code 999": (frame(0x8, struct.pack("!H", 999)), 1002),
    "close with code 1005": (frame(0x8, struct.pack("!H", 1005)), 1002),
    "close with code 5000": (frame(0x8, struct.pack("!H", 5000)), 1002),
    "close with a reason that is not UTF-8": (frame(0x8, struct.pack("!H", 1000) + b"\xff"), 1007),
    "text that is not UTF-8": (frame(0x1, b'{"id":9,"rpc":{"method":"\xff"}}'), 1007),
    "text cut inside a character": (frame(0x1, b"\xce"), 1007),
    "bad text across fragments": (frame(0x1, b"\xce", final=False) + frame(0x0, b"\xff"), 1007),
    "one byte above the limit": (frame(0x1, b" " * (MESSAGE_BYTES_MAX + 1)), 1009),
    "a gigabyte announced": (b"\x81" + bytes([0x80 | 127]) + struct.pack("!Q", 1 << 30) + b"\0\0\0\0", 1009),
    "fragments above the limit": (
        frame(0x1, b" " * 40_000, final=False) + frame(0x0, b" " * 40_000),
        1009,
    ),
}


def assert_closed_for(raw, name):
    data, code = FRAMES[name]
    with contextlib.suppress(OSError):
        raw.send(data)
    assert raw.read_close()[0] == code


@pytest.mark.parametrize("name", FRAMES)
def test_malformed_frames(raw, name):
    assert_closed_for(raw, name)


@pytest.fixture
def bare(server):
    with RawSocket(server, f"/subscribe?topic=object:bare&token={server.token('rogue')}") as raw:
        yield raw


@pytest.mark.parametrize("name", FRAMES)
def test_malformed_frames_on_a_bare_websocket(bare, name):
    assert_closed_for(bare, name)


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (frame(0x2, bytes(range(256))), "publication_format"),
        (frame(0x2, b""), "publication_format"),
        (frame(0x1, b"[" * 60_000), ""),
        (frame(0x1, b""), ""),
    ],
    ids=["bytes", "no bytes", "deep", "empty"],
)
def test_what_a_bare_websocket_may_not_publish(bare, sent, word):
    """It is told why, and goes on."""
    bare.send(sent)
    if word:
        (refusal,) = bare.read_replies()
        assert word in refusal["error"]["message"]
    bare.send_text("ping")
    while bare.read_frame() != (0x1, b"pong"):
        pass


MESSAGES = {
    "empty": "",
    "only a newline": "\n",
    "two newlines": "\n\n",
    "white space": "   ",
    "no JSON": "hello",
    "half a command": '{"id":2,"subscribe":{"channel":"plain:x"}',
    "a number": "1",
    "text": '"id"',
    "null": "null",
    "a list": '[{"id":2,"subscribe":{"channel":"plain:x"}}]',
    "a list as a request": '{"id":2,"subscribe":["plain:x"]}',
    "a number as a request": '{"id":2,"subscribe":1}',
    "id as text": '{"id":"2","subscribe":{"channel":"plain:x"}}',
    "negative id": '{"id":-1,"subscribe":{"channel":"plain:x"}}',
    "fractional id": '{"id":1.5,"subscribe":{"channel":"plain:x"}}',
    "id above 32 bits": '{"id":4294967296,"subscribe":{"channel":"plain:x"}}',
    "id 0": '{"id":0,"subscribe":{"channel":"plain:x"}}',
    "no id": '{"subscribe":{"channel":"plain:x"}}',
    "no request": '{"id":2}',
    "unknown request": '{"id":2,"fly":{}}',
    "ping by a client": '{"id":2,"ping":{}}',
    "topic as a number": '{"id":2,"subscribe":{"channel":1}}',
    "offset as text": '{"id":2,"subscribe":{"channel":"plain:x","offset":"1"}}',
    "second connect": '{"id":2,"connect":{}}',
    "empty topic to subscribe": '{"id":2,"subscribe":{}}',
    "empty topic to unsubscribe": '{"id":2,"unsubscribe":{}}',
    "empty topic to publish": '{"id":2,"publish":{"data":{}}}',
    "empty token to refresh": '{"id":2,"refresh":{}}',
    "unknown delta": '{"id":2,"subscribe":{"channel":"plain:x","delta":"xdelta"}}',
    "pong without ping": "{}",
    "good command, then garbage": '{"id":2,"subscribe":{"channel":"plain:x"}}\n{"id":',
    "deep lists": '{"id":2,"publish":{"channel":"plain:x","data":' + "[" * 30_000 + "]" * 30_000 + "}}",
    "deep objects": '{"id":2,"rpc":{"data":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}}",
    "deep lists without end": "[" * 60_000,
    "binary zeros": "\0" * 100,
}


@pytest.mark.parametrize("name", MESSAGES)
def test_malformed_messages(raw, name):
    raw.send_text(MESSAGES[name])
    assert_bad_request(raw)


@pytest.mark.parametrize(
    "command",
    ['{"id":1,"subscribe":{"channel":"plain:x"}}', '{"id":1,"rpc":{}}', '{"send":{"data":1}}', "{}"],
)
def test_connect_comes_first(server, command):
    with RawSocket(server) as raw:
        raw.send_text(command)
        assert_bad_request(raw)


def test_json_in_a_binary_frame_is_read_too_or_refused(raw):
    raw.send(frame(0x2, b'{"id":2,"presence":{"channel":"plain:x"}}'))
    opcode, payload = raw.read_frame()
    if opcode == 0x8:
        assert struct.unpack("!H", payload[:2])[0] in (1003, 3501)
    else:
        assert json.loads(payload)["error"]["code"] == 108


PROTOBUF = {
    "empty": b"",
    "length above what follows": b"\x7f\x08",
    "length without end": b"\xff" * 20,
    "a length of 2^63": varint(1 << 63),
    "unknown wire type": b"\x02\x0f\x00",
    "group without end": b"\x01\x0b",
    "text that is not UTF-8": b"\x08\x08\x02\x2a\x04\x0a\x02\xff\xff"[:9],
    "random": bytes(range(256)),
    "JSON": b'{"id":2,"presence":{"channel":"plain:x"}}',
}


def field(number, value):
    """A length-delimited field of a Protobuf message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


@contextlib.contextmanager
def protobuf_client(server):
    connect = field(1, server.token("rogue").encode())
    command = b"\x08\x01" + field(4, connect)
    with RawSocket(server, headers={"Sec-WebSocket-Protocol": "centrifuge-protobuf"}) as raw:
        raw.send(frame(0x2, varint(len(command)) + command))
        opcode, payload = raw.read_frame()
        assert opcode == 0x2, payload
        yield raw


@pytest.mark.parametrize("name", PROTOBUF)
def test_malformed_protobuf(server, name):
    with protobuf_client(server) as raw:
        raw.send(frame(0x2, PROTOBUF[name]))
        assert_bad_request(raw)


def test_a_filter_nested_five_thousand_deep_is_refused(server):
    nested = b""
    for _ in range(5000):
        nested = field(6, nested)
    subscribe = field(1, b"plain:x") + field(13, nested)
    command = b"\x08\x02" + field(5, subscribe)
    with protobuf_client(server) as raw:
        raw.send(frame(0x2, varint(len(command)) + command))
        assert_bad_request(raw)


def test_a_thousand_commands_in_one_frame_are_answered_in_order(raw):
    commands = [{"id": number, "presence": {"channel": "plain:x"}} for number in range(2, 1002)]
    raw.send_commands(*commands)
    answered = []
    while len(answered) < 1000:
        answered += [reply["id"] for reply in raw.read_replies() if "id" in reply]
    assert answered == list(range(2, 1002))


def test_a_thousand_subscribes_in_one_frame_stop_at_the_limit(raw):
    channels = [fresh("plain")[:18] for _ in range(1000)]
    raw.send_commands(*({"id": n + 2, "subscribe": {"channel": c}} for n, c in enumerate(channels)))
    replies = []
    while len(replies) < 1000:
        opcode, payload = raw.read_frame()
        assert opcode == 0x1, payload
        replies += [reply for line in payload.decode().split("\n") if (reply := json.loads(line)).get("id")]
    refused = [reply["error"]["code"] for reply in replies if "error" in reply]
    assert refused == [106] * (1000 - 128)


def test_depth_within_the_limit_is_fine(server, raw):
    channel = fresh("open")
    raw.send_commands({"id": 2, "subscribe": {"channel": channel}})
    raw.read_reply(2)
    data = "[" * 100 + "]" * 100
    raw.send_text('{"id":3,"publish":{"channel":"%s","data":%s}}' % (channel, data))
    assert raw.read_reply(3) == {"id": 3, "publish": {}}


def test_newlines_inside_a_payload_do_not_break_the_frame(server, raw):
    channel = fresh("open")
    raw.send_commands({"id": 2, "subscribe": {"channel": channel}})
    raw.read_reply(2)
    body = '{"channel":"%s","data":{\n"a"\r\n:\n[1,\n2]\n}\n}' % channel
    assert server.post("/api/publish", body.encode()).status == 200
    while True:
        for reply in raw.read_replies():
            if "pub" in reply.get("push", {}):
                assert reply["push"]["pub"]["data"] == {"a": [1, 2]}
                return


def test_data_that_is_no_json_comes_in_base64(server, raw):
    channel = fresh("bytes")
    raw.send_commands({"id": 2, "subscribe": {"channel": channel}})
    raw.read_reply(2)
    server.api("publish", {"channel": channel, "b64data": "/wD/"})
    while True:
        for reply in raw.read_replies():
            if "pub" in reply.get("push", {}):
                assert reply["push"]["pub"] == {"data": None, "b64data": "/wD/"}
                return


def test_a_slow_client_is_closed_alone(server, raw):
    channel = fresh("plain")
    raw.send_commands({"id": 2, "subscribe": {"channel": channel}})
    raw.read_reply(2)
    with RawSocket(server) as quick:
        quick.connect(server, "quick")
        quick.send_commands({"id": 2, "subscribe": {"channel": channel}})
        quick.read_reply(2)
        # Far more than the queue and both kernels' buffers hold together.
        payload, count = "x" * 100_000, 200
        for number in range(count):
            server.publish(channel, [number, payload])
            got = []
            while not got:
                got = [reply["push"]["pub"]["data"][0] for reply in quick.read_replies() if "push" in reply]
            assert got == [number]
        closed = lambda: server.metric("fanwire_connections_closed_total", code="3008")
        until(lambda: closed() == 1, "the slow one is closed")
        until(lambda: server.metric("fanwire_send_queue_bytes") == 0, "its queue is freed")


class TestApi:
    def test_a_body_of_10_mb_is_413_and_names_the_limit(self, server):
        body = json.dumps({"channel": "plain:x", "data": "x" * 10_000_000}).encode()
        with contextlib.suppress(OSError):
            answer = server.post("/api/publish", body)
            assert answer.status == 413
            assert "api.body_bytes_max" in answer.text
            return
        # The server may close while the client still sends; then the answer is read by hand.
        with RawSocket(server, upgrade=False) as raw:
            raw.send(
                b"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: %d\r\n\r\n"
                % (server.api_key.encode(), len(body))
            )
            assert raw.read_head().startswith("HTTP/1.1 413 ")
            assert b"api.body_bytes_max" in raw.read_rest()

    def test_a_body_without_a_length_is_limited_too(self, server):
        with RawSocket(server, upgrade=False) as raw:
            raw.send(
                b"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
                % server.api_key.encode()
            )
            chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            with contextlib.suppress(OSError):
                for _ in range(BODY_BYTES_MAX // 0x10000 + 16):
                    raw.send(chunk)
            assert raw.read_head().startswith("HTTP/1.1 413 ")

    def test_a_body_just_below_the_limit_is_fine(self, server):
        body = json.dumps({"channel": fresh("plain"), "data": "x" * (BODY_BYTES_MAX - 1000)}).encode()
        assert server.post("/api/publish", body).json() == {"result": {}}

    @pytest.mark.parametrize("parallel", [False, True])
    def test_a_batch_of_10000_is_refused_and_names_the_limit(self, server, parallel):
        commands = [{"publish": {"channel": "plain:x", "data": 1}}] * 10_000
        body = json.dumps({"commands": commands, "parallel": parallel}).encode()
        answer = server.post("/api/batch", body)
        assert "api.commands_max" in answer.text
        assert answer.status == 400 or answer.json()["error"]["code"] == 107

    def test_a_pipeline_of_10000_is_refused_and_names_the_limit(self, server):
        command = b'{"method":"publish","params":{"channel":"plain:x","data":1}}\n'
        answer = server.post("/api", command * 10_000)
        assert answer.status in (400, 413)
        assert "api.commands_max" in answer.text

    def test_a_broadcast_to_10000_is_refused_and_names_the_limit(self, server):
        channels = [f"plain:{number}" for number in range(10_000)]
        answer = server.post("/api/broadcast", json.dumps({"channels": channels, "data": 1}).encode())
        assert "api.commands_max" in answer.text

    def test_batches_of_the_limit_are_fine(self, server):
        commands = [{"publish": {"channel": fresh("plain"), "data": 1}}] * COMMANDS_MAX
        replies = server.api("batch", {"commands": commands, "parallel": True})["replies"]
        assert replies == [{"publish": {}}] * COMMANDS_MAX

    @pytest.mark.parametrize(
        "body",
        [
            b"[" * 100_000,
            b'{"channel":"plain:x","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
            b'{"channel":"plain:x","b64data":"***"}',
            b'{"channel":"plain:x","data":1,"tags":{"a":1}}',
            b'{"channel":"plain:x","data":1,"version":-1}',
            b'{"channel":"plain:x"}',
            b'{"channel":"plain:\xff","data":1}',
        ],
    )
    def test_other_bad_bodies(self, server, body):
        answer = server.post("/api/publish", body)
        assert answer.status == 400 or answer.json()["error"]["code"] == 107

    def test_requests_that_lie_about_their_length(self, server):
        for head in [
            b"Content-Length: 10\r\nContent-Length: 20\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ]:
            with RawSocket(server, upgrade=False) as raw:
                raw.send(b"POST /api/info HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n{}")
                raw.socket.shutdown(1)
                answer = raw.read_rest()
                assert not answer or answer.startswith(b"HTTP/1.1 4"), (head, answer)


def posted(body, **headers):
    return "POST", body, {name.replace("_", "-"): value for name, value in headers.items()}


def asked(method="GET"):
    return method, None, {}


BINARY = {"Content_Type": "application/octet-stream"}
JSON = {"Content_Type": "application/json"}
GARBAGE = bytes(range(256))
DEEP = b"[" * 60_000
# One byte above what each address takes by default.
LONG = b" " * (MESSAGE_BYTES_MAX + 1)
TOPICS = "&".join(f"topic=plain:{number}" for number in range(129))
THOUSAND = "&".join(f"topic=plain:{number}" for number in range(1000))
CONNECT = b'{"id":1,"connect":{"token":"TOKEN"}}'
SUBS = json.dumps({"token": "TOKEN", "subs": {f"plain:{number}": {} for number in range(1000)}}).encode()
FORGED = json.dumps({"session": "A" * 54, "node": str(uuid.uuid4()), "data": "{}"}).encode()

# The address, the request, the status, and a word of the answer.
REQUESTS = [
    ("/connection/http_stream", posted(b""), 400, "Bad Request"),
    ("/connection/http_stream", posted(b'{"id":1,"subscribe":{"channel":"plain:x"}}'), 400, "connect"),
    ("/connection/http_stream", posted(b'{"id":1,"connect":{}'), 400, "JSON"),
    ("/connection/http_stream", posted(DEEP), 400, "Bad Request"),
    ("/connection/http_stream", posted(GARBAGE), 400, "Bad Request"),
    ("/connection/http_stream", posted(GARBAGE, **BINARY), 400, "Bad Request"),
    ("/connection/http_stream", posted(b"\xff" * 20, **BINARY), 400, "Bad Request"),
    ("/connection/http_stream", posted(LONG), 413, "http_stream.body_bytes_max"),
    ("/connection/http_stream", asked(), 405, "POST"),
    ("/connection/sse", asked(), 400, "Bad Request"),
    ("/connection/sse?cf_connect=%5B%5D", asked(), 400, "Bad Request"),
    ("/connection/sse?cf_connect=%FF%00", asked(), 400, "Bad Request"),
    ("/connection/sse", posted(DEEP), 400, "Bad Request"),
    ("/connection/sse", posted(LONG), 413, "sse.body_bytes_max"),
    ("/connection/sse", asked("DELETE"), 405, "GET"),
    ("/connection/uni_sse?cf_connect=%5B%5D", asked(), 400, "JSON object"),
    ("/connection/uni_sse?cf_connect=%7B%22token%22:1%7D", asked(), 400, "wrong type"),
    ("/connection/uni_sse", posted(DEEP), 400, "Bad Request"),
    ("/connection/uni_sse", posted(LONG), 413, "uni_sse.body_bytes_max"),
    ("/connection/uni_http_stream", posted(GARBAGE), 400, "Bad Request"),
    ("/connection/uni_http_stream", posted(LONG), 413, "uni_http_stream.body_bytes_max"),
    ("/connection/uni_http_stream", asked(), 405, "POST"),
    ("/connection/uni_websocket", asked(), 426, "WebSocket"),
    ("/emulation", posted(b""), 400, "Bad Request"),
    ("/emulation", posted(b"{}"), 400, "Bad Request"),
    ("/emulation", posted(DEEP), 400, "Bad Request"),
    ("/emulation", posted(GARBAGE, **BINARY), 400, "Bad Request"),
    ("/emulation", posted(b'{"session":1,"node":"x","data":"{}"}'), 400, "Bad Request"),
    ("/emulation", posted(b'{"session":"x","node":"x","data":"{}"}'), 404, "Connect again"),
    ("/emulation", posted(FORGED), 404, "Connect again"),
    ("/emulation", posted(LONG), 413, "emulation.body_bytes_max"),
    ("/emulation", asked(), 405, "POST"),
    ("/subscribe", asked(), 401, "no token"),
    ("/subscribe?token=TOKEN", asked(), 400, "topic"),
    ("/subscribe?topic=", asked(), 400, "topic"),
    ("/subscribe?" + TOPICS, asked(), 400, "client.subscriptions_max"),
    ("/subscribe?topic=plain:x&as=xml", asked(), 400, "as"),
    ("/subscribe?topic=plain:x&cursor=AQ", asked(), 400, "cursor"),
    ("/subscribe?topic=plain:x&cursor=" + "A" * 5000, asked(), 400, "cursor"),
    ("/subscribe?topic=plain:x&token=" + "A" * 20_000, asked(), 401, "invalid token"),
    ("/subscribe?topic=plain:x", asked("DELETE"), 405, "GET"),
    ("/subscribe?topic=plain:x&as=poll&wait=soon&token=TOKEN", asked(), 400, "wait: say seconds"),
    ("/subscribe?topic=plain:x&as=poll&wait=-1&token=TOKEN", asked(), 400, "wait: say seconds"),
    ("/subscribe?topic=plain:x&as=sse&wait=1&token=TOKEN", asked(), 400, "as=poll"),
    ("/subscribe?topic=plain:x&as=ndjson&callback=f&token=TOKEN", asked(), 400, "as=poll"),
    ("/subscribe?topic=plain:x&as=poll&wait=0&callback=f&token=TOKEN", asked(), 400, "subscribe.jsonp"),
    ("/subscribe?topic=plain:x&as=poll&session=x.1&token=TOKEN", asked(), 400, "session: this is none"),
    (f"/subscribe?topic=plain:x&as=poll&session={'A' * 5000}&token=TOKEN", asked(), 400, "session: this is none"),
    ("/subscribe?topic=plain:x&as=poll&cursor=AQ&token=TOKEN", asked(), 400, "cursor"),
    ("/subscribe?topic=$private&as=poll&token=TOKEN", asked(), 403, "allow_subscribe_for_client"),
    ("/subscribe?topic=nowhere:x&as=poll&token=TOKEN", asked(), 404, "namespace"),
    ("/subscribe?topic=plain:x&as=poll", asked(), 401, "no token"),
    (f"/subscribe?{THOUSAND}&as=poll&token=TOKEN", asked(), 400, "client.subscriptions_max"),
    ("/subscribe?end", posted(b""), 404, "No such session"),
    ("/subscribe?end&session=x.1", posted(b""), 404, "No such session"),
    (f"/subscribe?end&session={'A' * 5000}", posted(LONG), 404, "No such session"),
    ("/subscribe?end&session=x.1", asked(), 405, "POST"),
    ("/connection/http_stream?wait=soon", posted(CONNECT), 400, "wait: say seconds"),
    ("/connection/http_stream?wait=1", posted(b""), 400, "no command"),
    ("/connection/http_stream?wait=1", posted(DEEP), 400, "JSON"),
    ("/connection/http_stream?wait=1", posted(GARBAGE), 400, "JSON"),
    ("/connection/http_stream?wait=1", posted(GARBAGE, **BINARY), 400, "JSON"),
    ("/connection/http_stream?wait=1", posted(LONG), 413, "http_stream.body_bytes_max"),
    ("/connection/http_stream?wait=1&session=x.1", posted(CONNECT), 404, "Connect again"),
    (f"/connection/http_stream?wait=1&session={'A' * 5000}", posted(b""), 404, "Connect again"),
    ("/connection/http_stream?wait=1", asked(), 405, "POST"),
    ("/connection/http_stream?end&session=x.1", posted(b""), 404, "No such session"),
    # The stream begins, and says why it ends.
    ("/connection/uni_sse", posted(SUBS), 200, "channel limit"),
    ("/connection/uni_http_stream", posted(SUBS), 200, "channel limit"),
    ("/publish", posted(b"1"), 400, "?topic="),
    ("/publish?topic=object:x&topic=object:y", posted(b"1"), 400, "one topic"),
    ("/publish?topic=object:x&token=x.y.z", posted(b"1"), 401, "invalid token"),
    ("/publish?topic=object:%FF&token=TOKEN", posted(DEEP, **JSON), 400, "topic_regex"),
    ("/publish?topic=!node:x&token=TOKEN", posted(b"{}"), 400, "the cluster's own"),
    ("/publish?topic=plain:x&token=TOKEN", posted(b"{}"), 403, "allow_publish_for_client"),
    ("/publish?topic=object:x&token=TOKEN", posted(DEEP, **JSON), 400, "JSON"),
    ("/publish?topic=object:x&token=TOKEN", posted(GARBAGE), 400, "UTF-8"),
    ("/publish?topic=object:x&token=TOKEN", posted(GARBAGE, **BINARY), 400, "publication_format"),
    ("/publish?topic=object:x&token=TOKEN", posted(LONG), 413, "publish.body_bytes_max"),
    ("/publish?topic=object:x&token=TOKEN", asked(), 405, "POST"),
    ("/probe", posted(b"{}"), 405, "GET"),
]


class TestHttpTransports:
    @pytest.mark.parametrize("case", REQUESTS, ids=lambda case: f"{case[0][:40]} {case[3]}")
    def test_bad_requests(self, server, case):
        path, (method, body, headers), status, word = case
        token = server.token("rogue")
        path, body = path.replace("TOKEN", token), body and body.replace(b"TOKEN", token.encode())
        answer = request(method, server.http + path, body, headers)
        assert (answer.status, word in answer.text) == (status, True), answer.text

    @pytest.mark.parametrize("kind", ["uni_sse", "uni_http_stream"])
    def test_a_thousand_topics_of_a_token(self, server, kind):
        token = server.token("rogue", channels=[f"plain:{number}" for number in range(1000)])
        answer = request("POST", f"{server.http}/connection/{kind}", json.dumps({"token": token}).encode(), {})
        assert (answer.status, "channel limit" in answer.text) == (200, True), answer.text

    def test_a_thousand_topics_of_a_one_way_websocket(self, server):
        with RawSocket(server, "/connection/uni_websocket") as raw:
            raw.send_text(SUBS.replace(b"TOKEN", server.token("rogue").encode()))
            assert raw.read_close() == (3505, "channel limit")

    @pytest.mark.parametrize(
        ("query", "status", "headers"),
        [
            ("token=TOKEN", 400, {}),
            (f"{TOPICS}&token=TOKEN", 400, {}),
            ("topic=plain:x", 401, {}),
            ("topic=nowhere:x&token=TOKEN", 404, {}),
            ("topic=plain:x&envelope=xml&token=TOKEN", 400, {}),
            ("topic=plain:x&cursor=AQ&token=TOKEN", 400, {}),
            ("topic=plain:x&publish=plain:x&publish=plain:y&wait=1&token=TOKEN", 400, {}),
            ("topic=plain:x&token=TOKEN", 400, {"Sec-WebSocket-Protocol": "centrifuge-protobuf"}),
            ("topic=plain:x&token=TOKEN", 400, {"Sec-WebSocket-Key": "short"}),
            ("topic=plain:x&token=TOKEN", 426, {"Sec-WebSocket-Version": "12"}),
        ],
    )
    def test_bare_websockets_that_are_refused(self, server, query, status, headers):
        path = "/subscribe?" + query.replace("TOKEN", server.token("rogue"))
        with RawSocket(server, upgrade=False) as raw:
            raw.send(handshake(path, headers))
            assert raw.read_head().startswith(f"HTTP/1.1 {status} ")

    def test_names_of_functions_that_are_code(self):
        names = ["alert(1)//", "a;b", "<script>", "a b", "1a", ".a", "", "a" * 65, "a\u2028", "a-b", "[0]", "f%00"]
        with Server({"subscribe": {"jsonp": True}}) as server:
            base = f"{server.http}/subscribe?topic=plain:x&as=poll&wait=0&token={server.token('rogue')}&callback="
            for name in names:
                answer = request("GET", base + urllib.parse.quote(name), None, {})
                assert (answer.status, "callback" in answer.text) == (400, True), (name, answer.text)
            assert request("GET", base + "window.$f_1", None, {}).text.startswith("/**/window.$f_1({")

    @pytest.mark.parametrize(
        "path", ["/connection/http_stream", "/connection/uni_http_stream", "/emulation", "/publish?topic=object:x&token=TOKEN"]
    )
    def test_a_body_without_a_length_is_limited_too(self, server, path):
        path = path.replace("TOKEN", server.token("rogue"))
        with RawSocket(server, upgrade=False) as raw:
            raw.send(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode())
            with contextlib.suppress(OSError):
                for _ in range(2):
                    raw.send(b"8001\r\n" + b" " * 0x8001 + b"\r\n")
            assert raw.read_head().startswith("HTTP/1.1 413 ")

    def test_a_session_ends_by_its_own_commands_alone(self, server):
        connect = json.dumps({"id": 1, "connect": {"token": server.token("rogue")}}).encode()
        with RawSocket(server, upgrade=False) as stream:
            stream.send(
                b"POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                % (len(connect), connect)
            )
            assert stream.read_head().startswith("HTTP/1.1 200 ")
            while b"\n" not in stream.received:
                assert stream.fill(len(stream.received) + 1)
            line, _, stream.received = stream.received.partition(b"\n")
            connected = json.loads(line)["connect"]

            def send(session, data):
                body = {"session": session, "node": connected["node"], "data": data}
                return request("POST", server.http + "/emulation", json.dumps(body).encode(), {}).status

            secret = connected["session"]
            # Another's guess: one letter of the secret is another one.
            guess = ("B" if secret[-9] == "A" else "A").join([secret[:-9], secret[-8:]])
            assert send(guess, '{"id":2,"subscribe":{"channel":"plain:x"}}') == 404
            assert send(secret, '{"id":2,"subscribe":{"channel":"plain:x"}}') == 204
            while b"\n" not in stream.received:
                assert stream.fill(len(stream.received) + 1)
            assert json.loads(stream.received)["id"] == 2
            assert send(secret, "hello") == 204
            assert b'"code":3501' in stream.read_rest()
            assert send(secret, "{}") == 404


def test_a_very_long_presence_list_reaches_an_empty_queue():
    """One message always fits an empty queue, even when it is larger than the whole queue may be."""
    queue_bytes_max = 64 * 1024
    crowd = {
        "name": "crowd",
        "presence": True,
        "allow_subscribe_for_client": True,
        "allow_presence_for_subscriber": True,
    }
    settings = {"client": {"queue_bytes_max": "64KiB"}, "topics": {"namespaces": [crowd]}}
    with Server(settings) as server, contextlib.ExitStack() as open_sockets:
        info = {"name": "n" * 2000}
        for number in range(100):
            raw = open_sockets.enter_context(RawSocket(server))
            raw.send_commands(
                {"id": 1, "connect": {"token": server.token(f"user{number}", info=info)}},
                {"id": 2, "subscribe": {"channel": "crowd:x"}},
            )
            raw.read_reply(2)
        raw.send_commands({"id": 3, "presence": {"channel": "crowd:x"}})
        presence = raw.read_reply(3)["presence"]["presence"]
        assert len(presence) == 100
        assert len(json.dumps(presence)) > queue_bytes_max


def test_memory_returns():
    """After a warm-up, the same abuse again and again leaves the server's memory where it was."""
    with Server() as server:

        def abuse(number):
            kind = number % 6
            with contextlib.suppress(OSError, AssertionError), RawSocket(server) as raw:
                raw.connect(server, f"rogue{number % 50}")
                if kind == 0:
                    raw.send(frame(0x1, b" " * (MESSAGE_BYTES_MAX - 10), final=False))
                elif kind == 1:
                    raw.send(b"\x81" + bytes([0x80 | 127]) + struct.pack("!Q", 1 << 40) + b"\0\0\0\0" + b"x" * 1000)
                elif kind == 2:
                    raw.send_text("[" * 60_000)
                elif kind == 3:
                    channels = [f"open:{number}-{n}" for n in range(20)]
                    raw.send_commands(*({"id": n + 2, "subscribe": {"channel": c}} for n, c in enumerate(channels)))
                elif kind == 4:
                    body = json.dumps({"channel": "plain:x", "data": "x" * 1_000_000}).encode()
                    request("POST", f"{server.http}/api/publish", body, {"X-API-Key": server.api_key})
                else:
                    raw.send_text('{"id":2,"publish":{"channel":"open:x","data":"' + "x" * 60_000 + '"}}')
                    raw.read_frame()

        def round_of_abuse():
            with concurrent.futures.ThreadPoolExecutor(20) as pool:
                list(pool.map(abuse, range(300)))
            until(lambda: server.metric("fanwire_connections") == 0, "everybody is gone", DEADLINE)
            return server.resident_bytes()

        warm = max(round_of_abuse() for _ in range(3))
        # Topics with history stay for their time to live, so the later rounds may add their share of those.
        after = min(round_of_abuse() for _ in range(3))
        assert after < warm * 1.25 + 2 * 1024 * 1024, f"{warm} bytes grew to {after}"
