"""Honest clients of one server. They run in a process of their own, so that the load of an attack does not slow them.

Each client subscribes to one topic with history, answers the server's pings at once, and sends a WebSocket ping every
`PING_INTERVAL`, also while earlier ones are unanswered. Beside them, one task publishes numbered messages, one connects
again and again, and one asks for health. Figures belong to the phase in which a request began.

A line on standard input names the next phase and is answered with the figures of the last one. The line `served` is
answered with the number of requests of each kind that the current phase has served.
"""

import asyncio
import base64
import collections
import contextlib
import json
import os
import pathlib
import ssl
import struct
import sys
import time

PING_INTERVAL = 0.05
PUBLISH_INTERVAL = 0.05
CONNECT_INTERVAL = 0.2
HEALTH_INTERVAL = 0.2
READ_INTERVAL = 0.5
MEMORY_INTERVAL = 0.02
# A request that takes longer counts as refused.
PATIENCE = 8
# The longest time that the end of a phase waits for its pending requests.
SETTLE_DEADLINE = 30
NAMES_MAX = 5

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


class Closed(Exception):
    """The server closed the connection of a client that did nothing wrong."""


class Phase:
    """The figures of one phase."""

    def __init__(self):
        self.pings, self.waits = [], collections.defaultdict(list)
        self.faults = {kind: [] for kind in ("closed", "refused", "gaps")}
        self.served = collections.Counter()
        self.pending = 0
        self.memory_peak = 0

    def note(self, kind, what):
        self.faults[kind].append(what)

    @contextlib.contextmanager
    def request(self, kind):
        """Counts a request as served, or as refused if it fails or takes too long."""
        self.pending += 1
        begin = time.monotonic()
        try:
            yield
            self.served[kind] += 1
        except (OSError, EOFError, Closed, asyncio.TimeoutError) as error:
            self.note("refused", f"{kind}: {type(error).__name__} {error}".strip())
        finally:
            self.pending -= 1
            self.waits[kind].append(time.monotonic() - begin)

    async def settle(self):
        end = time.monotonic() + SETTLE_DEADLINE
        while self.pending and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def figures(self):
        counted = {kind: len(all_of_it) for kind, all_of_it in self.faults.items()}
        examples = {kind: all_of_it[:NAMES_MAX] for kind, all_of_it in self.faults.items()}
        pings = sorted(self.pings) or [0.0]
        return {
            "pings": len(self.pings),
            "p50": pings[len(pings) // 2],
            "p99": pings[min(len(pings) - 1, len(pings) * 99 // 100)],
            "longest": pings[-1],
            "longest_of": {kind: max(waits) for kind, waits in self.waits.items()},
            "counted": counted,
            "examples": examples,
            "memory_peak": self.memory_peak,
        }


class Crowd:
    """All bystanders of a server."""

    def __init__(self, asked):
        self.asked = asked
        self.phase = Phase()
        # Whom they talk to is certain, and certificates are not what is attacked.
        self.tls = ssl._create_unverified_context() if asked["encrypted"] else None
        self.clients = [Client(self, number) for number in range(asked["clients"])]

    async def run(self):
        tasks = [client.live() for client in self.clients]
        tasks += [self.connect_anew(), self.sample_memory(), self.follow_orders()]
        tasks += [self.publish()] if self.asked["publishing"] else []
        tasks += [self.ask_health()] if self.asked["asking_health"] else []
        tasks += [self.read_answers(token) for token in self.asked["readers"]]
        await asyncio.gather(*tasks)

    async def open(self):
        return await asyncio.open_connection("127.0.0.1", self.asked["port"], ssl=self.tls)

    async def follow_orders(self):
        loop = asyncio.get_running_loop()
        while not all(client.is_ready for client in self.clients):
            await asyncio.sleep(0.01)
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "served":
                said = self.phase.served
            else:
                past, self.phase = self.phase, Phase()
                await past.settle()
                said = past.figures()
            print(json.dumps(said), flush=True)
        os._exit(0)

    async def connect_anew(self):
        while True:
            with self.phase.request("connects"):
                async with asyncio.timeout(PATIENCE):
                    await Client(self, "new").visit()
            await asyncio.sleep(CONNECT_INTERVAL)

    async def read_answers(self, token):
        """Reads all that one topic keeps, again and again, which is one answer."""
        topic, count = self.asked["reading"]
        client = Client(self, "that reads", token)
        while True:
            with self.phase.request("long answers"):
                try:
                    async with asyncio.timeout(PATIENCE):
                        if not client.is_ready:
                            await client.open()
                            client.is_ready = True
                        await client.read_history(topic, count)
                except BaseException:
                    client.leave()
                    client.is_ready = False
                    raise
            await asyncio.sleep(READ_INTERVAL)

    async def ask_health(self):
        while True:
            for path in ("/livez", "/readyz"):
                with self.phase.request("health checks"):
                    async with asyncio.timeout(PATIENCE):
                        port = self.asked["internal_port"]
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        with contextlib.closing(writer):
                            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                            expect_status(await reader.readuntil(b"\r\n\r\n"), 200)
            await asyncio.sleep(HEALTH_INTERVAL)

    async def publish(self):
        """Publishes numbers over a kept connection, as a backend does."""
        number, connection = 0, None
        while True:
            with self.phase.request("publishes"):
                try:
                    async with asyncio.timeout(PATIENCE):
                        connection = connection or await self.open()
                        number += 1
                        keep = await self.publish_one(number, *connection)
                except BaseException:
                    keep = False
                    raise
                finally:
                    if not keep and connection:
                        connection[1].close()
                        connection = None
            await asyncio.sleep(PUBLISH_INTERVAL)

    async def publish_one(self, number, reader, writer):
        """Returns whether the connection stays open."""
        body = json.dumps({"channel": self.asked["topic"], "data": number})
        key = self.asked["api_key"]
        head = f"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        expect_status(head, 200)
        fields = dict(line.lower().split(": ", 1) for line in head.decode().splitlines()[1:] if ": " in line)
        answer = json.loads(await reader.readexactly(int(fields["content-length"])))
        if "error" in answer:
            raise Closed(f"publish answered {answer['error']}")
        return fields.get("connection") != "close"

    async def sample_memory(self):
        while True:
            self.phase.memory_peak = max(self.phase.memory_peak, memory(self.asked["pid"]))
            await asyncio.sleep(MEMORY_INTERVAL)


class Client:
    """A client that keeps to the protocol."""

    def __init__(self, crowd, name, token=None):
        self.crowd, self.name = crowd, name
        self.token = token or crowd.asked["token"]
        self.is_ready = False
        self.unanswered = collections.deque()
        self.next_offset = None

    async def live(self):
        """Stays connected, and connects again when it is closed."""
        while True:
            try:
                await self.open()
                self.is_ready = True
                await self.listen()
            except (OSError, EOFError, Closed) as error:
                self.crowd.phase.note("closed", f"client {self.name}: {type(error).__name__} {error}")
            finally:
                self.leave()
            await asyncio.sleep(0.2)

    async def visit(self):
        """Connects, subscribes and leaves."""
        try:
            await self.open()
        finally:
            self.leave()

    async def open(self):
        self.writer = None
        self.reader, self.writer = await self.crowd.open()
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            "GET /connection/websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        expect_status(await self.reader.readuntil(b"\r\n\r\n"), 101)
        connect = {"id": 1, "connect": {"token": self.token}}
        subscribe = {"id": 2, "subscribe": {"channel": self.crowd.asked["topic"]}}
        self.send(TEXT, f"{json.dumps(connect)}\n{json.dumps(subscribe)}".encode())
        subscribed = await self.reply(2)
        self.next_offset = subscribed["subscribe"].get("offset", 0) + 1

    async def read_history(self, topic, count):
        history = {"channel": topic, "limit": -1}
        self.send(TEXT, json.dumps({"id": 3, "history": history}).encode())
        publications = (await self.reply(3))["history"]["publications"]
        if len(publications) != count:
            raise Closed(f"{len(publications)} of {count} publications")

    def leave(self):
        if self.writer:
            self.writer.transport.abort()
        for sent, phase in self.unanswered:
            self.waited(sent, phase)
        self.unanswered.clear()

    async def reply(self, wanted):
        while True:
            for message in await self.messages():
                if not message:
                    self.send(TEXT, b"{}")
                if message.get("id") == wanted:
                    if "error" in message:
                        raise Closed(f"command {wanted} answered {message['error']}")
                    return message

    async def listen(self):
        pinging = asyncio.create_task(self.ping())
        try:
            while True:
                for message in await self.messages():
                    if not message:
                        self.send(TEXT, b"{}")
                    elif "pub" in message.get("push", {}):
                        self.check(message["push"]["pub"]["offset"])
                    elif "unsubscribe" in message.get("push", {}):
                        raise Closed(f"unsubscribed: {message}")
        finally:
            pinging.cancel()

    async def ping(self):
        while True:
            sent = time.monotonic()
            self.unanswered.append((sent, self.crowd.phase))
            self.crowd.phase.pending += 1
            self.send(PING, struct.pack("!d", sent))
            await asyncio.sleep(PING_INTERVAL)

    def check(self, offset):
        if offset != self.next_offset:
            self.crowd.phase.note("gaps", f"client {self.name}: {offset} instead of {self.next_offset}")
        self.next_offset = offset + 1
        self.crowd.phase.served["deliveries"] += 1

    async def messages(self):
        """The messages of the next text frame."""
        while True:
            first, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(length)
            match first & 0x0F:
                case 0x1:
                    return [json.loads(line) for line in payload.split(b"\n")]
                case 0xA:
                    self.waited(*self.unanswered.popleft())
                case 0x8:
                    raise Closed(f"{int.from_bytes(payload[:2])} {payload[2:].decode()}")

    def waited(self, sent, phase):
        phase.pings.append(time.monotonic() - sent)
        phase.pending -= 1
        phase.served["pings"] += 1

    def send(self, opcode, payload):
        # The key of the mask is zero. All that bystanders send is shorter than 64 KiB.
        length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack("!H", len(payload))
        self.writer.write(bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload)


def expect_status(head, wanted):
    status = head.split(b"\r\n")[0].decode()
    if status.split(" ")[1] != str(wanted):
        raise Closed(f"answered {status}")


def memory(pid):
    """A process's own resident memory in bytes: heap and stacks, no files."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    asyncio.run(Crowd(json.loads(sys.argv[1])).run())
