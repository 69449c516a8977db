"""Clients that only listen, in Python and by curl: each is a coroutine that reads until it is cancelled, comes back when a
stream ends, and goes on where it was."""

import asyncio
import contextlib
import json
import os
import pathlib
import random
import signal

import httpx
from httpx_sse import aconnect_sse

from harness import DEADLINE, die_with_parent

# How long one waits before it comes back, in seconds.
PAUSES = (0.02, 0.2)
ANSWER_BYTES_MAX = 16 << 20


class Reader:
    """Tells the events of a listener that goes on from `cursor` at an address."""

    def __init__(self, events, address, cursor):
        self.events, self.address, self.cursor = events, httpx.URL(address), cursor

    def tell(self, event, **more):
        self.events.append({"event": event, **more})

    def subscribed(self, message):
        self.cursor = message["cursor"]
        for topic in message["subscribed"]:
            self.tell("subscribed", wasRecovering="recovered" in topic, cursor=self.cursor, **topic)

    def publication(self, message, cursor):
        self.cursor = cursor
        self.tell("publication", topic=message["topic"], data=message["data"], cursor=cursor)

    def here(self, **more):
        """The address at which the reader goes on."""
        return self.address.copy_merge_params({"cursor": self.cursor, **more} if self.cursor else more)

    async def run(self):
        while True:
            with contextlib.suppress(httpx.TransportError):
                await self.read()
            self.tell("connecting")
            await asyncio.sleep(random.uniform(*PAUSES))

    async def read(self):
        """Reads one answer to its end."""
        raise NotImplementedError


def new_client():
    return httpx.AsyncClient(timeout=DEADLINE, trust_env=False)


class EventReader(Reader):
    """PyPI `httpx-sse`."""

    async def read(self):
        async with new_client() as client, aconnect_sse(client, "GET", self.here()) as source:
            if source.response.status_code != 200:
                return
            self.tell("connected")
            async for event in source.aiter_sse():
                if event.event == "subscribed":
                    self.subscribed(json.loads(event.data))
                elif event.event == "message" and event.data:
                    self.publication(json.loads(event.data), event.id)


class LineReader(Reader):
    """PyPI `httpx`, which reads lines of JSON."""

    async def read(self):
        headers = {"Accept": "application/x-ndjson"}
        async with new_client() as client, client.stream("GET", self.here(), headers=headers) as response:
            if response.status_code != 200:
                return
            self.tell("connected")
            async for line in response.aiter_lines():
                message = json.loads(line) if line else {}
                if "subscribed" in message:
                    self.subscribed(message)
                elif "topic" in message:
                    self.publication(message, message["cursor"])


class PollReader(Reader):
    """A shell that polls by `curl`. A poll that opens a session counts as a connection."""

    async def run(self):
        # The first poll need not wait long: its answer says that the reader is subscribed.
        script, address = pathlib.Path(__file__).with_name("poll.sh"), self.address.copy_merge_params({"as": "poll"})
        first = "&wait=1" + (f"&cursor={self.cursor}" if self.cursor else "")
        shell = await asyncio.create_subprocess_exec(
            "bash",
            script,
            str(address),
            first,
            stdout=asyncio.subprocess.PIPE,
            limit=ANSWER_BYTES_MAX,
            process_group=0,
            preexec_fn=die_with_parent,
        )
        try:
            async for line in shell.stdout:
                self.answer(json.loads(line))
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
            await shell.wait()

    def answer(self, answer):
        messages, cursor = answer["messages"], answer.get("cursor", self.cursor)
        if "subscribed" in answer:
            self.tell("connected")
            for topic in answer["subscribed"]:
                self.tell("subscribed", wasRecovering="recovered" in topic, **topic)
        for message in messages:
            self.tell("publication", topic=message["topic"], data=message["data"])
        # The cursor is for all of them.
        self.cursor = cursor
        self.tell("answered", cursor=cursor)


READERS = {"httpx-sse": EventReader, "httpx-ndjson": LineReader, "curl-poll": PollReader}
