"""Floods and stops in the frames of HTTP/2. Clients that connect over TLS, with HTTP/1.1, are served beside them."""

import contextlib
import http.client
import itertools
import json
import ssl
import struct
import threading

import pytest

from attackers import drain
from certificate import issue

CLIENT = ssl._create_unverified_context()
CLIENT.set_alpn_protocols(["h2"])

DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
INITIAL_WINDOW_SIZE = 4
WINDOW_MAX = (1 << 31) - 1
STREAMS_MAX = 100


def frame(kind, payload=b"", flags=0, stream=0):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def integer(first, bits, value):
    """An integer of HPACK (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    coded, value = [first | most], value - most
    while value >= 128:
        coded.append(value % 128 | 128)
        value //= 128
    return bytes([*coded, value])


def text(value):
    return integer(0, 7, len(value)) + value.encode()


def request(path="/probe", post=False):
    """The headers of a request, without an entry in the table of headers but the static ones."""
    return bytes([0x83 if post else 0x82, 0x87]) + b"\x01" + text("x") + b"\x04" + text(path)


def ask(stream, path="/probe", post=False):
    return frame(HEADERS, request(path, post), END_HEADERS | END_STREAM * (not post), stream)


def begin(window=WINDOW_MAX):
    """What a client sends first: it takes up to `window` bytes of each answer."""
    settings = frame(SETTINGS, struct.pack("!HI", INITIAL_WINDOW_SIZE, window))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + frame(WINDOW, struct.pack("!I", WINDOW_MAX - 65_535))


def streams():
    return itertools.count(1, 2)


def batches(each, count=STREAMS_MAX):
    """Joins the frames of `count` streams, again and again."""
    numbers = streams()
    while True:
        yield b"".join(each(next(numbers)) for _ in range(count))


def publish(server, channel, data):
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=ssl._create_unverified_context())
    with contextlib.closing(connection):
        body = json.dumps({"channel": channel, "data": data})
        connection.request("POST", "/api/publish", body, {"x-api-key": server.api_key})
        connection.getresponse().read()


class Connection:
    """A connection that only writes: one thread may drain its socket while another sends."""

    def __init__(self, socket, window):
        self.socket, received, self.encrypted = socket, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = CLIENT.wrap_bio(received, self.encrypted)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.send(b"")
                received.write(socket.recv(1 << 16))
        self.send(begin(window))

    def send(self, frames):
        self.socket.sendall(self.encrypt(frames))

    def encrypt(self, frames):
        if frames:
            self.tls.write(frames)
        return self.encrypted.read()


class Http2:
    """The server of one attack."""

    def __init__(self, trial, folder):
        settings = issue(folder)
        settings["server"]["tls"]["http2"] = True
        self.server = trial.serve(settings)

    def open(self, attack, window=WINDOW_MAX):
        return Connection(attack.socket(), window)

    def flood(self, attack, all_frames):
        """Sends these one after the other while all answers are read and dropped."""
        connection = self.open(attack)
        attack.send_and_drain(connection.socket, map(connection.encrypt, all_frames))


@pytest.fixture
def http2(trial, tmp_path):
    return Http2(trial, tmp_path)


def reset(stream):
    return frame(RESET, struct.pack("!I", 8), stream=stream)


def test_requests_without_end(trial, http2):
    with trial.attack("HTTP/2 requests without end, 20 connections", prompt=True) as attack:
        attack.crowd(20, lambda: http2.flood(attack, batches(ask)))


def test_requests_that_are_taken_back(trial, http2):
    """Each is reset as soon as it is sent (CVE-2023-44487), together with others and alone."""
    paths = ("/probe", f"/subscribe?topic=wild:reset&as=sse&token={http2.server.token('rogue')}")
    both = [lambda stream, path=path: ask(stream, path) + reset(stream) for path in paths]
    with trial.attack("HTTP/2 requests that are taken back, 20 connections", prompt=True) as attack:
        for each, count in itertools.product(both, (1, STREAMS_MAX)):
            attack.crowd(5, lambda each=each, count=count: http2.flood(attack, batches(each, count)))


# For a stream that stays open, and for the connection.
FLOODS = [
    frame(SETTINGS) * 500,
    frame(SETTINGS, struct.pack("!HI", INITIAL_WINDOW_SIZE, 1)) * 300,
    frame(PING, bytes(8)) * 300,
    frame(WINDOW, struct.pack("!I", 1), stream=1) * 400,
    frame(PRIORITY, bytes(5), stream=3) * 400,
    frame(DATA, stream=1) * 500,
    frame(0x77) * 500,
]


def test_frames_that_cost_their_sender_little(trial, http2):
    path = f"/subscribe?topic=wild:open&as=sse&token={http2.server.token('rogue')}"
    with trial.attack("HTTP/2 frames of seven kinds without end, 21 connections", prompt=True) as attack:
        for frames in FLOODS:
            flood = lambda frames=frames: itertools.chain([ask(1, path)], itertools.repeat(frames))
            attack.crowd(3, lambda flood=flood: http2.flood(attack, flood()))


def test_header_lists_that_grow_or_do_not_end(trial, http2):
    """An entry of 4,000 bytes in the table of headers, then requests that name it 16,000 times, in a byte each; and
    requests whose headers go on and on."""
    entry = b"\x40" + text("x-long") + text("x" * 4000)
    bomb = request() + b"\xbe" * 16_000
    more = frame(CONTINUATION, b"\x00" + text("x-more") + text("y" * 1000), 0, 1)

    def bombs():
        numbers = streams()
        yield frame(HEADERS, request() + entry, END_HEADERS | END_STREAM, next(numbers))
        while True:
            yield frame(HEADERS, bomb, END_HEADERS | END_STREAM, next(numbers))

    def endless():
        return itertools.chain([frame(HEADERS, request(), END_STREAM, 1)], itertools.repeat(more))

    with trial.attack("HTTP/2 header lists that grow to 64 MB or do not end, 20 connections", prompt=True) as attack:
        attack.crowd(10, lambda: http2.flood(attack, bombs()))
        attack.crowd(10, lambda: http2.flood(attack, endless()))


def test_windows_that_stay_closed(trial, http2):
    """Answers, and what a topic brings, that nobody takes, while the connection itself is read."""
    server = http2.server
    paths = [f"/subscribe?topic=wild:closed&as=sse&token={server.token('rogue')}", "/nothing"]
    with trial.attack("HTTP/2 windows that stay closed, 4 connections with 100 streams", prompt=True) as attack:
        for _ in range(4):
            connection = http2.open(attack, window=0)
            numbers = itertools.islice(streams(), STREAMS_MAX)
            connection.send(b"".join(ask(stream, paths[stream // 2 % 2]) for stream in numbers))
            threading.Thread(target=drain, args=(connection.socket,), daemon=True).start()
        attack.crowd(1, lambda: publish(server, "wild:closed", "x" * 1000))


def test_bodies_that_do_not_come(trial, http2):
    """As many as the connections allow, of one client."""
    with trial.attack("HTTP/2 bodies that do not come, 20 connections with 100 streams", prompt=True) as attack:
        for _ in range(20):
            connection = http2.open(attack)
            numbers = itertools.islice(streams(), STREAMS_MAX)
            paths = itertools.cycle(("/publish?topic=wild:body", "/emulation"))
            connection.send(b"".join(ask(stream, path, post=True) for stream, path in zip(numbers, paths)))


def test_connections_that_stop(trial, http2):
    with trial.attack("600 HTTP/2 connections that stop", prompt=True) as attack:
        for _ in range(200):
            http2.open(attack)
            http2.open(attack).send(ask(1)[:-3])
            http2.open(attack).send(ask(1))
