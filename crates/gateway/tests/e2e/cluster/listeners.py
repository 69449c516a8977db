"""Real clients of every kind that only listen. What each sees is kept in the order in which it saw it, in one form."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import pathlib
import subprocess
import threading
import urllib.parse

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

from harness import DEADLINE, STOP_DEADLINE, die_with_parent, until
from readers import READERS

# A browser takes its time to start.
OPEN_DEADLINE = 60
WITH_SDK = ["python-json", "python-protobuf"]
# Bare WebSockets, on which nothing is said but the data.
RAW = ["page-reconnecting-websocket", "page-reconnectingwebsocket"]


class Listener:
    """What one client saw: each event says in `event` what it is, and of which `topic`. It goes on where an `earlier`
    one was, on whatever transport that was: by positions in the Centrifuge protocol, by a cursor elsewhere."""

    def __init__(self, name, kind, topics, earlier=None):
        self.name, self.kind, self.topics, self.events = name, kind, topics, []
        self.began_at, self.began_with = (earlier.positions, earlier.cursor) if earlier else ({}, None)

    def of(self, event, topic=None):
        # A copy, as the thread that hears adds to it.
        return [seen for seen in list(self.events) if seen["event"] == event and topic in (None, seen.get("topic"))]

    def data(self, topic):
        return [publication["data"] for publication in self.of("publication", topic)]

    def offsets(self, topic):
        return [publication["offset"] for publication in self.of("publication", topic)]

    @property
    def client(self):
        """The id of the newest connection; an EventSource is not told."""
        return self.of("connected")[-1].get("client")

    @property
    def positions(self):
        """The position after everything received, by topic."""
        positions = {topic: dict(position) for topic, position in self.began_at.items()}
        for seen in list(self.events):
            if seen["event"] == "subscribed" and seen.get("position") and not seen["recovered"]:
                positions[seen["topic"]] = dict(seen["position"])
            elif seen["event"] == "publication" and seen["topic"] in positions:
                positions[seen["topic"]]["offset"] = seen["offset"]
        return positions

    @property
    def cursor(self):
        """The newest cursor."""
        return next((seen["cursor"] for seen in reversed(list(self.events)) if "cursor" in seen), self.began_with)

    @property
    def is_raw(self):
        return self.kind in RAW

    def is_open(self):
        if self.is_raw:
            return bool(self.of("connected"))
        return {seen["topic"] for seen in self.of("subscribed")} == set(self.topics)


class Listeners:
    """Opens listeners, and closes those that are left at the end."""

    def __init__(self):
        self.in_node, self.in_python = NodeProcess(), PythonThread()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.in_node.stop()
        self.in_python.stop()

    def open(self, kind, name, place, token, topics):
        """A client of a place, an nginx or a node, that is subscribed to all topics when this returns."""
        return self.open_all([(kind, name)], place, lambda _: token, topics)[0]

    def open_all(self, wanted, place, token_of, topics):
        """The same for several at once: pairs of a kind and a name, which is that of the user too."""
        opened = [Listener(name, kind, topics) for kind, name in wanted]
        self.begin([(listener, place, token_of(listener.name)) for listener in opened])
        return opened

    def begin(self, wanted):
        """Opens each listener at a place with a token, all at once."""
        for opening in [self.home(one).open(one, place, token) for one, place, token in wanted]:
            opening.result(OPEN_DEADLINE)
        for listener, _, _ in wanted:
            until(listener.is_open, f"{listener.name} is subscribed", OPEN_DEADLINE)

    def close(self, listener):
        self.home(listener).close(listener).result(DEADLINE)

    def home(self, listener):
        return self.in_python if listener.kind in [*WITH_SDK, *READERS] else self.in_node


def subscribe_address(listener, place, token):
    """The address by which a client without a library of the Centrifuge protocol listens."""
    query = [("topic", topic) for topic in listener.topics] + [("token", token)]
    return f"{place.http}/subscribe?{urllib.parse.urlencode(query)}"


class NodeProcess:
    """The clients of `listeners.mjs`, which is started when it is first needed."""

    def __init__(self):
        self.process, self.listeners, self.waiting, self.ids = None, {}, {}, itertools.count()
        self.writing = threading.Lock()

    def open(self, listener, place, token):
        self.listeners[listener.name] = listener
        return self.request(
            "open",
            name=listener.name,
            kind=listener.kind,
            address=place.websocket,
            http=place.http,
            source=subscribe_address(listener, place, token),
            token=token,
            topics=listener.topics,
            since=listener.began_at,
            cursor=listener.began_with,
        )

    def close(self, listener):
        return self.request("close", name=listener.name)

    def request(self, request, **parameters):
        if self.process is None:
            self.start()
        answer, id = concurrent.futures.Future(), next(self.ids)
        self.waiting[id] = answer
        with self.writing:
            self.process.stdin.write(json.dumps({"id": id, "request": request, **parameters}) + "\n")
            self.process.stdin.flush()
        return answer

    def start(self):
        self.process = subprocess.Popen(
            ["node", pathlib.Path(__file__).with_name("listeners.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        threading.Thread(target=self.hear, daemon=True).start()

    def hear(self):
        for line in self.process.stdout:
            said = json.loads(line)
            if "name" in said:
                self.listeners[said.pop("name")].events.append(said)
            elif "error" in said:
                self.waiting.pop(said["id"]).set_exception(AssertionError(said["error"]))
            else:
                self.waiting.pop(said["id"]).set_result(None)
        for answer in self.waiting.values():
            answer.set_exception(AssertionError("listeners.mjs has ended"))

    def stop(self):
        if self.process is None:
            return
        self.process.stdin.close()
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class PythonThread:
    """Clients of centrifuge-python, and readers, on an event loop in a thread of its own."""

    def __init__(self):
        self.loop, self.clients, self.readers = asyncio.new_event_loop(), {}, {}
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def open(self, listener, place, token):
        return asyncio.run_coroutine_threadsafe(self.connect(listener, place, token), self.loop)

    async def connect(self, listener, place, token):
        if listener.kind in READERS:
            address = subscribe_address(listener, place, token)
            reader = READERS[listener.kind](listener.events, address, listener.began_with)
            self.readers[listener.name] = asyncio.create_task(reader.run())
            return
        # An application's values are bytes of its own choice in Protobuf mode.
        is_protobuf = listener.kind == "python-protobuf"
        client = self.clients[listener.name] = Client(
            place.websocket,
            events=ClientEvents(listener.events),
            token=token,
            use_protobuf=is_protobuf,
            min_reconnect_delay=0.02,
            max_reconnect_delay=0.2,
            proxy=None,
        )
        unpack = json.loads if is_protobuf else lambda data: data
        for topic in listener.topics:
            events = SubscriptionEvents(listener.events, topic, unpack)
            delays = {"min_resubscribe_delay": 0.02, "max_resubscribe_delay": 0.2}
            await client.new_subscription(topic, events, **delays).subscribe()
        await client.connect()

    def close(self, listener):
        return asyncio.run_coroutine_threadsafe(self.disconnect(listener.name), self.loop)

    async def disconnect(self, name):
        if name in self.clients:
            await self.clients.pop(name).disconnect()
        else:
            reader = self.readers.pop(name)
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    def stop(self):
        async def everything():
            await asyncio.gather(*(self.disconnect(name) for name in [*self.clients, *self.readers]))
            # Connections end in tasks of their own.
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=DEADLINE)

        asyncio.run_coroutine_threadsafe(everything(), self.loop).result(STOP_DEADLINE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(STOP_DEADLINE)


class ClientEvents(ClientEventHandler):
    def __init__(self, events):
        self.events = events

    async def on_connecting(self, ctx):
        self.events.append({"event": "connecting", "code": ctx.code})

    async def on_connected(self, ctx):
        self.events.append({"event": "connected", "client": ctx.client})

    async def on_disconnected(self, ctx):
        self.events.append({"event": "disconnected", "code": ctx.code})


class SubscriptionEvents(SubscriptionEventHandler):
    def __init__(self, events, topic, unpack):
        self.events, self.topic, self.unpack = events, topic, unpack

    def tell(self, event, **more):
        self.events.append({"event": event, "topic": self.topic, **more})

    async def on_subscribed(self, ctx):
        self.tell("subscribed", recovered=ctx.recovered, wasRecovering=ctx.was_recovering)

    async def on_unsubscribed(self, ctx):
        self.tell("unsubscribed", code=ctx.code)

    async def on_publication(self, ctx):
        self.tell("publication", data=self.unpack(ctx.pub.data), offset=ctx.pub.offset or 0)

    async def on_join(self, ctx):
        self.tell("join", client=ctx.info.client)

    async def on_leave(self, ctx):
        self.tell("leave", client=ctx.info.client)
