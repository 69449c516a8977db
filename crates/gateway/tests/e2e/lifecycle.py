"""The events of clients, read by the reader in docs/events.md as it is printed there: nodes and the reader are killed."""

import collections
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

from websockets.sync.client import connect

from harness import FOLDER, Server, die_with_parent, until
from redis_server import RedisServer

LEASE = 3
DELAY = 3
EVERY_CLIENT = ["connected", "disconnected", "user_online", "user_offline"]
EVERY_TOPIC = ["subscribed", "unsubscribed", "topic_occupied", "topic_vacated"]


class Reader:
    """The documented reader, which may be killed. Collects what it handles, each event once."""

    def __init__(self, redis):
        page = (FOLDER.parents[3] / "docs/events.md").read_text()
        (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        self.file = tempfile.NamedTemporaryFile("w", suffix=".py")
        self.file.write(program)
        self.file.flush()
        self.variables = {**os.environ, "REDIS_URL": f"redis://{redis.address}"}
        self.events, self.repeats = {}, 0
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, self.file.name],
            stdout=subprocess.PIPE,
            text=True,
            env=self.variables,
            preexec_fn=die_with_parent,
        )
        self.thread = threading.Thread(target=self.collect, args=(self.process.stdout,))
        self.thread.start()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()

    def collect(self, lines):
        for line in lines:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                self.repeats += event["id"] in self.events
                self.events[event["id"]] = event

    def of_user(self, user):
        """The events of the user's connections, in order."""
        return [e["event"] for e in list(self.events.values()) if "topic" not in e and e["user"] == user]

    def of_topic(self, topic):
        events = [e for e in list(self.events.values()) if e.get("topic") == topic]
        return [f"{e['event']} {e['user']}" if "user" in e else e["event"] for e in events]

    def until_user(self, user, expected, seconds=20):
        until(lambda: self.of_user(user) == expected, f"{user}: {expected}", seconds)

    def until_topic(self, topic, expected, seconds=20):
        until(lambda: self.of_topic(topic) == expected, f"{topic}: {expected}", seconds)


class Client:
    """A client of the Centrifuge protocol, as far as it goes."""

    def __init__(self, server, user):
        self.socket = connect(server.websocket, legacy=True)
        self.ask(connect={"token": server.token(user)})

    def ask(self, **request):
        self.socket.send(json.dumps({"id": 1, **request}))
        while "id" not in (reply := json.loads(self.socket.recv(timeout=10))):
            pass
        assert "error" not in reply, reply
        return reply

    def close(self):
        self.socket.close()


@contextlib.contextmanager
def cluster():
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        settings = {
            "engine": {"type": "redis", "redis": {"address": redis.address, "lease": f"{LEASE}s", "answer_timeout": "1s"}},
            "client": {"events": EVERY_CLIENT},
            "events": {"offline_delay": f"{DELAY}s"},
            "topics": {
                "namespaces": [{"name": "room", "allow_subscribe_for_client": True, "events": EVERY_TOPIC}],
            },
        }
        nodes = [stack.enter_context(Server({**settings, "server": {"name": name}})) for name in "ab"]
        reader = Reader(redis)
        try:
            yield reader, nodes
        finally:
            reader.kill()


def test_a_killed_node_and_a_killed_reader():
    with cluster() as (reader, (a, b)):
        ann, bob = Client(a, "ann"), Client(b, "bob")
        for client in (ann, bob):
            client.ask(subscribe={"channel": "room:t"})
        reader.until_user("ann", ["user_online", "connected"])
        reader.until_topic("room:t", ["topic_occupied", "subscribed ann", "subscribed bob"])

        killed = time.monotonic()
        a.kill()
        gone = ["user_online", "connected", "disconnected", "user_offline"]
        reader.until_user("ann", gone, LEASE + 2)
        print(f"offline {time.monotonic() - killed:.1f} s after the kill")
        died = [e for e in reader.events.values() if e["event"] == "disconnected"]
        assert [e["reason"] for e in died] == [{"code": 1, "text": "node died"}]

        # What happens while nobody reads waits, in order.
        reader.kill()
        ann = Client(b, "ann")
        ann.ask(subscribe={"channel": "room:t"})
        bob.ask(unsubscribe={"channel": "room:t"})
        reader.start()
        reader.until_user("ann", gone + ["user_online", "connected"])
        expected = ["topic_occupied", "subscribed ann", "subscribed bob", "unsubscribed ann", "subscribed ann", "unsubscribed bob"]
        reader.until_topic("room:t", expected)

        # Its killer did not let it end what it had begun; from then on nothing comes twice.
        repeats = reader.repeats
        ann.close()
        reader.until_topic("room:t", expected + ["unsubscribed ann", "topic_vacated"])
        reader.until_user("ann", gone + gone)
        bob.close()
        reader.until_user("bob", gone)
        assert reader.repeats == repeats
        counts = collections.Counter(reader.of_user("ann"))
        assert set(counts.values()) == {2}, counts


def test_who_is_soon_back_is_not_offline():
    with cluster() as (reader, (a, b)):
        for node in (a, b, a):
            client = Client(node, "ann")
            client.close()
        gone = ["connected", "disconnected"]
        reader.until_user("ann", ["user_online", *gone, *gone, *gone, "user_offline"])
