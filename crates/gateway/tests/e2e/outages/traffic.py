"""Clients and publishers that keep a cluster busy while a test does something to it, and what they saw.

They run in a thread of their own, so that a test reads as a story: it waits, breaks something, waits, and asks for
the verdict. Servers are started by the test's thread, as they must be."""

import asyncio
import contextlib
import itertools
import random
import threading
import time
import uuid

import aiohttp

from checker import ACKNOWLEDGED, FAILED, UNKNOWN, Departure, Publish, Snapshot, violations
from client import RawClient
from cluster import LEASE
from harness import DEADLINE, until

RECOVERABLE_TOPICS, PLAIN_TOPICS = 20, 5
CLIENTS = 30
PUBLISHERS_PER_NODE = 2
PUBLISH_PAUSE = 0.1
PRESENCE_PAUSE = 0.75
ANSWER_DEADLINE = 20
INTERNAL_ERROR = 100
# How long a marker may take to everybody when all is well again, and when the next one follows.
MARKER_DEADLINE, MARKER_PAUSE = 5, 1
# How long who has gone may still be present: the lease, and a second.
GHOST_SECONDS = LEASE + 1


class Traffic:
    """Thirty clients on all nodes of a cluster, each subscribed to every topic, and two publishers for each node."""

    def __init__(self, cluster, more_clients=()):
        self.nodes = list(cluster.nodes)
        run = uuid.uuid4().hex[:8]
        self.topics = {f"open:{run}-{number}": True for number in range(RECOVERABLE_TOPICS)}
        self.topics |= {f"plain:{run}-{number}": False for number in range(PLAIN_TOPICS)}
        self.recoverable = [topic for topic, recoverable in self.topics.items() if recoverable]
        nodes = self.nodes
        self.clients = [
            RawClient(f"client-{number}", nodes[number % len(nodes) :] + nodes[: number % len(nodes)], self.topics)
            for number in range(CLIENTS)
        ]
        self.clients += [make(nodes, self.topics) for make in more_clients]
        self.publishes, self.snapshots, self.refusals = [], [], []
        self.left_at, self.unheard = {}, set()
        self.asked_nodes = set(nodes)
        self.numbers = itertools.count()
        self.is_publishing = True

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.call(self.start())
        try:
            self.wait_for_clients()
            self.wait_for_publishes(len(self.topics))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.call(self.end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE)

    def wait_for_clients(self, deadline=DEADLINE):
        def complete():
            assert not self.all_refusals(), self.all_refusals()
            return all(client.is_complete for client in self.clients)

        until(complete, "every client has all its subscriptions", deadline)

    def wait_for_publishes(self, count, deadline=DEADLINE):
        """Waits until so many more are acknowledged."""
        wanted = self.acknowledged() + count
        until(lambda: self.acknowledged() >= wanted, f"{count} more publishes are acknowledged", deadline)

    def acknowledged(self):
        return sum(publish.outcome == ACKNOWLEDGED for publish in self.publishes)

    def clients_of(self, node):
        return [client for client in self.clients if client.client_id and client.lives[-1].node is node]

    def leave_out(self, node):
        """Publishes nothing more through a node that is about to go, and asks it nothing. Its clients are gone from now
        on, even if they learn it later."""
        self.asked_nodes.discard(node)
        gone = {client.client_id for client in self.clients_of(node)}
        self.left_at |= dict.fromkeys(gone, time.monotonic())
        return gone

    def departures(self):
        """Every client that has gone: an SDK that comes back is another client."""
        ended = [life for client in self.clients for life in client.lives if life.ended is not None]
        return [
            Departure(
                self.left_at.get(life.client_id, life.ended),
                topic,
                life.client_id,
                promised=life.client_id not in self.unheard,
            )
            for life in ended
            for topic in life.topics.intersection(self.recoverable)
        ]

    def come_back(self, clients):
        """Has these clients close their connections, while nobody is promised to hear of it. They come back by
        themselves, to the next node."""
        self.unheard |= {client.client_id for client in clients}
        for client in clients:
            self.call(client.socket.close())

    def close_codes(self):
        """Why connections ended so far."""
        return {life.code for client in self.clients for life in client.lives if life.ended is not None}

    def all_refusals(self):
        return self.refusals + [refusal for client in self.clients for refusal in client.refusals]

    def settle(self, deadline=DEADLINE):
        """Waits until every client is whole, ends the publishing, reaches everybody, and waits for presence."""
        self.wait_for_clients(deadline)
        self.is_publishing = False
        self.call(self.publishing_ended())
        self.reach_everybody()
        self.wait_for_presence()

    def reach_everybody(self):
        """Has a marker on every topic reach every client. The first may come too early for somebody who learns by it
        that the stream is another, so there are more."""
        markers = {topic: set() for topic in self.topics}

        def deaf():
            return [
                (client.name, topic)
                for client in self.clients
                for topic, payloads in markers.items()
                if client.subscriptions[topic].seen.isdisjoint(payloads)
            ]

        end = time.monotonic() + MARKER_DEADLINE
        while time.monotonic() < end:
            for publish in self.call(self.publish_markers(self.nodes_to_ask()[0])):
                assert publish.outcome == ACKNOWLEDGED, "markers are acknowledged"
                markers[publish.topic].add(publish.payload)
            with contextlib.suppress(AssertionError):
                until(lambda: not deaf(), "nobody is deaf", MARKER_PAUSE)
                return
        raise AssertionError(f"no marker within {MARKER_DEADLINE} s: {deaf()[:10]} and more, {len(deaf())} in all")

    def wait_for_presence(self, deadline=DEADLINE):
        """Every node says that all clients are present in every topic that has presence, and nobody else is."""
        everybody = {client.client_id for client in self.clients}

        def wrong():
            return {
                (node.port, topic): len(everybody ^ present)
                for node in self.nodes_to_ask()
                for topic, present in self.call(self.presence(node)).items()
                if present != everybody
            }

        with contextlib.suppress(AssertionError):
            until(lambda: not wrong(), "presence is whole", deadline)
        assert not wrong(), f"nodes and topics with members too few or too many: {wrong()}"

    def verdict(self):
        """What the checker finds, in the order of kinds; empty if all is well."""
        histories = [history for client in self.clients for history in client.histories]
        return sorted(violations(self.publishes, histories, self.snapshots, self.departures(), GHOST_SECONDS))

    def check(self, deadline=DEADLINE):
        """Everything has recovered, and nothing was lost in silence."""
        self.settle(deadline)
        found = self.verdict()
        shown = "\n".join(f"{violation.kind}: {violation.what}" for violation in found[:20])
        assert not found, f"{len(found)} violations:\n{shown}"

    def nodes_to_ask(self):
        return [node for node in self.nodes if node in self.asked_nodes]

    async def start(self):
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_DEADLINE))
        self.runs = [asyncio.create_task(client.run()) for client in self.clients]
        self.publishers = [
            asyncio.create_task(self.publisher(f"publisher-{index}-{lane}", node))
            for index, node in enumerate(self.nodes)
            for lane in range(PUBLISHERS_PER_NODE)
        ]
        # One that has frozen answers late, and keeps nobody from seeing what the others say.
        self.watchers = [asyncio.create_task(self.watch_presence(node)) for node in self.nodes]

    async def end(self):
        for task in [*self.publishers, *self.watchers]:
            task.cancel()
        await asyncio.gather(*(client.stop() for client in self.clients))
        await self.http.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def publishing_ended(self):
        await asyncio.gather(*self.publishers)

    async def publisher(self, name, node):
        """Publishes to one topic after the other, each time after the last was answered, in an order of its own."""
        for topic in itertools.cycle(random.sample(list(self.topics), len(self.topics))):
            if not self.is_publishing:
                return
            if node in self.asked_nodes:
                await self.publish(name, node, topic)
            await asyncio.sleep(PUBLISH_PAUSE)

    async def publish_markers(self, node):
        return await asyncio.gather(*(self.publish("marker", node, topic) for topic in self.topics))

    async def publish(self, name, node, topic):
        payload = f"{name}/{next(self.numbers)}"
        outcome, epoch, offset = UNKNOWN, "", 0
        try:
            reply = await self.ask(node, "publish", {"channel": topic, "data": payload})
            if "error" not in reply:
                result = reply["result"]
                outcome, epoch, offset = ACKNOWLEDGED, result.get("epoch", ""), result.get("offset", 0)
            # Whether an internal error came before or after the publication was taken is not said.
            elif reply["error"]["code"] != INTERNAL_ERROR:
                outcome = FAILED
                self.refusals.append(reply["error"])
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        publish = Publish(topic, payload, name, outcome, epoch, offset)
        self.publishes.append(publish)
        return publish

    async def watch_presence(self, node):
        """Asks a node again and again who is present in every topic."""
        while True:
            await asyncio.sleep(PRESENCE_PAUSE)
            if node in self.asked_nodes:
                now = time.monotonic()
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    present = await self.presence(node)
                    self.snapshots += [Snapshot(now, topic, frozenset(ids)) for topic, ids in present.items()]

    async def presence(self, node):
        """The clients present in each topic; without those that the node cannot tell of at the moment."""
        commands = [{"presence": {"channel": topic}} for topic in self.recoverable]
        replies = (await self.ask(node, "batch", {"commands": commands, "parallel": True}))["replies"]
        return {
            topic: set(reply["presence"]["presence"])
            for topic, reply in zip(self.recoverable, replies)
            if "presence" in reply
        }

    async def ask(self, node, method, params):
        headers = {"x-api-key": node.api_key}
        async with self.http.post(f"{node.http}/api/{method}", json=params, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()
