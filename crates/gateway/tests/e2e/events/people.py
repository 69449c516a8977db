"""People who come and go on every node of a cluster, and write down what they did.

A user has one device or several. A device visits a node, enters and leaves topics there, goes, and comes back to some
node. Its choices are those of a seed; what becomes of them depends on the nodes. Times are in milliseconds by the clock
of this machine, which Redis has too."""

import asyncio
import contextlib
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, field

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

# Seconds. A node that is stopped accepts connections and answers nothing.
OPEN_MAX, ANSWER_MAX = 2, 3
PAUSE_MEAN, VISIT_ACTIONS_MAX, ACTION_PAUSE_MEAN, LINGER_MAX = 3, 5, 0.8, 6
LEAVE_SHARE = 0.4
DEVICES = [1, 1, 1, 2, 2, 3]


def now():
    return time.time() * 1000


@dataclass
class Spell:
    """A time as a member: of a user's connections, or of a topic's subscribers."""

    node: str
    asked: float
    # None if there was no answer, or an error: then it may have become a member or not.
    answered: float | None = None
    ended: float | None = None
    # The member itself ended it, and by which words. It may have been ended by its node before.
    ended_by: str | None = None

    def end(self, by):
        if self.ended is None:
            self.ended, self.ended_by = now(), by


@dataclass
class Visit:
    """A connection. Its client is not known unless connect was answered."""

    user: str
    spell: Spell
    client: str | None = None
    # Topic and spell of each subscription, in order.
    stays: list = field(default_factory=list)

    def stay_in(self, topic):
        """The subscription that lasts."""
        return next((spell for name, spell in self.stays if name == topic and spell.ended is None), None)

    def end(self, by):
        self.spell.end(by)
        for _, spell in self.stays:
            spell.end(by)


class Device:
    def __init__(self, people, user, seed):
        self.people, self.user = people, user
        self.random = random.Random(seed)
        self.token = people.nodes[0].token(user)

    async def run(self):
        await asyncio.sleep(self.random.uniform(0, PAUSE_MEAN))
        while True:
            try:
                await self.visit(self.random.choice(self.people.nodes))
            except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed):
                pass
            await asyncio.sleep(self.random.expovariate(1 / PAUSE_MEAN))

    async def visit(self, node):
        self.socket = await connect(
            node.websocket, proxy=None, compression=None, ping_interval=None, open_timeout=OPEN_MAX, close_timeout=1
        )
        self.ids = itertools.count(1)
        visit = Visit(self.user, Spell(node.name, now()))
        self.people.visits.append(visit)
        try:
            reply = await self.ask(connect={"token": self.token})
            if "error" in reply:
                return
            visit.client, visit.spell.answered = reply["connect"]["client"], now()
            for _ in range(self.random.randrange(VISIT_ACTIONS_MAX + 1)):
                here = [topic for topic, spell in visit.stays if spell.ended is None]
                is_to_leave = here and self.random.random() < LEAVE_SHARE
                await self.enter_or_leave(visit, self.random.choice(here if is_to_leave else self.people.topics))
                await self.stay(self.random.expovariate(1 / ACTION_PAUSE_MEAN))
            await self.stay(self.random.uniform(0, LINGER_MAX))
            if self.random.random() < 0.5:
                visit.end("close")
                await self.socket.close()
        except ConnectionClosed:
            visit.end("node")
            raise
        finally:
            # Without a word, as devices do that lose their network.
            visit.end("cut")
            self.socket.transport.abort()

    async def enter_or_leave(self, visit, topic):
        if spell := visit.stay_in(topic):
            spell.end("unsubscribe")
            await self.ask(unsubscribe={"channel": topic})
            return
        spell = Spell(visit.spell.node, now())
        visit.stays.append((topic, spell))
        reply = await self.ask(subscribe={"channel": topic})
        if "error" in reply:
            spell.end("error")
        else:
            spell.answered = now()

    async def ask(self, **command):
        number = next(self.ids)
        await self.socket.send(json.dumps({"id": number, **command}))
        async with asyncio.timeout(ANSWER_MAX):
            while not (found := [reply for reply in await self.receive() if reply.get("id") == number]):
                pass
        return found[0]

    async def stay(self, seconds):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await self.receive()

    async def receive(self):
        replies = [json.loads(line) for line in (await self.socket.recv()).split("\n")]
        if {} in replies:
            await self.socket.send("{}")
        return replies


class People:
    """All users, in a thread of their own."""

    def __init__(self, nodes, seed, users, topics):
        self.nodes, self.topics = nodes, topics
        self.visits = []
        sizes = random.Random(f"people {seed}")
        self.devices = [
            Device(self, f"user-{number}", f"{seed} {number} {device}")
            for number in range(users)
            for device in range(sizes.choice(DEVICES))
        ]

    def __enter__(self):
        self.has_begun = threading.Event()
        self.thread = threading.Thread(target=asyncio.run, args=(self.run(),), daemon=True)
        self.thread.start()
        self.has_begun.wait()
        return self

    def __exit__(self, *_):
        self.leave()

    async def run(self):
        self.loop = asyncio.get_running_loop()
        self.tasks = [asyncio.ensure_future(device.run()) for device in self.devices]
        self.has_begun.set()
        self.ends = await asyncio.gather(*self.tasks, return_exceptions=True)

    def leave(self):
        """Everybody goes."""
        if self.thread.is_alive():
            for task in self.tasks:
                self.loop.call_soon_threadsafe(task.cancel)
            self.thread.join()
        failures = [end for end in self.ends if not isinstance(end, asyncio.CancelledError)]
        assert not failures, failures
