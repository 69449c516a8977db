"""Real clients of every kind that only listen. What each sees is kept in the order in which it saw it, in one form."""

import asyncio
import concurrent.futures
import itertools
import json
import pathlib
import subprocess
import threading
import urllib.parse

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

from harness import DEADLINE, STOP_DEADLINE, die_with_parent, until

# A browser takes its time to start.
OPEN_DEADLINE = 60
IN_PYTHON = ["python-json", "python-protobuf"]


class Listener:
    """What one client saw: each event says in `event` what it is, and of which `topic`."""

    def __init__(self, name, kind, topics):
        self.name, self.kind, self.topics, self.events = name, kind, topics, []

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

    def is_open(self):
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
        begun = [self.home(listener).open(listener, place, token_of(listener.name)) for listener in opened]
        for opening in begun:
            opening.result(OPEN_DEADLINE)
        for listener in opened:
            until(listener.is_open, f"{listener.name} is subscribed", OPEN_DEADLINE)
        return opened

    def close(self, listener):
        self.home(listener).close(listener).result(DEADLINE)

    def home(self, listener):
        return self.in_python if listener.kind in IN_PYTHON else self.in_node


class NodeProcess:
    """The clients of `listeners.mjs`, which is started when it is first needed."""

    def __init__(self):
        self.process, self.listeners, self.waiting, self.ids = None, {}, {}, itertools.count()

    def open(self, listener, place, token):
        self.listeners[listener.name] = listener
        query = [("topic", topic) for topic in listener.topics] + [("token", token)]
        return self.request(
            "open",
            name=listener.name,
            kind=listener.kind,
            address=place.websocket,
            http=place.http,
            source=f"{place.http}/subscribe?{urllib.parse.urlencode(query)}",
            token=token,
            topics=listener.topics,
        )

    def close(self, listener):
        return self.request("close", name=listener.name)

    def request(self, request, **parameters):
        if self.process is None:
            self.start()
        answer, id = concurrent.futures.Future(), next(self.ids)
        self.waiting[id] = answer
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
    """Clients of centrifuge-python, on an event loop in a thread of its own."""

    def __init__(self):
        self.loop, self.clients = asyncio.new_event_loop(), {}
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def open(self, listener, place, token):
        return asyncio.run_coroutine_threadsafe(self.connect(listener, place, token), self.loop)

    async def connect(self, listener, place, token):
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
        return asyncio.run_coroutine_threadsafe(self.clients.pop(listener.name).disconnect(), self.loop)

    def stop(self):
        async def everything():
            await asyncio.gather(*(client.disconnect() for client in self.clients.values()))
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
