"""A client that behaves as SDKs do, over bare WebSocket messages, and writes down everything for the checker.

It stays connected, comes back to another node when its own has gone or sends it away, subscribes again when told to,
and recovers from the last position that it saw. It never judges: what it saw is in its histories."""

import asyncio
import itertools
import json
import random
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from checker import Ended, History, Join, Leave, Publication, Subscribed

# SDKs wait half a second and more; suites have less time.
RETRY_SECONDS = 0.05, 0.3
# How late a ping may be before a client takes its connection for dead.
PING_DELAY_MAX = 10
# What SDKs do not come back after.
TERMINAL_CODES = {*range(3500, 4000), *range(4500, 5000)}
RESUBSCRIBE_CODE_MIN = 2500
ABNORMAL = 1006


class Subscription:
    """One topic of one client. `position` is the epoch and the offset that it has seen."""

    def __init__(self, listener, topic, recoverable):
        self.history = History(listener, topic, recoverable)
        self.position = None
        self.is_subscribed = False
        self.seen = set()

    def command(self):
        command = {"channel": self.history.topic}
        if self.position:
            epoch, offset = self.position
            command |= {"recover": True, "epoch": epoch, "offset": offset}
        return command

    def on_subscribed(self, reply):
        asked = self.position[1] if self.position else None
        epoch, offset = reply.get("epoch", ""), reply.get("offset", 0)
        self.is_subscribed = True
        self.history.events.append(Subscribed(epoch, offset, asked, reply.get("recovered", False)))
        if reply.get("recoverable"):
            self.position = epoch, offset
        for publication in reply.get("publications", []):
            self.on_publication(publication)

    def on_publication(self, publication):
        payload, offset = publication["data"], publication.get("offset", 0)
        self.history.events.append(Publication(payload, offset))
        self.seen.add(payload)
        if self.position and offset:
            self.position = self.position[0], offset

    def on_ended(self, code):
        if self.is_subscribed:
            self.is_subscribed = False
            self.history.events.append(Ended(code))


class Life:
    """One connection, from its connect reply to its end, and the topics that it was subscribed to."""

    def __init__(self, client_id, node):
        self.client_id, self.node = client_id, node
        self.topics = set()
        self.ended, self.code = None, None


class Recorder:
    """What traffic and checker ask of every client."""

    def __init__(self, name, topics):
        self.name = name
        self.subscriptions = {topic: Subscription(name, topic, recovered) for topic, recovered in topics.items()}
        self.lives = []
        self.refusals = []

    @property
    def client_id(self):
        """The client's id while it is connected."""
        return self.lives[-1].client_id if self.lives and self.lives[-1].ended is None else None

    @property
    def is_complete(self):
        """Connected, with every subscription made."""
        return self.client_id is not None and all(each.is_subscribed for each in self.subscriptions.values())

    @property
    def histories(self):
        return [subscription.history for subscription in self.subscriptions.values()]


class RawClient(Recorder):
    """`topics` says of each topic whether it is recovered. `nodes` are tried in turn, from the first."""

    def __init__(self, name, nodes, topics):
        super().__init__(name, topics)
        self.nodes = nodes
        self.retries = 0
        self.is_stopping = False
        self.socket = None
        self.waiting = {}
        self.tasks = set()

    async def run(self):
        for node in itertools.cycle(self.nodes):
            try:
                await self.live(node)
            except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
                self.end(error)
            if self.is_stopping or (self.lives and self.lives[-1].code in TERMINAL_CODES):
                return
            await asyncio.sleep(random.uniform(*RETRY_SECONDS))

    async def stop(self):
        self.is_stopping = True
        if self.socket:
            await self.socket.close()

    async def live(self, node):
        """One connection, until it ends by an exception."""
        async with connect(
            node.websocket, proxy=None, compression=None, ping_interval=None, open_timeout=5, close_timeout=1
        ) as self.socket:
            self.ids, self.waiting = itertools.count(1), {}
            await self.command(connect={"token": node.token(self.name)})
            patience = PING_DELAY_MAX
            while True:
                async with asyncio.timeout(patience):
                    message = await self.socket.recv()
                for line in message.split("\n"):
                    reply = json.loads(line)
                    if "connect" in reply:
                        self.lives.append(Life(reply["connect"]["client"], node))
                        patience += reply["connect"]["ping"]
                        await self.subscribe(*self.subscriptions)
                    elif not reply:
                        await self.socket.send("{}")
                    elif "push" in reply:
                        await self.on_push(reply["push"])
                    else:
                        await self.on_reply(reply)

    def end(self, error):
        """The connection is gone, if there was one."""
        received = getattr(error, "rcvd", None)
        code = received.code if received else ABNORMAL
        for subscription in self.subscriptions.values():
            subscription.on_ended(code)
        for task in self.tasks:
            task.cancel()
        if self.client_id:
            self.lives[-1].ended, self.lives[-1].code = time.monotonic(), code

    async def command(self, topic=None, **content):
        number = next(self.ids)
        self.waiting[number] = topic
        await self.socket.send(json.dumps({"id": number, **content}))

    async def subscribe(self, *topics):
        for topic in topics:
            await self.command(topic, subscribe=self.subscriptions[topic].command())

    async def on_reply(self, reply):
        topic = self.waiting.pop(reply["id"])
        if "subscribe" in reply:
            self.subscriptions[topic].on_subscribed(reply["subscribe"])
            self.lives[-1].topics.add(topic)
            return
        error = reply["error"]
        if topic is None:
            # A refused connection; a temporary error is tried again.
            if not error.get("temporary"):
                self.refusals.append(error)
                self.is_stopping = True
            await self.socket.close()
        elif error.get("temporary"):
            self.later(topic)
        else:
            self.refusals.append({"topic": topic, **error})

    async def on_push(self, push):
        subscription = self.subscriptions[push["channel"]]
        events = subscription.history.events
        if "pub" in push:
            subscription.on_publication(push["pub"])
        elif "join" in push:
            events.append(Join(push["join"]["info"]["client"]))
        elif "leave" in push:
            events.append(Leave(push["leave"]["info"]["client"]))
        elif "unsubscribe" in push:
            code = push["unsubscribe"]["code"]
            subscription.on_ended(code)
            if code >= RESUBSCRIBE_CODE_MIN:
                await self.subscribe(push["channel"])

    def later(self, topic):
        """Subscribes again after a pause, on this connection."""
        self.retries += 1

        async def again():
            await asyncio.sleep(random.uniform(*RETRY_SECONDS))
            await self.subscribe(topic)

        task = asyncio.create_task(again())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
