"""Attackers: crowds, floods and held sockets. All of them end with the attack."""

import contextlib
import itertools
import json
import socket
import struct
import threading

from harness import RawSocket, frame

# The longest read of an attacker. That an attacker is not served is no fault.
PATIENCE = 30
JOIN_DEADLINE = 40
RESET = struct.pack("ii", 1, 0)


class Attackers:
    """The threads and sockets of one attack on a server."""

    def __init__(self, server):
        self.server = server
        self.over, self.ending = threading.Event(), threading.Lock()
        self.sockets, self.threads = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.ending:
            self.over.set()
        while self.sockets:
            drop(self.sockets.pop())
        for thread in self.threads:
            thread.join(JOIN_DEADLINE)

    def crowd(self, count, work):
        """Starts `count` threads that repeat this work until the attack is over, whatever the server does to them."""

        def go_on():
            while not self.over.is_set():
                with contextlib.suppress(OSError, AssertionError, struct.error):
                    work()

        for _ in range(count):
            thread = threading.Thread(target=go_on, daemon=True)
            thread.start()
            self.threads.append(thread)

    def socket(self, port=None):
        """Returns a connection that lasts as long as the attack, unless it is dropped before."""
        connection = socket.create_connection(("127.0.0.1", port or self.server.port), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.hold(connection)

    def hold(self, connection):
        """Sees to it that a connection lasts no longer than the attack. Once that is over, it is dropped at once."""
        with self.ending:
            if not self.over.is_set():
                self.sockets.append(connection)
                return connection
        drop(connection)
        raise ConnectionAbortedError("the attack is over")

    def websocket(self, user="rogue", **claims):
        """Returns a connected client as a `RawSocket`."""
        raw = RawSocket(self.server)
        self.hold(raw.socket)
        raw.socket.settimeout(PATIENCE)
        connect = {"token": self.server.token(user, **claims)}
        raw.send_text(json.dumps({"id": 1, "connect": connect}))
        raw.read_reply(1)
        return raw

    def flood(self, requests):
        """Sends the same bytes without end on one connection while all answers are read and dropped."""
        connection = self.socket()
        self.send_and_drain(connection, itertools.repeat(requests))

    def send_and_drain(self, connection, all_requests):
        """Sends these one after the other while all answers are read and dropped."""
        reader = threading.Thread(target=drain, args=(connection,), daemon=True)
        reader.start()
        try:
            for requests in all_requests:
                if self.over.is_set():
                    break
                connection.sendall(requests)
        finally:
            drop(connection)
            reader.join(JOIN_DEADLINE)


def drain(connection):
    """Reads until the server closes."""
    buffer = bytearray(1 << 20)
    with contextlib.suppress(OSError):
        while connection.recv_into(buffer):
            pass


def drop(connection):
    """Closes with a reset, which leaves nothing behind on either side; a thread that reads or writes wakes up."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def commands(*each):
    """Returns a text frame with these commands."""
    return frame(0x1, "\n".join(json.dumps(command, separators=(",", ":")) for command in each).encode())


def get(path):
    """Returns the bytes of a request without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
